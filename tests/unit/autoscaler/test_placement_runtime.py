"""A revision that asks for a runtime is placed only where that runtime works, and told when that is nowhere."""

from autoscaler.fleet import Fleet
from autoscaler.need import PARKED_SANDBOX_BYTES, Need
from autoscaler.placement import Placement
from autoscaler.plan import Wish, make
from store.model import GVISOR, Node, Revision

PLAIN = Node(node="a-plain", cpu_m=2000, memory_bytes=4 << 30)
HAVING = Node(node="b-having", cpu_m=2000, memory_bytes=1 << 30, runtimes=[GVISOR])
SANDBOXED = Revision(project="p", name="r", image="x@sha256:1", runtime=GVISOR)


def placement(*nodes: Node) -> Placement:
    made = Placement()
    for node in nodes:
        made.set_node(node)
    return made


def test_it_goes_where_its_runtime_works_also_when_another_node_is_emptier() -> None:
    nodes = placement(PLAIN, HAVING)
    nodes.take("b-having", Need("p/other", memory_bytes=500 << 20))
    assert nodes.choose(Need.of(SANDBOXED)) == "b-having"
    assert nodes.choose(Need("p/other")) == "a-plain"


def test_what_parks_in_a_sandbox_holds_what_its_kernel_takes() -> None:
    assert Need.of(SANDBOXED).parked().memory_bytes == PARKED_SANDBOX_BYTES
    assert placement(PLAIN).choose(Need.of(SANDBOXED).parked()) is None


def test_no_node_with_its_runtime_is_another_reason_than_no_room() -> None:
    need = Need.of(SANDBOXED)
    assert not placement(PLAIN).can_run(need)
    assert "no node can run gvisor" in placement(PLAIN).refusal(need)
    full = Need("p/r", memory_bytes=8 << 30, runtime=GVISOR)
    assert placement(PLAIN, HAVING).can_run(full)
    assert placement(PLAIN, HAVING).refusal(full) == "needs 8192Mi, largest free is 1024Mi on b-having"
    assert placement().can_run(need), "with no node at all it is the nodes that are missed"


def test_the_plan_says_which_of_the_two_it_is() -> None:
    fleet = Fleet(lambda _: Need.of(SANDBOXED))
    fleet.set_node(PLAIN)
    plan = make(SANDBOXED, Wish(desired=1), fleet, {}, lambda name: f"{name}-1")
    assert (plan.puts, plan.unplaced_as) == ([], "NoRuntime")
    fleet.set_node(HAVING)
    plan = make(SANDBOXED, Wish(desired=1), fleet, {}, lambda name: f"{name}-1")
    assert [assignment.node for assignment, _ in plan.puts] == ["b-having"]
