"""Annotations of who reaches whom."""

import pytest

from registry import reach
from registry.problem import Problems
from store.model import Access


def problems_of(value: object) -> list[str]:
    problems = Problems()
    reach.check_revision(problems, {reach.EGRESS: value}, "annotations")
    return [str(problem) for problem in problems]


@pytest.mark.parametrize("value", ["none", "open", "private", "1.2.3.4,10.1.0.0/16:5432", "open, private"])
def test_where_instances_may_connect_to_is_a_list_of_words_and_networks(value: str) -> None:
    assert problems_of(value) == []
    assert reach.egress_of({reach.EGRESS: value}) == value.replace("1.2.3.4", "1.2.3.4/32").replace(", ", ",")


@pytest.mark.parametrize("value", ["", "everything", "10.1.0.1/16", "fd00::/8", 7, None])
def test_what_means_nothing_is_refused_and_would_allow_nothing(value: object) -> None:
    assert "none, open, private" in problems_of(value)[0]
    assert reach.egress_of({reach.EGRESS: str(value)}) == "none"


def test_unsaid_it_is_as_the_project_has_it() -> None:
    assert reach.egress_of({}) == ""


def route_of(labels: dict[str, str] | None = None, **notes: str) -> dict[str, object]:
    annotations = {name.replace("__", "/").replace("_", "-"): value for name, value in notes.items()}
    return {"metadata": {"annotations": annotations, "labels": labels or {}}}


def test_nothing_said_asks_nothing() -> None:
    assert reach.access_of(route_of()) is None


def test_the_narrowest_of_what_is_said_of_the_door_counts() -> None:
    local = {"networking.knative.dev/visibility": "cluster-local"}
    assert reach.ingress_of(route_of(local)) == "internal"
    assert reach.ingress_of(route_of(local, **{"ebb.dev__ingress": "all"})) == "internal"
    assert reach.ingress_of(route_of(**{"run.googleapis.com__ingress": "internal"})) == "internal"
    assert reach.ingress_of(route_of(**{"run.googleapis.com__ingress": "internal", "ebb.dev__ingress": "none"})) == "none"


def test_who_may_call_is_compiled() -> None:
    said = route_of(
        **{
            "ebb.dev__allow_unauthenticated": "false",
            "ebb.dev__invokers": "user:ana, service:shop/cart",
            "ebb.dev__requests_per_second": "2.5",
        }
    )
    assert reach.access_of(said) == Access(private=True, invokers=["service:shop/cart", "user:ana"], requests_per_s=2.5)
    assert reach.access_of(route_of(**{"run.googleapis.com__invoker_iam_disabled": "true"})) == Access(private=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ebb.dev/ingress", "internal-and-cloud-load-balancing"),
        ("ebb.dev/allow-unauthenticated", "no"),
        ("ebb.dev/invokers", "ana"),
        ("ebb.dev/invokers", "service:shop"),
        ("ebb.dev/requests-per-second", "0"),
        ("ebb.dev/requests-per-second", "nan"),
        ("ebb.dev/egress", "none"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    problems = Problems()
    reach.check_route(problems, {"metadata": {"annotations": {name: value}}}, "metadata.annotations")
    assert [name in str(problem) for problem in problems] == [True]


def test_raw_tcp_cannot_be_private() -> None:
    problems = Problems()
    notes = {"ebb.dev/tcp-port": "5432", "ebb.dev/allow-unauthenticated": "false"}
    reach.check_route(problems, {"metadata": {"annotations": notes}}, "metadata.annotations")
    assert "no tokens" in str(problems[0])
