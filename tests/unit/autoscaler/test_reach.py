from autoscaler.idle import Reach
from autoscaler.reach import Reachability, named_by
from store.model import Mirror, RouteEntry, TrafficTarget


def entry(**hosts: list[tuple[str, int]]) -> RouteEntry:
    shares = {host: [TrafficTarget(revision=r, percent=n) for r, n in targets] for host, targets in hosts.items()}
    return RouteEntry(project="p", route="hello", hosts=shares)


def test_a_share_or_a_tag_makes_a_revision_reachable() -> None:
    reach = Reachability()
    assert reach.of("p/r1") is Reach.PENDING
    changed = reach.change("hello", entry(main=[("r1", 100), ("r2", 0)], tag=[("r3", 100)]))
    assert changed == {"p/r1", "p/r3"}
    assert reach.of("p/r2") is Reach.PENDING, "nought per cent and no tag"


def test_a_mirror_makes_a_revision_reachable() -> None:
    hosts = {"a": [TrafficTarget(revision="r1", percent=100)]}
    entry = RouteEntry(project="p", route="a", hosts=hosts, mirror=Mirror(revision="r2", percent=5))
    assert named_by(entry) == {"p/r1", "p/r2"}


def test_a_revision_that_no_route_names_any_more_is_unreachable() -> None:
    reach = Reachability()
    reach.change("hello", entry(main=[("r1", 100)]))
    reach.change("other", entry(main=[("r1", 100)]))
    assert reach.change("hello", entry(main=[("r2", 100)])) == {"p/r2"}
    assert reach.of("p/r1") is Reach.ROUTED, "the other route still names it"
    assert reach.change("other", None) == {"p/r1"}
    assert reach.of("p/r1") is Reach.UNROUTED
    reach.change("other", entry(main=[("r1", 1), ("r2", 99)]))
    assert reach.of("p/r1") is Reach.ROUTED


def test_a_deleted_revision_is_forgotten() -> None:
    reach = Reachability()
    reach.change("hello", entry(main=[("r1", 100)]))
    reach.change("hello", None)
    reach.forget("p/r1")
    assert reach.of("p/r1") is Reach.PENDING
