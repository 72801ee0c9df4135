"""A bound on how much is created and torn down at once: by rank, and fair between projects and revisions.

A start never waits for a teardown that has not begun, nor for a parking. Among equals of one rank the next place goes to the project that
holds the fewest places for its weight, in it to the revision that holds the fewest, then by arrival: whoever starts a hundred
instances at once delays another's first start by no more than what is under way.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum


class Rank(IntEnum):
    """Who goes first."""

    START = 0
    PARK = 1
    TEARDOWN = 2


@dataclass(slots=True, eq=False)
class _Waiter:
    rank: Rank
    number: int
    instance: str
    revision: str
    turn: asyncio.Future[None]
    patient: bool = True
    """It lets starts go first that need no place any more."""

    @property
    def project(self) -> str:
        return self.revision.partition("/")[0]


class Gate:
    """At most `limit` at once. Teardowns have `teardowns` of those places at most; they and parkings yield to starts for `patience_s`.
    `weight` says a project's."""

    def __init__(
        self, limit: int, teardowns: int = 1, patience_s: float = 2.0, weight: Callable[[str], int] = lambda _: 1
    ) -> None:
        self._weight = weight
        self._limit = self._free = limit
        self._teardowns = teardowns
        self._patience_s = patience_s
        self._waiting: dict[int, _Waiter] = {}
        self._number = 0
        self._starts = 0
        self._held: Counter[str] = Counter()
        """Places by project and by revision."""

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Around everything a waiting request depends on: while any is inside, parkings and teardowns that have not begun wait."""
        self._starts += 1
        try:
            yield
        finally:
            self._starts -= 1
            self._serve()

    @asynccontextmanager
    async def place(self, rank: Rank, instance: str = "", revision: str = "") -> AsyncIterator[None]:
        """One of the places. `revision` (`project/name`) is whom it counts for; `instance` is what `hurry` calls it."""
        self._number += 1
        waiter = _Waiter(rank, self._number, instance, revision, asyncio.get_running_loop().create_future())
        self._waiting[waiter.number] = waiter
        self._serve()
        tired = None
        if not waiter.turn.done() and rank is not Rank.START:
            tired = asyncio.get_running_loop().call_later(self._patience_s, self._tire, waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if self._waiting.pop(waiter.number, None) is None:
                self._leave(waiter)
            raise
        finally:
            if tired is not None:
                tired.cancel()
        try:
            yield
        finally:
            self._leave(waiter)

    @property
    def idle(self) -> bool:
        """Whether nothing is created or torn down now."""
        return self._free == self._limit

    def hurry(self, instance: str) -> None:
        """What waits to be parked is to be started now."""
        for waiter in self._waiting.values():
            if waiter.instance == instance and waiter.rank is Rank.PARK:
                waiter.rank = Rank.START
        self._serve()

    def _tire(self, waiter: _Waiter) -> None:
        waiter.patient = False
        self._serve()

    def _may(self, waiter: _Waiter) -> bool:
        if waiter.rank is Rank.START:
            return True
        if self._starts and waiter.patient:
            return False
        return waiter.rank is not Rank.TEARDOWN or self._teardowns > 0

    def _order(self, waiter: _Waiter) -> tuple[int, float, int, int]:
        held = self._held[waiter.project] / max(1, self._weight(waiter.project))
        return waiter.rank, held, self._held[waiter.revision], waiter.number

    def _serve(self) -> None:
        """Give free places to who is next."""
        while self._free > 0 and self._waiting:
            best = min((each for each in self._waiting.values() if self._may(each)), key=self._order, default=None)
            if best is None:
                return
            del self._waiting[best.number]
            self._count(best, 1)
            best.turn.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        self._count(waiter, -1)
        self._serve()

    def _count(self, waiter: _Waiter, by: int) -> None:
        self._free -= by
        if waiter.rank is Rank.TEARDOWN:
            self._teardowns -= by
            return
        for name in _names(waiter):
            self._held[name] += by
            if not self._held[name]:
                del self._held[name]


def _names(waiter: _Waiter) -> Iterator[str]:
    if waiter.revision:
        yield waiter.project
        yield waiter.revision
