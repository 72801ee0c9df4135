"""What to do next for each instance, from what is wanted and what is known. Pure: time and the live ingresses come in.

    actions = next_actions(desired, observed, now, ingresses)      # [] when all is as wanted, or is being made so
    observed[name] = on_event(observed[name], event)

State changes only by events; every outcome of an action is one. So the agent can be killed at any line: what containerd shows
afterwards is turned into an Observed (`adopt`), and the same plan goes on from there.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

import msgspec

from nodeagent import actions as a
from nodeagent import drain
from nodeagent.actions import BUILDING, CANCELLABLE, Action, Do, Event, Task
from store.lifecycle import ENDED, Phase, may_follow
from store.model import Assignment, Failure, Goal, Revision

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""
KILL_AGAIN_S = 3.0
"""An exit after SIGKILL that is not heard of for so long is asked for again."""
PATIENCE_S = 20.0
"""How long a start outlasts a containerd that is away before it fails."""
_FREEZING = frozenset({Do.FREEZE, Do.THAW})


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of one instance. Times are monotonic seconds."""

    instance: str
    phase: Phase = Phase.PENDING
    """As last reported."""
    revision: Revision | None = None
    image: bool = False
    pulling: bool = False
    address: str = ""
    """IP of the network it holds, or empty."""
    container: bool = False
    """Its container and snapshot are in containerd (or are half made)."""
    task: Task = Task.NONE
    ready: bool = False
    watched: bool = False
    """Probes go on in the background."""
    frozen: bool = False
    """Stopped by the freezer."""
    doing: frozenset[Do] = frozenset()
    failure: Failure | None = None
    drained_by: frozenset[str] = frozenset()
    draining_at: float | None = None
    term_at: float | None = None
    killed_at: float | None = None
    retry_at: float = 0.0
    attempts: int = 0
    troubled_at: float | None = None
    """Since when containerd does not answer."""
    forgotten: bool = False
    stale: bool = False
    """Made with a Secret or ConfigMap that has changed, and never started: it ends, and another is made."""
    phases_ms: dict[str, float] = field(default_factory=dict)

    @property
    def remains(self) -> bool:
        """Whether anything of it is on the machine."""
        return self.container or self.task != Task.NONE or bool(self.address) or bool(self.doing - {Do.FORGET})


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


# -- events -------------------------------------------------------------------------------------------------------------------


def on_event(have: Observed, event: Event) -> Observed:
    """`have` after `event`. Every event may come twice."""
    match event:
        case a.Began(do=do):
            return replace(have, doing=have.doing | {do})
        case a.Done(do=do, took_ms=took_ms):
            calm = replace(have, doing=have.doing - {do}, retry_at=0.0, attempts=0, troubled_at=None)
            if took_ms:
                calm = replace(calm, phases_ms=have.phases_ms | took_ms)
            return _done(calm, event)
        case a.Interrupted(do=do, why=why):
            return _interrupted(have, do, event.at, why)
        case a.Failed(do=do, failure=failure):
            freed = replace(have, doing=have.doing - {do}, container=have.container or do == Do.CREATE_CONTAINER)
            return _given_up(freed, failure) if do in BUILDING else _retry(freed, event.at)
        case a.GivenUp(failure=failure):
            return _given_up(have, failure)
        case a.Exited():
            return _exited(have, event)
        case a.Reported(phase=phase):
            draining_at = event.at if phase == Phase.DRAINING and have.draining_at is None else have.draining_at
            drained_by = frozenset[str]() if phase == Phase.READY else have.drained_by
            return replace(have, phase=phase, draining_at=draining_at, drained_by=drained_by)
        case a.PullBegan():
            return replace(have, pulling=True)
        case a.Readiness(ready=ready, took_ms=took_ms):
            ready = ready and have.task == Task.RUNNING
            return replace(have, ready=ready, phases_ms=have.phases_ms | took_ms)
        case a.Stale():
            unstarted = have.task in (Task.NONE, Task.CREATED) and Do.START_TASK not in have.doing
            return replace(have, stale=unstarted and have.phase not in ENDED)
        case a.Drained(member=member):
            return replace(have, drained_by=have.drained_by | {member})
    raise AssertionError(f"no such event: {event!r}")


def _done(have: Observed, event: a.Done) -> Observed:
    match event.do:
        case Do.LOAD_REVISION:
            assert isinstance(event, a.RevisionLoaded)
            return replace(have, revision=event.revision)
        case Do.ENSURE_IMAGE:
            return replace(have, image=True, pulling=False)
        case Do.TAKE_NETWORK:
            assert isinstance(event, a.NetworkTaken)
            return replace(have, address=event.address)
        case Do.CREATE_CONTAINER:
            return replace(have, container=True)
        case Do.CREATE_TASK:
            # It may have exited (or its shim died) before the call returned.
            return replace(have, task=Task.CREATED) if have.task == Task.NONE and have.failure is None else have
        case Do.START_TASK:
            return replace(have, task=Task.RUNNING) if have.task == Task.CREATED else have
        case Do.PROBE:
            return replace(have, watched=True)
        case Do.FREEZE:
            return replace(have, frozen=True)
        case Do.THAW:
            return replace(have, frozen=False, phases_ms=event.took_ms or have.phases_ms)
        case Do.TERM:
            return replace(have, term_at=event.at)
        case Do.KILL:
            return replace(have, killed_at=event.at)
        case Do.DELETE_TASK:
            return replace(have, task=Task.NONE, ready=False, watched=False, frozen=False)
        case Do.DELETE_CONTAINER:
            return replace(have, container=False, image=False)
        case Do.RELEASE_NETWORK:
            return replace(have, address="")
        case Do.FORGET:
            return replace(have, forgotten=True)
    return have


def _exited(have: Observed, event: a.Exited) -> Observed:
    if have.task == Task.EXITED or (have.task == Task.NONE and Do.CREATE_TASK not in have.doing):
        return have
    gone = replace(have, task=Task.EXITED, ready=False, watched=False)
    told = have.term_at is not None or have.killed_at is not None or Do.TERM in have.doing or Do.KILL in have.doing
    return gone if told or have.phase == Phase.DRAINING or Do.DELETE_TASK in have.doing else _given_up(gone, event.failure)


def _given_up(have: Observed, failure: Failure) -> Observed:
    if have.failure is not None or have.phase in ENDED:
        return have
    # A create that failed may have left half of what it makes: what is taken down is looked for.
    half = have.task == Task.NONE and have.container
    return replace(have, failure=failure, ready=False, task=Task.EXITED if half else have.task)


def _interrupted(have: Observed, do: Do, at: float, why: str) -> Observed:
    freed = replace(have, doing=have.doing - {do})
    if not why:
        return freed
    since = at if have.troubled_at is None else have.troubled_at
    if do in BUILDING and at - since > PATIENCE_S:
        return _given_up(freed, Failure(reason="StartFailed", message=f"{do}: {why} (for {PATIENCE_S:g} s)"))
    return replace(_retry(freed, at), troubled_at=since, container=have.container or do == Do.CREATE_CONTAINER)


def _retry(have: Observed, at: float) -> Observed:
    return replace(have, retry_at=at + min(0.1 * 2**have.attempts, 5.0), attempts=have.attempts + 1)
