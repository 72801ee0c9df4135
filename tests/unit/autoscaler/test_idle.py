import pytest

from autoscaler.idle import Idleness, Reach, may_leave
from autoscaler.parking import has_room, wanted
from store.model import Node, Revision, ScaleSpec

LONG = 1000.0


@pytest.mark.parametrize(
    ("reach", "allowed", "load", "idle_s", "active_s", "retention_s", "leaves"),
    [
        (Reach.UNROUTED, True, 0, 0.0, 0.0, 500.0, True),
        (Reach.UNROUTED, False, 0, 0.0, 0.0, 0.0, True),
        (Reach.UNROUTED, True, 3, LONG, LONG, 0.0, False),
        (Reach.ROUTED, False, 0, LONG, LONG, 0.0, False),
        (Reach.ROUTED, True, 0, 59.0, LONG, 0.0, False),
        (Reach.ROUTED, True, 0, 61.0, 59.0, 0.0, False),
        (Reach.ROUTED, True, 0, 61.0, LONG, 10.0, False),
        (Reach.ROUTED, True, 0, 71.0, LONG, 10.0, True),
        (Reach.ROUTED, True, 0, 60.0, 60.0, 0.0, True),
        (Reach.PENDING, True, 0, 60.0, 60.0, 0.0, True),
        (Reach.PENDING, True, 0, 10.0, 10.0, 0.0, False),
        (Reach.ROUTED, True, 1, LONG, LONG, 0.0, False),
    ],
)
def test_the_truth_table_of_the_docstring_holds(
    reach: Reach, allowed: bool, load: int, idle_s: float, active_s: float, retention_s: float, leaves: bool
) -> None:
    spec = ScaleSpec(scale_to_zero=allowed, retention_s=retention_s)
    answer, why = may_leave(spec, reach, Idleness(idle_s, active_s, load))
    assert answer is leaves
    assert why


def test_idle_to_zero_takes_the_window_alone_unless_an_operator_sets_a_grace() -> None:
    spec = ScaleSpec()
    assert may_leave(spec, Reach.ROUTED, Idleness(60, 60, 0))[0]
    assert not may_leave(spec, Reach.ROUTED, Idleness(89, 89, 0, grace_s=30))[0]
    assert may_leave(spec, Reach.ROUTED, Idleness(90, 90, 0, grace_s=30))[0]


def test_grace_and_retention_are_not_added_up() -> None:
    assert may_leave(ScaleSpec(retention_s=20), Reach.ROUTED, Idleness(90, 90, 0, grace_s=30))[0]


REVISION = Revision(project="p", name="r", image="i")
PARKS = {"enabled": True, "reach": Reach.ROUTED, "verified": True, "failing": False, "desired": 0}


@pytest.mark.parametrize(
    ("change", "parks"),
    [
        ({}, True),
        ({"enabled": False}, False),
        ({"reach": Reach.UNROUTED}, False),
        ({"reach": Reach.PENDING}, False),
        ({"verified": False}, False),
        ({"failing": True}, False),
        ({"desired": 1}, False),
    ],
)
def test_an_idle_reachable_verified_revision_that_works_keeps_one_parked(change: dict[str, object], parks: bool) -> None:
    answer, why = wanted(REVISION, **(PARKS | change))  # type: ignore[arg-type]
    assert answer is parks
    assert why


def test_a_revision_may_refuse_to_be_parked() -> None:
    assert not wanted(Revision(project="p", name="r", image="i", parkable=False), **PARKS)[0]  # type: ignore[arg-type]


def test_parking_leaves_a_tenth_of_the_node_free() -> None:
    node = Node(node="n", cpu_m=1000, memory_bytes=1 << 30)
    assert has_room(node, 0.5, 500)
    assert not has_room(node, 0.1, 0)
