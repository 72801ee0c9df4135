"""What the agent can do to an instance, and what may come of it: the two vocabularies of `plan`.

An Action is performed once by the executor and ends in exactly one Event. Some events come by themselves (a task exits).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from store.lifecycle import Phase
from store.model import Failure, Revision


class Do(StrEnum):
    """The kinds of action. Those up to PROBE build an instance up, in this order; those from TERM on take it down."""

    REPORT = "report"
    LOAD_REVISION = "load revision"
    ENSURE_IMAGE = "ensure image"
    TAKE_NETWORK = "take network"
    CREATE_CONTAINER = "create container"
    CREATE_TASK = "create task"
    START_TASK = "start task"
    PROBE = "probe"
    FREEZE = "freeze"
    THAW = "thaw"
    CANCEL = "cancel"
    TERM = "term"
    KILL = "kill"
    DELETE_TASK = "delete task"
    DELETE_CONTAINER = "delete container"
    RELEASE_NETWORK = "release network"
    FORGET = "forget"


CANCELLABLE = frozenset({Do.LOAD_REVISION, Do.ENSURE_IMAGE})
"""Actions that may be given up half-way without leaving anything behind."""
BUILDING = frozenset(
    {Do.LOAD_REVISION, Do.ENSURE_IMAGE, Do.TAKE_NETWORK, Do.CREATE_CONTAINER, Do.CREATE_TASK, Do.START_TASK, Do.PROBE}
)


class Task(StrEnum):
    """A containerd task, as far as the plan cares. CREATED is parked; EXITED still has to be deleted."""

    NONE = "none"
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do now to `instance`. `phase` belongs to REPORT, `target` to CANCEL."""

    do: Do
    instance: str
    phase: Phase | None = None
    target: Do | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became true at `at` (monotonic seconds)."""

    at: float


@dataclass(frozen=True, slots=True)
class Began(Event):
    """An action was handed to the executor."""

    do: Do


@dataclass(frozen=True, slots=True)
class Done(Event):
    """An action succeeded. `took_ms`: how long its named steps took."""

    do: Do
    took_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RevisionLoaded(Done):
    revision: Revision | None = None


@dataclass(frozen=True, slots=True)
class NetworkTaken(Done):
    address: str = ""
    """The instance's IP address."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """An action failed for good: the instance is given up, unless the action was one of taking down (tried again)."""

    do: Do
    failure: Failure


@dataclass(frozen=True, slots=True)
class Interrupted(Event):
    """An action's outcome is unknown (containerd went away, or it was cancelled); it is tried again."""

    do: Do
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reported(Event):
    phase: Phase


@dataclass(frozen=True, slots=True)
class PullBegan(Event):
    """The image is not on this machine: it is being fetched."""


@dataclass(frozen=True, slots=True)
class Readiness(Event):
    """The readiness probe changed its mind. `took_ms`: from the start to the first success."""

    ready: bool
    took_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GivenUp(Event):
    """Something other than an action ends the instance: it was never ready, is no longer alive, or its task is lost."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Exited(Event):
    """The task's first process is gone. `failure` says what that means unless it was told to stop."""

    failure: Failure
    code: int = 0


@dataclass(frozen=True, slots=True)
class Stale(Event):
    """A Secret or ConfigMap that it was made with has changed before it was started."""


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """`member`, an ingress, has nothing in flight at the instance."""

    member: str
