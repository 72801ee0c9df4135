"""What is known of an instance right after the agent began, from what containerd shows and what was last said of it. Pure."""

from dataclasses import replace

from nodeagent import failures
from nodeagent.actions import Task
from nodeagent.observed import Observed
from nodeagent.tasks import CREATED, Found
from store.lifecycle import ENDED, Phase
from store.model import Assignment, Goal, Instance

_RUN = frozenset({Phase.STARTING, Phase.READY, Phase.FROZEN, Phase.DRAINING})
_UNBUILT = frozenset({Phase.PENDING, Phase.PULLING})


def recover(
    instance: str, found: Found | None, last: Instance | None, want: Assignment | None, now: float, *, frozen: bool = False
) -> Observed:
    """`found`: its container, if there is one; `last`: its last status, if one is known. `now`: monotonic. `frozen`: the kernel says so.

    A task that has stopped counts as running here: the caller tells its exit as an event, like any other.
    """
    phase = last.phase if last is not None else Phase.PENDING
    have = Observed(instance, phase=phase, container=found is not None, failure=last.failure if last is not None else None)
    if last is not None:
        have = replace(have, phases_ms=dict(last.phases_ms))
    if phase in ENDED:
        held = found is not None and found.status is not None
        have = replace(have, frozen=held and frozen)
        return replace(have, task=_task(found), address=found.labels.get("address", "") if found is not None and held else "")
    if found is None or found.status is None:
        # Nothing ran yet: it is built again. It was to stop: it did. Else it is lost: the agent never starts one twice.
        stops = want is None or want.goal == Goal.DRAIN
        return have if phase in _UNBUILT or stops else replace(have, failure=failures.task_lost("the agent was away"))
    address = found.labels.get("address", "")
    if found.status == CREATED:
        return replace(have, task=Task.CREATED, address=address, image=True)
    running = phase if phase in _RUN else Phase.STARTING if phase in (Phase.PENDING, Phase.PULLING, Phase.PARKED) else phase
    return replace(
        have,
        phase=running,
        task=Task.RUNNING,
        address=address,
        image=True,
        ready=running in (Phase.READY, Phase.FROZEN),
        frozen=frozen,
        draining_at=now if running == Phase.DRAINING else None,
    )


def lost(have: Observed, why: str) -> Observed:
    """It cannot be kept: `why`."""
    return have if have.failure is not None or have.phase in ENDED else replace(have, failure=failures.task_lost(why))


def _task(found: Found | None) -> Task:
    if found is None or found.status is None:
        return Task.NONE
    return Task.CREATED if found.status == CREATED else Task.RUNNING
