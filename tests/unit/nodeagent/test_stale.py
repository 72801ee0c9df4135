"""An instance whose Secret changed before it was started ends by itself, without a failure, whatever it is asked to be."""

import pytest

from nodeagent import actions as a
from nodeagent.actions import Do, Task
from nodeagent.observed import Observed, on_event
from nodeagent.plan import actions_for
from store.lifecycle import Phase
from store.model import Assignment, Goal, Revision

REVISION = Revision(project="p", name="r", image="i")


def want(goal: str) -> Assignment:
    return Assignment(instance="i", project="p", revision="r", node="n", goal=goal)


def parked(**more: object) -> Observed:
    have = Observed(
        "i", phase=Phase.PARKED, revision=REVISION, image=True, address="10.0.0.2", container=True, task=Task.CREATED
    )
    for name, value in more.items():
        object.__setattr__(have, name, value)
    return have


@pytest.mark.parametrize("goal", [Goal.PARK, Goal.RUN])
def test_a_stale_one_is_taken_down_and_reported_stopped(goal: str) -> None:
    have = on_event(parked(), a.Stale(1.0))
    done = []
    for step in range(20):
        actions = actions_for(want(goal), have, 1.0 + step)
        if not actions:
            break
        for action in actions:
            done.append(action.do)
            if action.phase is not None:
                have = on_event(have, a.Reported(1.0 + step, action.phase))
            else:
                have = on_event(on_event(have, a.Began(1.0 + step, action.do)), a.Done(1.0 + step, action.do))
    assert have.phase == Phase.STOPPED
    assert have.failure is None
    assert not have.remains
    assert Do.START_TASK not in done


@pytest.mark.parametrize("more", [{"task": Task.RUNNING}, {"doing": frozenset({Do.START_TASK})}])
def test_one_that_runs_or_starts_keeps_what_it_has(more: dict[str, object]) -> None:
    assert not on_event(parked(**more), a.Stale(1.0)).stale
