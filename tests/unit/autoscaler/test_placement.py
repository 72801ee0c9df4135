import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.placement import PARKED_BYTES, Need, Placement
from store.model import Node, Revision

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
            there[name] = node(name, room, slots=slots, images=(f"sha256:{which % 2}",))
            nodes.set_node(there[name])
        elif kind == "drop":
            there.pop(f"n{which}", None)
            nodes.drop_node(f"n{which}")
        elif kind == "start":
            wish = need(size, revision=f"p/{which}", image=f"sha256:{which % 2}", cpu_m=count)
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
            assert len(here) <= each.slots
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
