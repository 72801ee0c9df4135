"""What to do next for each instance, from what is wanted and what is known (`observed`). Pure: time and the live ingresses come in.

actions = next_actions(desired, observed, now, ingresses)      # [] when all is as wanted, or is being made so
"""

from collections.abc import Mapping, Set

import msgspec

from nodeagent import drain
from nodeagent.actions import BUILDING, CANCELLABLE, Action, Do, Task
from nodeagent.observed import Observed
from store.lifecycle import ENDED, Phase, may_follow
from store.model import Assignment, Goal, Revision

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""
KILL_AGAIN_S = 3.0
"""An exit after SIGKILL that is not heard of for so long is asked for again."""
_FREEZING = frozenset({Do.FREEZE, Do.THAW})


def next_actions(
    desired: Mapping[str, Assignment], observed: Mapping[str, Observed], now: float, ingresses: Set[str] = frozenset()
) -> list[Action]:
    """All that can be begun now. `ingresses` are the members that must answer before a draining instance may stop."""
    found: list[Action] = []
    for name in sorted(desired.keys() | observed.keys()):
        found += actions_for(desired.get(name), observed.get(name) or Observed(name), now, ingresses)
    return found


def actions_for(want: Assignment | None, have: Observed, now: float, ingresses: Set[str] = frozenset()) -> list[Action]:
    """The next actions of one instance; those that must not overlap come one after the other."""
    if have.stale and want is not None:
        want = msgspec.structs.replace(want, goal=Goal.DRAIN)
    phase = phase_of(want, have)
    if phase != have.phase:
        assert may_follow(have.phase, phase), f"{have.instance}: {have.phase} → {phase}"
        return [Action(Do.REPORT, have.instance, phase=phase)]
    if now < have.retry_at:
        return []
    if _ends(want, have, now, ingresses):
        return _take_down(want, have, now)
    return _build_up(want, have, ingresses)


def phase_of(want: Assignment | None, have: Observed) -> Phase:
    """The phase that the facts amount to."""
    if have.phase in ENDED:
        return have.phase
    if have.failure is not None:
        return Phase.FAILED
    if want is None or want.goal == Goal.DRAIN:
        return _phase_stopping(have)
    if have.task == Task.RUNNING:
        return _phase_running(want, have)
    if have.task == Task.CREATED:
        if Do.START_TASK in have.doing or want.goal == Goal.RUN:
            return Phase.STARTING
        return Phase.PARKED if may_follow(have.phase, Phase.PARKED) else have.phase
    if have.pulling and may_follow(have.phase, Phase.PULLING):
        return Phase.PULLING
    return have.phase


def _phase_running(want: Assignment, have: Observed) -> Phase:
    stays = want.goal == Goal.FREEZE or have.frozen or have.doing & _FREEZING
    if (have.phase == Phase.FROZEN and stays) or (have.phase == Phase.READY and have.ready and want.goal == Goal.FREEZE):
        return Phase.FROZEN
    return Phase.READY if have.ready else Phase.STARTING


def _phase_stopping(have: Observed) -> Phase:
    if have.task in (Task.NONE, Task.EXITED) and not have.doing & BUILDING:
        return Phase.STOPPED
    return Phase.DRAINING if may_follow(have.phase, Phase.DRAINING) else have.phase


def wake_at(want: Assignment | None, have: Observed, now: float) -> float | None:
    """When to look again although nothing happened: a grace that ends, a drain that times out, a retry. Always after `now`."""
    times = [have.retry_at]
    if have.task == Task.RUNNING and have.term_at is not None:
        times.append(have.term_at + GRACE_S)
    if have.task != Task.NONE and have.killed_at is not None:
        times.append(have.killed_at + KILL_AGAIN_S)
    if have.phase == Phase.DRAINING and have.term_at is None and have.draining_at is not None and want is not None:
        times.append(have.draining_at + _drain_timeout_s(have))
    return min((time for time in times if time > now), default=None)


def _drain_timeout_s(have: Observed) -> float:
    return have.revision.timeout_s if have.revision is not None else Revision(project="", name="", image="").timeout_s


def _ends(want: Assignment | None, have: Observed, now: float, ingresses: Set[str]) -> bool:
    """Whether it shall go now (rather than be built up or finish its requests)."""
    if want is None or have.failure is not None or have.phase in ENDED or have.term_at is not None:
        return True
    if want.goal != Goal.DRAIN:
        return False
    if have.task != Task.RUNNING or have.draining_at is None:
        return True
    return drain.finished(ingresses, have.drained_by, have.draining_at, _drain_timeout_s(have), now)


def _build_up(want: Assignment | None, have: Observed, ingresses: Set[str]) -> list[Action]:
    if want is None or want.goal == Goal.DRAIN:
        return []
    if have.container and have.task == Task.NONE and not have.address:
        # Half made before the agent was killed: its network went with the agent.
        return _unless_doing(have, Do.DELETE_CONTAINER)
    if have.revision is None:
        return _unless_doing(have, Do.LOAD_REVISION)
    if have.task == Task.NONE:
        if have.doing & {Do.CREATE_CONTAINER, Do.CREATE_TASK, Do.DELETE_CONTAINER}:
            return []
        if have.image and have.address:
            return _unless_doing(have, Do.CREATE_TASK if have.container else Do.CREATE_CONTAINER)
        image = [] if have.image else _unless_doing(have, Do.ENSURE_IMAGE)
        return image + ([] if have.address else _unless_doing(have, Do.TAKE_NETWORK))
    if have.task == Task.CREATED:
        return _unless_doing(have, Do.START_TASK) if want.goal == Goal.RUN else []
    if have.task == Task.EXITED or have.doing & _FREEZING:
        return []
    if have.phase == Phase.FROZEN and want.goal == Goal.FREEZE:
        return [Action(Do.FREEZE, have.instance)] if not have.frozen and ingresses <= have.drained_by else []
    if have.frozen:
        return [Action(Do.THAW, have.instance)]
    return [] if have.watched else _unless_doing(have, Do.PROBE)


def _take_down(want: Assignment | None, have: Observed, now: float) -> list[Action]:
    cancels = [Action(Do.CANCEL, have.instance, target=do) for do in sorted(have.doing & CANCELLABLE)]
    if cancels:
        return cancels
    if have.doing:
        return []
    if have.frozen and have.task != Task.NONE:
        return [Action(Do.THAW, have.instance)]  # Only what runs can end.
    if have.task == Task.RUNNING:
        return _stop_task(have, now)
    if have.task != Task.NONE:
        return [Action(Do.DELETE_TASK, have.instance)]
    if have.container:
        return [Action(Do.DELETE_CONTAINER, have.instance)]
    if have.address:
        return [Action(Do.RELEASE_NETWORK, have.instance)]
    if want is None and not have.forgotten:
        return [Action(Do.FORGET, have.instance)]
    return []


def _stop_task(have: Observed, now: float) -> list[Action]:
    if have.killed_at is not None:
        return [Action(Do.KILL, have.instance)] if now >= have.killed_at + KILL_AGAIN_S else []
    if have.failure is not None:
        return [Action(Do.KILL, have.instance)]
    if have.term_at is None:
        return [Action(Do.TERM, have.instance)]
    return [Action(Do.KILL, have.instance)] if now >= have.term_at + GRACE_S else []


def _unless_doing(have: Observed, do: Do) -> list[Action]:
    return [] if do in have.doing else [Action(do, have.instance)]
