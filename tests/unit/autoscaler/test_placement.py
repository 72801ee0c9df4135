import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from autoscaler.need import PARKED_BYTES, Need
from autoscaler.placement import Placement
from store.model import Node, Revision
from store.scaling import Taint, Toleration

MI = 1 << 20


def node(
    name: str, memory: int = 1024, *, slots: int = 10, cpu_m: int = 2000, images: tuple[str, ...] = (), closed: str = ""
) -> Node:
    return Node(node=name, cpu_m=cpu_m, memory_bytes=memory * MI, slots=slots, images=list(images), unschedulable=closed)


def need(memory: int = 0, *, revision: str = "p/r", image: str = "sha256:1", cpu_m: int = 0) -> Need:
    return Need(revision, image, cpu_m, memory * MI)


def placement(*nodes: Node) -> Placement:
    made = Placement()
    for each in nodes:
        made.set_node(each)
    return made


def test_a_node_with_the_image_comes_first_even_when_it_is_fuller() -> None:
    nodes = placement(node("a"), node("b", images=("docker.io/x@sha256:1",)))
    nodes.take("b", need(500, revision="p/other"))
    assert nodes.choose(need(100)) == "b"


def test_a_full_node_with_the_image_is_passed_over() -> None:
    nodes = placement(node("a"), node("b", 256, images=("sha256:1",)))
    assert nodes.choose(need(512)) == "a"


def test_instances_of_a_revision_are_spread() -> None:
    nodes, taken = placement(*(node(f"n{i}") for i in range(4))), []
    for _ in range(8):
        chosen = nodes.choose(need(10))
        assert chosen is not None
        nodes.take(chosen, need(10))
        taken.append(chosen)
    assert sorted(taken) == sorted([f"n{i}" for i in range(4)] * 2)


def test_of_equals_the_least_loaded_node_is_taken() -> None:
    nodes = placement(node("a"), node("b"))
    nodes.take("a", need(100, revision="p/other"))
    assert nodes.choose(need(10)) == "b"


def test_cpu_is_a_weight_and_refuses_nothing() -> None:
    nodes = placement(node("a", cpu_m=100))
    for _ in range(5):
        assert nodes.choose(need(cpu_m=1000)) == "a"
        nodes.take("a", need(cpu_m=1000))


def test_when_nothing_fits_it_says_what_is_missing() -> None:
    nodes = placement(node("node-1", 600), node("node-2", 700))
    nodes.take("node-1", need(500))
    nodes.take("node-2", need(320))
    assert nodes.choose(need(512)) is None
    assert nodes.refusal(need(512)) == "needs 512Mi, largest free is 380Mi on node-2"


def test_it_says_when_there_is_no_node_or_none_takes_anything() -> None:
    assert "no node is up" in placement().refusal(need())
    closed = placement(node("a", closed="disk full: 0 bytes free on /var"))
    assert closed.choose(need()) is None
    assert "a: disk full" in closed.refusal(need())


def test_it_says_when_all_slots_are_taken() -> None:
    nodes = placement(node("a", slots=1))
    nodes.take("a", need())
    assert nodes.choose(need()) is None
    assert "a has 1 of 1" in nodes.refusal(need())


def test_a_node_that_is_gone_takes_nothing_and_keeps_its_account() -> None:
    nodes = placement(node("a"))
    nodes.take("a", need(100))
    nodes.drop_node("a")
    assert nodes.choose(need()) is None
    nodes.set_node(node("a", 128))
    assert nodes.choose(need(100)) is None
    nodes.give("a", need(100))
    assert nodes.choose(need(100)) == "a"


def test_without_a_request_the_limit_is_the_request() -> None:
    revision = Revision(project="p", name="r", image="host/x@sha256:9", memory_limit_bytes=350 * MI)
    assert Need.of(revision).memory_bytes == 350 * MI
    assert Need.of(revision).image == "sha256:9"
    assert Need.of(revision).parked().memory_bytes == PARKED_BYTES


def test_a_revision_is_spread_over_zones_before_nodes() -> None:
    zones = {"a1": "a", "a2": "a", "a3": "a", "b1": "b"}
    nodes = placement(*(replace(node(name), zone=zone) for name, zone in zones.items()))
    taken = []
    for _ in range(4):
        chosen = nodes.choose(need(10))
        assert chosen is not None
        nodes.take(chosen, need(10))
        taken.append(chosen)
    assert sorted(zones[name] for name in taken) == ["a", "a", "b", "b"]
    nodes.give("b1", need(10))
    nodes.give("b1", need(10))
    assert nodes.choose(need(10)) == "b1", "what is given back counts no more in its zone"


def test_only_nodes_with_the_labels_asked_for_are_taken() -> None:
    nodes = placement(node("a"), replace(node("b"), labels={"disk": "ssd", "room": "1"}))
    nodes.take("b", need(900, revision="p/other"))
    asks = replace(need(10), selector=(("disk", "ssd"),))
    assert nodes.choose(asks) == "b"
    nowhere = replace(need(10), selector=(("disk", "tape"),))
    assert nodes.choose(nowhere) is None
    assert nodes.refusal(nowhere) == "none of 2 nodes fits: needs label disk=tape"


def test_a_tainted_node_takes_only_what_tolerates_it() -> None:
    taints = [Taint(key="gpu", value="yes")]
    nodes = placement(replace(node("a"), taints=taints))
    assert nodes.choose(need(10)) is None
    assert "toleration of taint gpu=yes" in nodes.refusal(need(10))
    for toleration, fits in [
        (Toleration(key="gpu", value="yes"), True),
        (Toleration(key="gpu", exists=True), True),
        (Toleration(exists=True), True),
        (Toleration(key="gpu", value="no"), False),
        (Toleration(key="cpu", exists=True), False),
    ]:
        assert (nodes.choose(replace(need(10), tolerations=(toleration,))) == "a") is fits


def test_disk_is_not_oversubscribed_where_it_is_known() -> None:
    nodes = placement(replace(node("a"), disk_bytes=100 * MI))
    big = replace(need(1), disk_bytes=60 * MI)
    assert nodes.choose(big) == "a"
    nodes.take("a", big)
    assert nodes.choose(big) is None
    assert nodes.refusal(big) == "needs 60Mi of disk, largest free is 40Mi on a"
    assert placement(node("b")).choose(big) == "b"


def test_where_a_revision_may_go_comes_from_its_template() -> None:
    revision = Revision(
        project="p", name="r", image="i@sha256:1", memory_request_bytes=MI, disk_request_bytes=5,
        node_selector={"b": "2", "a": "1"}, tolerations=[Toleration(exists=True)],
    )  # fmt: skip
    made = Need.of(revision)
    assert (made.disk_bytes, made.selector, made.tolerations) == (5, (("a", "1"), ("b", "2")), (Toleration(exists=True),))
    assert made.parked().selector == made.selector, "it is parked where it can run"


changes = st.lists(
    st.one_of(
        st.tuples(st.just("node"), st.integers(0, 4), st.integers(64, 1024), st.integers(1, 6)),
        st.tuples(st.just("drop"), st.integers(0, 4), st.just(0), st.just(0)),
        st.tuples(st.just("start"), st.integers(0, 3), st.integers(0, 300), st.integers(0, 500)),
        st.tuples(st.just("stop"), st.integers(0, 30), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(changes)
def test_placement_never_oversubscribes_and_incremental_is_the_same_as_from_scratch(
    steps: list[tuple[str, int, int, int]],
) -> None:
    nodes, there, standing = Placement(), dict[str, Node](), list[tuple[str, Need]]()
    for kind, which, size, count in steps:
        if kind == "node":
            name = f"n{which}"
            used = sum(n.memory_bytes for on, n in standing if on == name)
            room, slots = max(size, used // MI + 1), max(count, sum(on == name for on, _ in standing))
            disk = sum(n.disk_bytes for on, n in standing if on == name) + size
            there[name] = replace(
                node(name, room, slots=slots, images=(f"sha256:{which % 2}",)),
                zone="abc"[count % 3], labels={"parity": str(which % 2)}, disk_bytes=disk,
                taints=[Taint(key="hot")] if which == 4 else [],
            )  # fmt: skip
            nodes.set_node(there[name])
        elif kind == "drop":
            there.pop(f"n{which}", None)
            nodes.drop_node(f"n{which}")
        elif kind == "start":
            wish = replace(
                need(size, revision=f"p/{which}", image=f"sha256:{which % 2}", cpu_m=count),
                disk_bytes=count if which == 2 else 0,
                selector=(("parity", "1"),) if which == 3 else (),
                tolerations=(Toleration(exists=True),) if which == 1 else (),
            )
            chosen = nodes.choose(wish)
            if chosen is not None:
                nodes.take(chosen, wish)
                standing.append((chosen, wish))
            else:
                assert nodes.refusal(wish)
        elif standing:
            on, gone = standing.pop(which % len(standing))
            nodes.give(on, gone)
        for name, each in there.items():
            here = [n for on, n in standing if on == name]
            assert sum(n.memory_bytes for n in here) <= each.memory_bytes
            assert sum(n.disk_bytes for n in here) <= each.disk_bytes
            assert len(here) <= each.slots
        if kind == "start" and chosen is not None:
            assert wish.misses(there[chosen]) == ""
    fresh = placement(*there.values())
    for on, what in standing:
        fresh.take(on, what)
    assert {n: a for n, a in fresh.account().items() if a[2]} == {n: a for n, a in nodes.account().items() if a[2]}
    for which in range(4):
        for size in (0, 64, 200):
            wish = need(size, revision=f"p/{which}", image=f"sha256:{which % 2}")
            assert fresh.choose(wish) == nodes.choose(wish)


@pytest.mark.parametrize("share", [1, 30, 200])
def test_a_node_with_the_image_is_found_on_few_nodes_and_on_many(share: int) -> None:
    placement = Placement()
    for number in range(200):
        images = ["i@sha256:1"] if number < share else []
        placement.set_node(Node(node=f"n{number:03}", cpu_m=1000, memory_bytes=1 << 30, images=images))
    need = Need("p/r", "sha256:1", 100, 1 << 20)
    for count in range(2 * share):
        on = placement.choose(need)
        assert on is not None
        assert int(on[1:]) < share, "no image there"
        placement.take(on, need)
        most = max(room[2] for room in placement.account().values())
        assert most <= count // share + 1, "not spread"


def test_what_asks_for_no_memory_takes_what_it_is_known_to_hold_and_a_request_stands() -> None:
    silent = Need("p/r", "sha256:1")
    assert silent.expecting(0) == silent
    assert silent.expecting(100 * MI).memory_bytes == 112 * MI
    assert silent.expecting(101 * MI).memory_bytes == 112 * MI, "in steps: small changes are none"
    assert Need("p/r", "sha256:1", memory_bytes=64 * MI).expecting(500 * MI).memory_bytes == 64 * MI
