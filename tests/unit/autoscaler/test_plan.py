"""From a wish to writes: woken, placed, drained, deleted, parked."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler import victims
from autoscaler.fleet import Fleet
from autoscaler.need import Need
from autoscaler.plan import AT_ONCE, Plan, Wish, instance_name, make
from store.lifecycle import Phase
from store.model import Assignment, Goal, Instance, Node, Revision

MI = 1 << 20
REVISION = Revision(project="p", name="r", image="i@sha256:1", memory_request_bytes=100 * MI)


class World:
    """A fleet with nodes, and a store that takes every plan."""

    def __init__(self, nodes: int = 1, *, memory: int = 1024, slots: int = 100) -> None:
        self.fleet = Fleet(lambda key: Need(key, "sha256:1", 0, 100 * MI))
        self.rev = 1
        self._names = itertools.count()
        for n in range(nodes):
            self.fleet.set_node(Node(node=f"n{n}", cpu_m=2000, memory_bytes=memory * MI, slots=slots))

    def have(self, goal: str, phase: Phase, *, node: str = "n0", at: float = 0, revision: str = "r") -> str:
        self.rev += 1
        name = f"{revision}-{next(self._names)}"
        self.fleet.put(Assignment(instance=name, project="p", revision=revision, node=node, goal=goal, at=at), self.rev)
        self.say(name, phase, seq=1, node=node, revision=revision)
        return name

    def say(self, name: str, phase: Phase, seq: int, *, node: str = "n0", revision: str = "r") -> bool:
        return self.fleet.report(Instance(instance=name, project="p", revision=revision, node=node, phase=phase, seq=seq))

    def plan(self, desired: int, *, busy: dict[str, int] | None = None, **wish: object) -> Plan:
        return make(REVISION, Wish(desired, **wish), self.fleet, busy or {}, self.name)  # type: ignore[arg-type]

    def done(self, plan: Plan) -> Plan:
        self.rev += 1
        plan.commit(self.fleet, self.rev)
        return plan

    def name(self, revision: str) -> str:
        return instance_name(revision, f"{next(self._names):06}")


@pytest.mark.parametrize("who", [{"node": "n1"}, {"revision": "other"}])
def test_what_a_node_says_of_an_instance_that_it_was_not_given_changes_nothing(who: dict[str, str]) -> None:
    world = World(nodes=2)
    name = world.have(Goal.RUN, Phase.READY)
    assert not world.say(name, Phase.FAILED, seq=9, **who)
    lie = Instance(**{"instance": name, "project": "p", "revision": "r", "node": "n0", "phase": Phase.FAILED} | who)
    world.fleet.unreport(lie)
    assert world.fleet.standing("p/r").ready == 1


def test_what_a_node_holds_is_listed_in_the_order_in_which_it_came() -> None:
    world = World()
    names = [world.have(Goal.RUN, Phase.READY, revision=f"r{n}") for n in range(20)]
    world.fleet.remove(names.pop(3))
    assert [slot.name for slot in world.fleet.on("n0")] == names


def test_what_another_node_said_too_early_is_not_taken_for_the_nodes_own_word() -> None:
    world = World(nodes=2)
    world.say("r-1", Phase.FAILED, seq=9, node="n1")
    world.say("r-1", Phase.READY, seq=1, node="n0")
    world.fleet.put(Assignment(instance="r-1", project="p", revision="r", node="n0", goal=Goal.RUN), 2)
    assert world.fleet.standing("p/r").ready == 1


def test_a_parked_instance_is_woken_before_anything_is_created() -> None:
    world = World()
    parked = world.have(Goal.PARK, Phase.PARKED)
    plan = world.plan(1, cause_id="c-1", at=50)
    assert [(a.instance, a.goal, a.cause_id, a.at) for a, _ in plan.puts] == [(parked, Goal.RUN, "c-1", 50)]
    assert (plan.woken, plan.placed) == (1, 0)


def test_what_parked_ones_do_not_cover_is_created() -> None:
    world = World()
    world.have(Goal.PARK, Phase.PARKED)
    plan = world.plan(3)
    assert (plan.woken, plan.placed) == (1, 2)
    assert world.fleet.standing("p/r").starting == 3, "entered at once, so that nobody asks twice"


def test_a_parked_instance_on_a_full_node_is_left_and_another_node_taken() -> None:
    world = World(2, memory=120)
    world.have(Goal.PARK, Phase.PARKED, node="n0")
    world.have(Goal.RUN, Phase.READY, node="n0", revision="other")
    plan = world.plan(1)
    assert [(a.node, a.goal) for a, _ in plan.puts] == [("n1", Goal.RUN)]


def test_the_last_instance_is_frozen_where_that_is_wanted_and_the_others_are_drained() -> None:
    world = World()
    names = [world.have(Goal.RUN, Phase.READY, at=at) for at in (1, 2, 3)]
    plan = world.done(world.plan(0, freeze=True, park=True))
    assert {a.instance: a.goal for a, _ in plan.puts} == {
        names[0]: Goal.FREEZE,
        names[1]: Goal.DRAIN,
        names[2]: Goal.DRAIN,
    }
    assert not world.plan(0, freeze=True, park=True), "nothing is parked beside a frozen one"
    assert world.fleet.standing("p/r").asked == 0


def test_what_never_got_ready_is_not_frozen() -> None:
    world = World()
    world.have(Goal.RUN, Phase.STARTING)
    assert [a.goal for a, _ in world.plan(0, freeze=True).puts] == [Goal.DRAIN]


def test_a_frozen_instance_is_woken_before_a_parked_one() -> None:
    world = World()
    world.have(Goal.PARK, Phase.PARKED)
    frozen = world.have(Goal.FREEZE, Phase.FROZEN)
    plan = world.plan(1, freeze=True)
    assert [(a.instance, a.goal) for a, _ in plan.puts] == [(frozen, Goal.RUN)]
    assert world.fleet.standing("p/r").starting == 1, "until it is thawed it is on its way"


def test_a_frozen_instance_ends_when_it_is_not_wanted_any_more() -> None:
    world = World()
    frozen = world.have(Goal.FREEZE, Phase.FROZEN)
    plan = world.plan(0, freeze=False)
    assert [(a.instance, a.goal) for a, _ in plan.puts] == [(frozen, Goal.DRAIN)]


def test_a_frozen_instance_that_ended_is_deleted_and_a_parked_one_takes_its_place() -> None:
    world = World()
    frozen = world.have(Goal.FREEZE, Phase.FAILED)
    plan = world.plan(0, freeze=True, park=True)
    assert [slot.name for slot in plan.deletes] == [frozen]
    assert [a.goal for a, _ in plan.puts] == [Goal.PARK]


def test_a_frozen_instance_keeps_its_memory_and_gives_its_cpu() -> None:
    world = World()
    world.have(Goal.FREEZE, Phase.FROZEN)
    assert world.fleet.placement.account()["n0"] == (0, 100 * MI, 1)


def test_nothing_is_done_when_everything_stands() -> None:
    world = World()
    world.have(Goal.RUN, Phase.READY)
    assert not world.plan(1)


def test_a_refused_plan_leaves_no_trace() -> None:
    world = World()
    world.have(Goal.PARK, Phase.PARKED)
    before = world.fleet.placement.account()
    world.plan(3).revert(world.fleet)
    assert world.fleet.placement.account() == before
    assert world.fleet.standing("p/r").asked == 0
    assert world.plan(1).woken == 1


def test_what_is_too_much_drains_idle_first_and_the_youngest_of_equals() -> None:
    world = World()
    busy = world.have(Goal.RUN, Phase.READY, at=9)
    old = world.have(Goal.RUN, Phase.READY, at=1)
    young = world.have(Goal.RUN, Phase.READY, at=5)
    plan = world.plan(2, busy={busy: 1})
    assert [(a.instance, a.goal) for a, _ in plan.puts] == [(young, Goal.DRAIN)]
    assert [s.name for s in victims.pick(world.fleet.running("p/r"), {busy: 1, old: 2}, 2)] == [busy, old]


def test_what_has_not_started_goes_first_and_is_simply_deleted() -> None:
    world = World()
    world.have(Goal.RUN, Phase.READY)
    pending = world.have(Goal.RUN, Phase.PULLING)
    starting = world.have(Goal.RUN, Phase.STARTING)
    plan = world.plan(1)
    assert [s.name for s in plan.deletes] == [pending]
    assert [(a.instance, a.goal) for a, _ in plan.puts] == [(starting, Goal.DRAIN)]


@pytest.mark.parametrize("phase", [Phase.STOPPED, Phase.FAILED])
def test_what_has_ended_is_deleted_and_replaced(phase: Phase) -> None:
    world = World()
    ended = world.have(Goal.RUN, phase)
    plan = world.plan(1)
    assert [s.name for s in plan.deletes] == [ended]
    assert plan.placed == 1


def test_during_back_off_nothing_starts_but_what_ended_is_cleared() -> None:
    world = World()
    world.have(Goal.RUN, Phase.FAILED)
    plan = world.plan(1, may_start=False, park=True)
    assert len(plan.deletes) == 1
    assert not plan.puts


def test_going_to_zero_parks_one_in_the_same_transaction() -> None:
    world = World()
    world.have(Goal.RUN, Phase.READY)
    plan = world.done(world.plan(0, park=True))
    assert sorted(a.goal for a, _ in plan.puts) == [Goal.DRAIN, Goal.PARK]
    assert not world.plan(0, park=True), "one is enough"


def test_an_unreachable_revision_keeps_nothing_parked() -> None:
    world = World()
    parked = world.have(Goal.PARK, Phase.PARKED)
    assert [s.name for s in world.plan(0, park=False).deletes] == [parked]


def test_parking_stops_before_the_node_is_full() -> None:
    world = World(memory=110)
    world.have(Goal.RUN, Phase.READY, revision="other")
    assert not world.plan(0, park=True).puts


def test_nothing_is_parked_where_it_could_never_run() -> None:
    assert not World(memory=99).plan(0, park=True).puts


def test_when_slots_are_full_another_revisions_oldest_parked_one_gives_way() -> None:
    world = World(slots=2)
    young = world.have(Goal.PARK, Phase.PARKED, revision="a", at=9)
    old = world.have(Goal.PARK, Phase.PARKED, revision="b", at=3)
    plan = world.plan(1)
    assert [s.name for s in plan.deletes] == [old]
    assert plan.placed == 1
    assert world.fleet.get(young) is not None


def test_when_nothing_fits_it_says_why_and_places_what_it_can() -> None:
    world = World(memory=250)
    plan = world.plan(5)
    assert plan.placed == 2
    assert plan.unplaced == "needs 100Mi, largest free is 50Mi on n0"


def test_instances_on_a_node_that_is_away_are_replaced_and_later_given_up() -> None:
    world = World(2)
    gone = world.have(Goal.RUN, Phase.READY, node="n1")
    world.fleet.drop_node("n1", 100)
    plan = world.done(world.plan(1))
    assert [a.node for a, _ in plan.puts] == ["n0"]
    assert not plan.deletes
    assert [s.name for s in world.plan(1, lost=frozenset({"n1"})).deletes] == [gone]


def test_a_transaction_never_grows_past_what_the_store_takes() -> None:
    world = World(memory=1 << 20, slots=1000)
    assert world.plan(500).placed == AT_ONCE


def test_instance_names_are_at_most_63_characters_and_end_with_their_own_part() -> None:
    assert instance_name("hello-00001", "abc234") == "hello-00001-abc234"
    long = instance_name("x" * 55 + "-" + "y" * 20, "abc234")
    assert len(long) <= 63
    assert long == "x" * 55 + "-abc234"


def test_an_older_word_of_a_node_changes_nothing() -> None:
    world = World()
    name = world.have(Goal.RUN, Phase.STARTING)
    assert world.say(name, Phase.READY, seq=3)
    assert not world.say(name, Phase.STARTING, seq=2)
    assert world.fleet.standing("p/r").ready == 1


def test_a_nodes_word_may_come_before_the_assignment_is_seen() -> None:
    world = World()
    world.say("r-early", Phase.READY, seq=1)
    world.fleet.put(Assignment(instance="r-early", project="p", revision="r", node="n0", goal=Goal.RUN), 5)
    assert world.fleet.standing("p/r").ready == 1


def test_a_late_event_of_the_watch_does_not_undo_what_is_on_its_way() -> None:
    world = World()
    name = world.have(Goal.PARK, Phase.PARKED)
    seen = world.fleet.get(name)
    assert seen is not None
    old, rev = seen.assignment, seen.store_rev
    world.plan(1)
    world.fleet.put(old, rev)
    assert world.fleet.standing("p/r").asked == 1


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 5), st.booleans()), max_size=30))
def test_plans_reach_what_is_wished_and_accounts_stay_true(steps: list[tuple[int, bool, int, bool]]) -> None:
    world = World(2, memory=800)
    for desired, park, which, refused in steps:
        plan = world.plan(desired, park=park and desired == 0)
        if refused:
            plan.revert(world.fleet)
        else:
            world.done(plan)
            assert len(world.fleet.running("p/r")) == desired or plan.unplaced
        for number, slot in enumerate(list(world.fleet.of("p/r"))):
            if slot.goal == Goal.DRAIN:
                world.say(slot.name, Phase.STOPPED, seq=100, node=slot.node)
            elif slot.goal == Goal.RUN and number == which:
                world.say(slot.name, Phase.READY, seq=10, node=slot.node)
        taken = {name: account for name, account in world.fleet.placement.account().items() if account[2]}
        stands: dict[str, tuple[int, int, int]] = {}
        for slot in world.fleet.of("p/r"):
            cpu, memory, count = stands.get(slot.node, (0, 0, 0))
            stands[slot.node] = (cpu + slot.need.cpu_m, memory + slot.need.memory_bytes, count + 1)
        assert taken == stands
        assert all(memory <= 800 * MI for _, memory, _ in taken.values())
