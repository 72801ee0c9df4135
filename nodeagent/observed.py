"""What is known of each instance, and how an event changes it. Pure.

    observed[name] = on_event(observed[name], event)

State changes only by events; every outcome of an action is one. So the agent can be killed at any line: what containerd shows
afterwards is turned into an Observed (`adopt`), and the plan goes on from there.
"""

from dataclasses import dataclass, field, replace

from nodeagent import actions as a
from nodeagent.actions import BUILDING, Do, Event, Task
from store.lifecycle import ENDED, Phase
from store.model import Failure, Revision

PATIENCE_S = 20.0
"""How long a start outlasts a containerd that is away before it fails."""


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
