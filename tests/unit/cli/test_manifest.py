"""From flags to objects."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import BadUsage
from cli.manifest import Wanted, pairs, service, traffic

AT = "2026-11-23T13:00:00Z"


def existing(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "resourceVersion": "7"},
        "spec": {
            "template": {
                "metadata": {"name": "hello-one"},
                "spec": {"containers": [{"image": "a:1", "env": [{"name": "A", "value": "1"}]}]},
            },
            **spec,
        },
        "status": {
            "latestReadyRevisionName": "hello-one",
            "traffic": [{"revisionName": "hello-one", "latestRevision": True, "percent": 100}],
        },
    }


def test_tcp_is_a_port_of_the_service_and_a_name_of_the_containers_port() -> None:
    made = service("db", Wanted(image="a:1", port=5432, tcp=15432), None, AT)
    assert made["metadata"]["annotations"] == {"ebb.dev/tcp-port": "15432"}
    assert made["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 5432, "name": "tcp"}]
    back = service("db", Wanted(tcp=0), made, AT)
    assert back["metadata"]["annotations"] == {}
    assert back["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 5432}]


def test_a_new_service_has_what_the_flags_say() -> None:
    wanted = Wanted(
        image="a:1", env=["A=1", "B=x=y"], port=9000, concurrency=5, min_scale=0, max_scale=3, timeout_s=60, cpu="1",
        memory="256Mi", command=["/run"], args=["-v"], annotations=["autoscaling.knative.dev/window=6s"], revision_suffix="one",
    )  # fmt: skip
    made = service("hello", wanted, None, AT)
    assert made["metadata"] == {"name": "hello"}
    template = made["spec"]["template"]
    assert template["metadata"]["name"] == "hello-one"
    assert template["metadata"]["annotations"] == {
        "client.knative.dev/updateTimestamp": AT,
        "autoscaling.knative.dev/min-scale": "0",
        "autoscaling.knative.dev/max-scale": "3",
        "autoscaling.knative.dev/window": "6s",
    }
    assert template["spec"]["containerConcurrency"] == 5
    assert template["spec"]["timeoutSeconds"] == 60
    assert template["spec"]["containers"] == [
        {
            "image": "a:1",
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}],
            "ports": [{"containerPort": 9000}],
            "resources": {"limits": {"cpu": "1", "memory": "256Mi"}},
            "command": ["/run"],
            "args": ["-v"],
        }
    ]


def test_a_change_keeps_what_no_flag_names_and_never_reuses_a_revisions_name() -> None:
    old = existing()
    before = copy.deepcopy(old)
    made = service("hello", Wanted(env=["B=2"]), old, AT)
    assert old == before
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert container == {"image": "a:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    assert "name" not in made["spec"]["template"]["metadata"]
    assert made["metadata"]["resourceVersion"] == "7"
    assert "status" not in made


def test_a_variable_is_replaced_in_place_and_removed_with_a_minus() -> None:
    made = service("hello", Wanted(env=["A=9"]), existing(), AT)
    assert made["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "9"}]
    made = service("hello", Wanted(env=["A-"]), existing(), AT)
    assert made["spec"]["template"]["spec"]["containers"][0]["env"] == []


def test_the_execution_environment_is_cloud_runs_annotation() -> None:
    made = service("hello", Wanted(environment="sandboxed"), existing(), AT)
    assert made["spec"]["template"]["metadata"]["annotations"]["run.googleapis.com/execution-environment"] == "sandboxed"


def test_no_traffic_pins_what_latest_means_now() -> None:
    made = service("hello", Wanted(image="a:2", no_traffic=True), existing(), AT)
    assert made["spec"]["traffic"] == [{"revisionName": "hello-one", "latestRevision": False, "percent": 100}]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(), "--image"),
        (Wanted(image="a", no_traffic=True), "--no-traffic"),
        (Wanted(image="a", env=["A"]), "--env A: want KEY=VALUE"),
        (Wanted(image="a", env=["=1"]), "--env =1"),
        (Wanted(image="a", annotations=["x"]), "--annotation x"),
    ],
)
def test_what_cannot_be_says_which_flag(wanted: Wanted, says: str) -> None:
    with pytest.raises(BadUsage, match=says):
        service("hello", wanted, None, AT)


def test_a_split_by_percent_with_a_tag() -> None:
    made = traffic(existing(), ["hello-1=90", "LATEST=10"], ["next=hello-2"], [], False, ["hello-1", "hello-2"])
    assert made == [
        {"revisionName": "hello-1", "latestRevision": False, "percent": 90},
        {"latestRevision": True, "percent": 10},
        {"revisionName": "hello-2", "latestRevision": False, "tag": "next", "percent": 0},
    ]


def test_shares_stay_when_only_tags_change_and_tags_stay_when_only_shares_change() -> None:
    old = existing(
        traffic=[{"revisionName": "r1", "percent": 100, "tag": "live"}, {"revisionName": "r2", "tag": "next", "percent": 0}]
    )
    made = traffic(old, [], ["try=r3"], ["next"], False)
    assert made == [
        {"revisionName": "r1", "percent": 100},
        {"revisionName": "r1", "tag": "live", "percent": 0},
        {"revisionName": "r3", "latestRevision": False, "tag": "try", "percent": 0},
    ]
    made = traffic(old, [], [], [], True)
    assert made[0] == {"latestRevision": True, "percent": 100}
    assert [share["tag"] for share in made[1:]] == ["live", "next"]


@pytest.mark.parametrize(
    ("to", "tags", "untag", "latest", "says"),
    [
        (["a=50"], [], [], False, "sum to 50"),
        (["a=60", "a=100"], [], [], False, "named twice"),
        (["a=101"], [], [], False, "from 0 to 100"),
        (["a=x"], [], [], False, "whole percentage"),
        (["a"], [], [], False, "want KEY=VALUE"),
        (["a=100"], [], [], True, "exclude each other"),
        ([], [], ["gone"], False, "no such tag"),
        (["zzz=100"], [], [], False, "revisions are: a, b"),
    ],
)
def test_a_bad_split_says_what_is_allowed(to: list[str], tags: list[str], untag: list[str], latest: bool, says: str) -> None:
    with pytest.raises(BadUsage, match=says):
        traffic(existing(), to, tags, untag, latest, ["a", "b"])


@given(st.dictionaries(st.text(st.characters(exclude_characters="="), min_size=1), st.text(), max_size=5))
def test_pairs_read_back_what_was_written(values: dict[str, str]) -> None:
    assert pairs([f"{k}={v}" for k, v in values.items()], "--env") == values
