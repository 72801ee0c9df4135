"""The plan of the node agent on the way up, run to its end in a small model of the machine; and killed at every step."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import actions as a
from nodeagent.actions import Action, Do, Event, Task
from nodeagent.observed import PATIENCE_S, Observed, on_event
from nodeagent.plan import actions_for, next_actions, wake_at
from nodeagent.tasks import CREATED, RUNNING
from store.lifecycle import Phase
from store.model import Goal
from tests.unit.nodeagent.machine import BAD, REVISION, Machine, want


def test_a_parked_instance_is_created_and_not_started() -> None:
    machine = Machine()
    machine.settle(want(Goal.PARK))
    assert machine.end() == (True, CREATED, True, Phase.PARKED)
    assert Do.START_TASK not in machine.performed


def test_a_parked_instance_starts_with_one_call() -> None:
    machine = Machine()
    machine.settle(want(Goal.PARK))
    machine.performed.clear()
    machine.settle(want(Goal.RUN))
    assert machine.performed == [Do.REPORT, Do.START_TASK, Do.PROBE, Do.REPORT]
    assert machine.end() == (True, RUNNING, True, Phase.READY)


def test_image_and_network_are_got_side_by_side() -> None:
    have = replace(Observed("i"), revision=REVISION)
    assert [action.do for action in actions_for(want(Goal.RUN), have, 0)] == [Do.ENSURE_IMAGE, Do.TAKE_NETWORK]


@pytest.mark.parametrize("goal", [Goal.PARK, Goal.RUN, Goal.DRAIN])
def test_steady_input_makes_an_empty_plan(goal: str) -> None:
    machine = Machine()
    machine.settle(want(goal))
    assert next_actions({"i": want(goal)}, {"i": machine.have}, machine.now + 1) == []


@pytest.mark.parametrize("do", sorted(a.BUILDING - {Do.PROBE}))
def test_a_start_that_fails_anywhere_cleans_up(do: Do) -> None:
    machine = Machine(fails=frozenset({do}))
    machine.settle(want(Goal.RUN))
    assert machine.end() == (False, None, False, Phase.FAILED)


def test_a_containerd_that_comes_back_in_time_costs_no_start() -> None:
    have = replace(
        Observed("i"), revision=REVISION, image=True, address="10.0.0.2", container=True, doing=frozenset({Do.CREATE_TASK})
    )
    have = on_event(have, a.Interrupted(5.0, Do.CREATE_TASK, "connection refused"))
    assert actions_for(want(Goal.RUN), have, 5.0) == []
    at = wake_at(want(Goal.RUN), have, 5.0)
    assert at is not None
    assert [action.do for action in actions_for(want(Goal.RUN), have, at)] == [Do.CREATE_TASK]


def test_a_containerd_that_stays_away_fails_the_start() -> None:
    have = replace(Observed("i"), revision=REVISION, image=True, address="10.0.0.2", container=True)
    now = 5.0
    while have.failure is None:
        assert now < 5 + 2 * PATIENCE_S
        have = on_event(have, a.Began(now, Do.CREATE_TASK))
        have = on_event(have, a.Interrupted(now, Do.CREATE_TASK, "connection refused"))
        now = wake_at(want(Goal.RUN), have, now) or now + 1
    assert "connection refused" in have.failure.message


def test_an_assignment_withdrawn_while_it_pulls_stops_the_pull() -> None:
    have = replace(Observed("i"), phase=Phase.PULLING, revision=REVISION, doing=frozenset({Do.ENSURE_IMAGE}), pulling=True)
    assert actions_for(None, have, 0) == [Action(Do.CANCEL, "i", target=Do.ENSURE_IMAGE)]


GOALS = st.lists(st.sampled_from([Goal.PARK, Goal.RUN, Goal.FREEZE, "again", Goal.DRAIN, None]), min_size=1, max_size=4)


def _ordered(goals: list[str | None]) -> list[str | None]:
    """As an autoscaler would: a park may become a run, a run a freeze and a run again, all a drain, and all may be withdrawn."""
    order = [Goal.PARK, Goal.RUN, Goal.FREEZE, "again", Goal.DRAIN, None]
    return [Goal.RUN if goal == "again" else goal for goal in sorted(set(goals), key=order.index)]


@given(goals=GOALS, deaf=st.booleans(), fails=st.sets(st.sampled_from(sorted(a.BUILDING - {Do.PROBE})), max_size=1))
def test_killed_at_every_step_it_comes_to_the_same_end(goals: list[str | None], deaf: bool, fails: set[Do]) -> None:
    def life(crash_at: int | None) -> Machine:
        machine = Machine(deaf=deaf, fails=frozenset(fails))
        steps = 0
        for goal in _ordered(goals):
            wanted = want(goal) if goal is not None else None
            if crash_at is not None and steps <= crash_at:
                steps += machine.settle(wanted, steps=crash_at - steps)
                if steps == crash_at:
                    machine.die(wanted)
                    crash_at = None
            steps += machine.settle(wanted)
        return machine

    whole = life(None)
    for crash_at in range(len(whole.performed) + 1):
        again = life(crash_at)
        assert again.end() == whole.end(), f"killed after {again.performed[:crash_at]}, then {again.performed[crash_at:]}"
        assert again.starts <= 1, "started twice"


@given(goals=GOALS)
def test_an_event_told_twice_changes_nothing(goals: list[str | None]) -> None:
    class Stammering(Machine):
        def tell(self, event: Event) -> None:
            super().tell(event)
            if not isinstance(event, a.Interrupted):
                once = self.have
                super().tell(event)
                assert self.have == once, event

    machine = Stammering()
    for goal in _ordered(goals):
        machine.settle(want(goal) if goal is not None else None)


def test_a_task_that_is_lost_while_the_agent_is_away_is_not_started_again() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.container, machine.status, machine.network = False, None, ""
    machine.die(want(Goal.RUN))
    machine.settle(want(Goal.RUN))
    assert machine.last is not None
    assert machine.last.failure is not None
    assert machine.last.failure.reason == "TaskLost"
    assert machine.starts == 1


def test_a_task_never_shows_as_running_after_it_exited() -> None:
    have = replace(Observed("i"), task=Task.CREATED, doing=frozenset({Do.START_TASK}))
    have = on_event(have, a.Exited(1.0, BAD, 1))
    have = on_event(have, a.Done(1.1, Do.START_TASK))
    assert have.task == Task.EXITED
    assert have.failure == BAD
