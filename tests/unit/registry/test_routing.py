"""Traffic targets → hosts and shares."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import objects, routing, rules
from registry.bounds import Naming
from registry.conditions import find
from registry.problem import Problems
from store.model import Mirror, PathRule, Revision

NAMING = Naming("example.org", 443, "https")
READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}], "latestReadyRevisionName": "hello-2"}}
NAMES = ["hello-1", "hello-2", "hello-3"]


def compiled(*names: str) -> dict[str, Revision]:
    return {name: Revision(project="p", name=name, image="i", container_concurrency=7) for name in names}


def route(traffic: list[dict[str, Any]], owner: str = "", **labels: str) -> routing.Routing:
    obj = {"metadata": {"name": "hello", "namespace": "p", "labels": labels}, "spec": {"traffic": traffic}}
    revisions = {name: {"metadata": {"name": name}, **READY} for name in NAMES}
    return routing.route(obj, revisions, {"hello": READY}, compiled(*NAMES), NAMING, lambda _: owner)


TARGETS = st.lists(
    st.tuples(st.sampled_from([*NAMES, "latest"]), st.integers(0, 100), st.sampled_from(["", "a", "b", "c"])),
    min_size=1,
    max_size=6,
)


@given(TARGETS)
def test_shares_are_what_was_asked_for_and_tags_get_everything(drawn: list[tuple[str, int, str]]) -> None:
    traffic: list[dict[str, Any]] = []
    for name, percent, tag in drawn:
        target: dict[str, Any] = {"percent": percent}
        target |= {"configurationName": "hello"} if name == "latest" else {"revisionName": name}
        traffic.append({**target, "tag": tag} if tag else target)
    made = route(traffic)
    assert made.entry is not None
    main = made.entry.hosts["hello.p.example.org"]
    assert sum(share.percent for share in main) == sum(percent for _, percent, _ in drawn)
    assert len({share.revision for share in main}) == len(main)
    assert all(share.percent > 0 for share in main)
    for host, shares in made.entry.hosts.items():
        if host != "hello.p.example.org":
            assert [share.percent for share in shares] == [100]
        assert all(share.revision in made.entry.limits for share in shares)
    assert len(made.traffic) == len(drawn)


def test_urls_leave_out_the_schemes_own_port_and_tags_come_first_in_the_host() -> None:
    made = route([{"configurationName": "hello", "percent": 100, "tag": "next"}])
    assert made.url == "https://hello.p.example.org"
    assert made.traffic[0]["url"] == "https://next-hello.p.example.org"
    assert made.entry is not None
    assert made.entry.limits["hello-2"].container_concurrency == 7


def test_a_cluster_local_route_has_no_public_host() -> None:
    made = route([{"configurationName": "hello", "percent": 100}], **{objects.LABEL_VISIBILITY: "cluster-local"})
    assert made.entry is not None
    assert list(made.entry.hosts) == ["hello.p.svc.cluster.local"]


def tcp(names: dict[str, str], **more: Any) -> routing.Routing:
    """A Route with port 15432 to hello-2, whose revisions speak what `names` says."""
    meta = {"name": "hello", "namespace": "p", "annotations": {objects.ANNOTATION_TCP_PORT: "15432"}}
    obj = {"metadata": meta, "spec": {"traffic": [{"configurationName": "hello", "percent": 100, "tag": "next"}]}}
    made = {name: Revision(project="p", name=name, image="i", protocol=speaks) for name, speaks in names.items()}
    settled = READY["status"]["latestReadyRevisionName"]
    configuration = {"status": {**READY["status"], "latestCreatedRevisionName": more.pop("created", settled)}}
    return routing.route(obj, {}, {"hello": configuration}, made, NAMING, **more)


def test_a_route_with_a_port_is_reached_by_that_and_by_no_host() -> None:
    made = tcp({"hello-2": "tcp"})
    assert made.url == "tcp://hello.p.example.org:15432"
    assert made.entry is not None
    assert made.entry.hosts == {}
    assert [(share.revision, share.percent) for share in made.entry.ports[15432]] == [("hello-2", 100)]
    assert made.entry.limits["hello-2"].protocol == "tcp"
    assert made.traffic[0]["tag"] == "next"
    assert "url" not in made.traffic[0]


def test_a_port_belongs_to_who_had_it_first() -> None:
    made = tcp({"hello-2": "tcp"}, host_owner=lambda address: "q/other" if address == ":15432" else "")
    assert made.entry is None
    assert made.problem is not None
    assert (made.problem["status"], made.problem["reason"]) == ("False", "PortTaken")
    assert "'q/other'" in made.problem["message"]


def test_a_port_wants_revisions_that_speak_tcp_and_waits_for_one_that_is_coming() -> None:
    for created, status in (("hello-2", "False"), ("hello-3", "Unknown")):
        made = tcp({"hello-2": "http1"}, created=created)
        assert made.problem is not None
        assert (made.problem["status"], made.problem["reason"]) == (status, "ProtocolMismatch")
    without = routing.route(
        {"metadata": {"name": "hello", "namespace": "p"}, "spec": {"traffic": [{"configurationName": "hello", "percent": 100}]}},
        {}, {"hello": READY}, {"hello-2": Revision(project="p", name="hello-2", image="i", protocol="tcp")}, NAMING,
    )  # fmt: skip
    assert without.problem is not None
    assert "ebb.dev/tcp-port" in without.problem["message"]


def test_a_port_is_ready_when_every_ingress_listens_on_it() -> None:
    for told, status, reason in (
        ([], "Unknown", "PortOpening"),
        (["", None], "Unknown", "PortOpening"),
        (["", "in use"], "False", "PortNotOpen"),
        (["", ""], "True", ""),
    ):
        said = tcp({"hello-2": "tcp"}, port_told=lambda _, told=told: told).listening
        assert (said["status"], said.get("reason", "")) == (status, reason)


def test_what_cannot_be_reached_moves_nothing_and_says_why() -> None:
    for target, reason in (
        ({"revisionName": "nope", "percent": 100}, "RevisionMissing"),
        ({"configurationName": "nope", "percent": 100}, "ConfigurationMissing"),
    ):
        made = route([target])
        assert made.entry is None
        assert made.problem is not None
        assert made.problem["reason"] == reason
    taken = route([{"configurationName": "hello", "percent": 100}], owner="other")
    assert taken.entry is None
    assert taken.problem is not None
    assert "belongs to route 'other'" in taken.problem["message"]


def test_a_condition_that_is_not_there_is_unknown() -> None:
    assert find({}, "Ready")["status"] == "Unknown"


def ruled(annotations: dict[str, str], **settings: bool) -> routing.Routing:
    meta = {"name": "hello", "namespace": "p", "uid": "u", "annotations": annotations}
    traffic = [{"revisionName": "hello-1", "percent": 100, "tag": "old"}]
    revisions = {name: {"metadata": {"name": name}, **READY} for name in NAMES}
    known = compiled(*NAMES)
    return routing.route(
        {"metadata": meta, "spec": {"traffic": traffic}}, revisions, {}, known, NAMING, lambda _: "", **settings
    )


def test_rules_are_off_until_they_are_asked_for() -> None:
    entry = ruled({}).entry
    assert entry is not None
    assert (entry.main, entry.paths, entry.tags, entry.mirror, entry.affinity_key) == ("hello.p.example.org", [], {}, None, "")


def test_tags_by_header_are_asked_for_by_the_route_or_by_the_operator() -> None:
    for annotations, default, tags in (
        ({rules.TAG_HEADER: "true"}, False, {"old": "hello-1"}),
        ({}, True, {"old": "hello-1"}),
        ({rules.TAG_HEADER: "false"}, True, {}),
    ):
        entry = ruled(annotations, tag_header=default).entry
        assert entry is not None
        assert entry.tags == tags


def test_a_mirror_is_known_to_the_front_door_or_said_to_be_missing() -> None:
    made = ruled({rules.MIRROR: "hello-2=10"})
    assert made.entry is not None
    assert made.entry.mirror == Mirror(revision="hello-2", percent=10)
    assert "hello-2" in made.entry.limits
    missing = ruled({rules.MIRROR: "hello-9=10"})
    assert missing.entry is not None
    assert missing.entry.mirror is None
    assert missing.note is not None
    assert (missing.note["reason"], missing.note["severity"]) == ("RevisionMissing", "Warning")


def test_paths_are_words_longest_prefix_first() -> None:
    found = rules.paths("/api=api, /api/v2/=new:strip")
    assert found == [PathRule(prefix="/api/v2", route="new", strip=True), PathRule(prefix="/api", route="api")]
    for bad in (
        "",
        "/=x",
        "api=x",
        "/api",
        "/api=X",
        "/a//b=x",
        "/a=x:cut",
        "/a=x /a/=y",
        "/a/../b=x",
        "/a?b=x",
        f"/{'a' * 200}=x",
    ):
        with pytest.raises(ValueError, match=r"PREFIX|words|each prefix"):
            rules.paths(bad)


@pytest.mark.parametrize(
    ("annotations", "of", "faults"),
    [
        ({rules.MIRROR: "hello-1=10", rules.PATHS: "/a=b", rules.TAG_HEADER: "true"}, "route", 0),
        ({rules.MIRROR: "hello-1=0"}, "route", 1),
        ({rules.MIRROR: "hello-1", rules.TAG_HEADER: "yes", rules.PATHS: "x"}, "route", 3),
        ({rules.AFFINITY[0]: "true"}, "route", 1),
        ({rules.AFFINITY[0]: "true", rules.AFFINITY[1]: "false"}, "revision", 0),
        ({rules.AFFINITY[1]: "on"}, "revision", 1),
        ({rules.PATHS: "/a=b"}, "revision", 1),
        ({rules.PATHS: "/a=b"}, "domain", 0),
        ({rules.MIRROR: "hello-1=10"}, "domain", 1),
    ],
)
def test_a_rule_in_the_wrong_place_or_of_the_wrong_shape_is_a_fault(annotations: dict[str, str], of: str, faults: int) -> None:
    problems = Problems()
    rules.check(problems, annotations, "metadata.annotations", of=of)
    assert len(problems) == faults, problems
