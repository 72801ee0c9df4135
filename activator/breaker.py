"""The line of one revision: who waits, in order of arrival, and how many may.

    arrive ──▶ [ 1 2 3 … bound ] ──▶ first to leave when somebody releases

A waiter that leaves the middle is marked and skipped: O(1), and what is marked is swept once it is half of the line, so
that ten thousand clients that give up leave nothing behind.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")

QUEUE_BOUND = 10_000
"""Requests that may wait for one revision, as Knative's; the next one is refused at once."""


@dataclass(slots=True, eq=False)
class Waiter(Generic[R]):
    """One request in line. `since` and `deadline` are monotonic seconds."""

    request: R
    since: float
    deadline: float
    cause_id: str = ""
    waiting: bool = True
    foreign: bool = False
    """It stands in another worker's line too, which counts it, wakes for it and ends it: here it only keeps its place."""
    ask: int = 0
    """Under which number a place was asked for with the revision's owner; 0: not."""


def _since(waiter: Waiter[R]) -> float:
    return waiter.since


class Line(Generic[R]):
    """First in, first out. `bound`: how many may wait here that are not foreign."""

    __slots__ = ("_dead", "_waiters", "bound", "waiting")

    def __init__(self, bound: int = QUEUE_BOUND) -> None:
        self.bound = bound
        self.waiting = 0
        self._dead = 0
        self._waiters: deque[Waiter[R]] = deque()

    def __len__(self) -> int:
        return self.waiting

    def join(self, waiter: Waiter[R]) -> None:
        """Stand at the end. The caller has looked at `bound` first."""
        self._waiters.append(waiter)
        self.waiting += 1

    def join_first(self, waiter: Waiter[R]) -> None:
        """Stand before all others: who had a slot already and lost it through no fault of its own. The bound is not asked."""
        self._waiters.appendleft(waiter)
        self.waiting += 1

    def join_by_age(self, waiter: Waiter[R]) -> None:
        """Stand behind all who came earlier: most often at the end. The bound is that of the line it comes from."""
        waiters = self._waiters
        if waiters and waiters[-1].since > waiter.since:
            waiters.insert(bisect_right(waiters, waiter.since, key=_since), waiter)
        else:
            waiters.append(waiter)
        self.waiting += 1

    def leave(self, waiter: Waiter[R]) -> bool:
        """Give up the place; False when `waiter` was not in line any more."""
        if not waiter.waiting:
            return False
        waiter.waiting = False
        self.waiting -= 1
        self._dead += 1
        if self._dead > 64 and self._dead > self.waiting:
            self._waiters = deque(each for each in self._waiters if each.waiting)
            self._dead = 0
        return True

    def first(self) -> Waiter[R] | None:
        """Who is next, still in line."""
        waiters = self._waiters
        while waiters and not waiters[0].waiting:
            waiters.popleft()
            self._dead -= 1
        return waiters[0] if waiters else None

    def pop(self) -> Waiter[R]:
        """Take who is next out of the line. Raises IndexError when nobody waits."""
        waiter = self.first()
        if waiter is None:
            raise IndexError("nobody waits")
        self._waiters.popleft()
        waiter.waiting = False
        self.waiting -= 1
        return waiter

    def own(self) -> Iterator[Waiter[R]]:
        """Who waits and is not foreign, in order."""
        return (waiter for waiter in self._waiters if waiter.waiting and not waiter.foreign)

    def empty(self) -> list[Waiter[R]]:
        """Take everybody out who is not foreign, in order."""
        everybody = list(self.own())
        for waiter in everybody:
            waiter.waiting = False
        self._waiters = deque(waiter for waiter in self._waiters if waiter.waiting)
        self.waiting, self._dead = len(self._waiters), 0
        return everybody
