"""Hosts and shares."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ingress.hosts import canonical, well_formed
from ingress.routes import Routes
from ingress.traffic import Split, split
from store import keys
from store.model import Domain, Limits, RouteEntry, TrafficTarget


def entry(hosts: dict[str, dict[str, int]], main: str = "", **limits: Limits) -> RouteEntry:
    targets = {host: [TrafficTarget(revision=r, percent=p) for r, p in shares.items()] for host, shares in hosts.items()}
    return RouteEntry(project="default", route="hello", hosts=targets, limits=limits, main=main)


def revision(found: Split | None) -> str | None:
    choice = found.pick(0.0) if found is not None else None
    return choice.revision if choice is not None else None


def test_case_port_and_trailing_dot_do_not_matter() -> None:
    routes = Routes()
    routes.put("k", entry({"hello.default.localhost": {"hello-1": 100}}))
    for host in (
        b"hello.default.localhost",
        b"HELLO.default.localhost:8080",
        b"hello.default.localhost.",
        b"hello.default.localhost.:80",
    ):
        assert revision(routes.find(host)) == "default/hello-1"
    assert routes.find(b"other.default.localhost") is None


def test_a_changed_route_is_seen_by_the_next_request_whole() -> None:
    routes = Routes()
    routes.put("k", entry({"a": {"r1": 100}, "old": {"r1": 100}}))
    assert revision(routes.find(b"a")) == "default/r1"
    routes.put("k", entry({"a": {"r2": 100}, "tag-a": {"r1": 100}}))
    assert revision(routes.find(b"a")) == "default/r2"
    assert revision(routes.find(b"tag-a")) == "default/r1"
    assert routes.find(b"old") is None
    routes.delete("k")
    assert routes.find(b"a") is None
    assert len(routes) == 0


def test_a_host_belongs_to_its_first_claimant_until_that_lets_go() -> None:
    routes = Routes()
    routes.put("first", entry({"a": {"r1": 100}}))
    routes.put("second", entry({"a": {"r2": 100}}))
    assert revision(routes.find(b"a")) == "default/r1"
    routes.put("first", entry({"a": {"r3": 100}}))
    assert revision(routes.find(b"a")) == "default/r3"
    routes.delete("first")
    assert revision(routes.find(b"a")) == "default/r2"
    routes.delete("second")
    assert routes.find(b"a") is None


def domain(route: str = "hello") -> Domain:
    return Domain(project="default", route=route)


def test_a_domain_has_its_routes_shares_at_any_moment() -> None:
    routes, key = Routes(), keys.route("default", "hello")
    routes.put_domain("shop.example", domain())
    assert routes.find(b"shop.example") is None
    for name in ("r1", "r2"):
        routes.put(key, entry({"tag-hello": {"r0": 100}, "hello": {name: 100}}, main="hello"))
        assert revision(routes.find(b"hello")) == revision(routes.find(b"Shop.example:80")) == f"default/{name}"
    routes.put_domain("shop.example", domain("other"))
    assert routes.find(b"shop.example") is None
    routes.put_domain("shop.example", domain())
    routes.delete(key)
    assert routes.find(b"shop.example") is None
    routes.put(key, entry({"hello": {"r1": 100}}, main="hello"))
    routes.put_domain("shop.example", None)
    assert routes.find(b"shop.example") is None


def test_an_exact_host_comes_before_a_wildcard_and_the_nearest_wildcard_before_one_further_up() -> None:
    routes = Routes()
    for name in ("exact", "near", "far"):
        made = RouteEntry(project="default", route=name, hosts={name: [TrafficTarget(revision=name, percent=100)]}, main=name)
        routes.put(keys.route("default", name), made)
    routes.put_domain("a.shop.example", domain("exact"))
    routes.put_domain("*.b.shop.example", domain("near"))
    routes.put_domain("*.shop.example", domain("far"))
    for host, leads_to in (
        (b"a.shop.example", "exact"),
        (b"x.a.shop.example", "far"),
        (b"b.shop.example", "far"),
        (b"x.b.shop.example", "near"),
        (b"x.y.b.shop.example", "near"),
    ):
        assert revision(routes.find(host)) == f"default/{leads_to}"
    for host in (b"shop.example", b"example", b"other.example", b"[::1]:80"):
        assert routes.find(host) is None


def test_limits_come_with_the_choice() -> None:
    made = entry(
        {"a": {"r1": 100}}, r1=Limits(container_concurrency=7, timeout_s=9, response_start_timeout_s=2, idle_timeout_s=1)
    )
    choice = split(made, made.hosts["a"], {}).only
    assert choice is not None
    assert (choice.concurrency, choice.timeout_s, choice.start_s, choice.idle_s) == (7, 9, 2, 1)


def test_a_share_of_zero_gets_nothing_and_no_share_at_all_is_no_revision() -> None:
    made = entry({"a": {"r1": 0, "r2": 100}, "b": {"r1": 0}})
    assert split(made, made.hosts["a"], {}).only is not None
    assert split(made, made.hosts["b"], {}).pick(0.5) is None


def test_shares_are_kept_within_the_binomial_interval() -> None:
    made = entry({"a": {"r1": 90, "r2": 10}})
    found = split(made, made.hosts["a"], {})
    random, counts = Random(1), Counter()
    for _ in range(20_000):
        choice = found.pick(random.random())
        assert choice is not None
        counts[choice.revision] += 1
    assert abs(counts["default/r2"] - 2000) < 3.29 * (20_000 * 0.1 * 0.9) ** 0.5


@given(st.lists(st.integers(0, 100), min_size=1, max_size=5), st.floats(0, 1, exclude_max=True))
def test_every_chance_has_a_revision_with_a_share(percents: list[int], chance: float) -> None:
    made = entry({"a": {f"r{place}": percent for place, percent in enumerate(percents)}})
    choice = split(made, made.hosts["a"], {}).pick(chance)
    if not any(percents):
        assert choice is None
    else:
        assert choice is not None
        assert percents[int(choice.revision.removeprefix("default/r"))] > 0


@given(st.binary(max_size=60))
def test_a_well_formed_host_always_has_a_canonical_name(host: bytes) -> None:
    if well_formed(host):
        assert canonical(host) == canonical(host).lower()
        assert "@" not in canonical(host)
        assert "/" not in canonical(host)


def test_a_port_is_a_routes_own_as_a_host_is_and_no_host_can_name_it() -> None:
    def on(port: int, name: str) -> RouteEntry:
        return RouteEntry(project="default", route=name, hosts={}, ports={port: [TrafficTarget(revision=name, percent=100)]})

    routes, changes = Routes(), []
    routes.on_ports = lambda: changes.append(sorted(routes.ports))
    routes.put("first", on(15432, "r1"))
    routes.put("second", on(15432, "r2"))
    assert revision(routes.ports[15432]) == "default/r1"
    assert not well_formed(b":15432")
    routes.put("first", on(15433, "r1"))
    assert {port: revision(found) for port, found in routes.ports.items()} == {15432: "default/r2", 15433: "default/r1"}
    routes.delete("second")
    routes.delete("first")
    assert routes.ports == {}
    assert changes[-1] == []
