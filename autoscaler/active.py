"""What the autoscaler remembers of one active revision between decisions, and the last decisions for people to read."""

import math
from collections import deque
from dataclasses import dataclass, field

from autoscaler.backoff import WELL_S, Row
from autoscaler.policy import Decision, Memory
from autoscaler.steady import Steady
from store.model import Failure

KEEP_DECISIONS = 32
WAKE_LASTS_S = 1.0
"""Wakes are repeated four times a second; one that is not has been answered or given up."""


@dataclass(slots=True)
class Active:
    """One revision with load, instances or something to do. Idle ones have none of this."""

    since: float
    memory: Memory = field(default_factory=Memory)
    running_since: float = math.inf
    waking: int = 0
    wake_at: float = -math.inf
    cause_id: str = ""
    row: Row = field(default_factory=Row)
    failure: Failure | None = None
    unparked: bool = False
    """The last failure was of making a parked instance, which says nothing of the app: it is tried again."""
    unplaced: str = ""
    unplaced_as: str = "NoRoom"
    verified: bool = False
    verified_at: float = -math.inf
    """When this process saw it verified; minus infinity when an earlier one did."""
    ready_since: dict[str, float] = field(default_factory=dict)
    """By instance."""
    committing: bool = False
    refused: int = 0
    """Transactions refused in a row."""
    steady: Steady | None = None
    """Within which load the last decision holds, when nothing was heard of since but load."""
    steady_until: float = -math.inf
    again: bool = False
    """Something changed while its transaction was on the way."""

    def woken(self, now: float) -> int:
        """Requests that wait with nothing to run them, as far as is known at `now`."""
        return self.waking if now - self.wake_at < WAKE_LASTS_S else 0

    def heal(self, now: float) -> None:
        """An instance that has been ready for long enough ends the row of failures."""
        if self.row.count and any(now - at >= WELL_S for at in self.ready_since.values()):
            self.row = Row()


@dataclass(frozen=True, slots=True)
class Made:
    """One decision as it is shown: `at` in wall seconds."""

    at: float
    decision: Decision
    ready: int
    starting: int
    cause_id: str
    outcome: str


class History:
    """The last decisions of each revision that changed something or gave another reason; bounded over all revisions."""

    def __init__(self, revisions: int = 2_000) -> None:
        self._bound = revisions
        self._made: dict[str, deque[Made]] = {}

    def add(self, revision: str, made: Made) -> None:
        """Keep `made`, unless it says the same as the last one."""
        kept = self._made.pop(revision, None)
        if kept is None:
            kept = deque(maxlen=KEEP_DECISIONS)
            if len(self._made) >= self._bound:
                del self._made[next(iter(self._made))]
        self._made[revision] = kept
        last = kept[-1] if kept else None
        same = last is not None and not made.outcome and not last.outcome
        if (
            same
            and last is not None
            and (last.decision.desired, last.decision.reason) == (made.decision.desired, made.decision.reason)
        ):
            kept.pop()
        kept.append(made)

    def of(self, revision: str) -> list[Made]:
        """The last decisions on `revision`, oldest first."""
        return list(self._made.get(revision, ()))

    def forget(self, revision: str) -> None:
        self._made.pop(revision, None)
