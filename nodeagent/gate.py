"""A bound on how much is created and torn down at once, by rank: a start never waits for a teardown that has not begun."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum


class Rank(IntEnum):
    """Who goes first."""

    START = 0
    PARK = 1
    TEARDOWN = 2


class Gate:
    """At most `limit` at once. Teardowns have `teardowns` of those places at most, and yield to starts for `patience_s`."""

    def __init__(self, limit: int, teardowns: int = 1, patience_s: float = 2.0) -> None:
        self._free = limit
        self._teardowns = teardowns
        self._patience_s = patience_s
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = 0
        self._starts = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Around everything a waiting request depends on: while any is inside, teardowns that have not begun wait."""
        self._starts += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._starts -= 1
            if not self._starts:
                self._quiet.set()

    @asynccontextmanager
    async def place(self, rank: Rank) -> AsyncIterator[None]:
        """One of the places, waited for by rank and then by arrival."""
        if rank != Rank.START and self._starts:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._quiet.wait()
            except TimeoutError:
                pass
        await self._enter(rank)
        try:
            yield
        finally:
            self._leave(rank)

    def _may(self, rank: int) -> bool:
        return self._free > 0 and (rank != Rank.TEARDOWN or self._teardowns > 0)

    def _count(self, rank: int, by: int) -> None:
        self._free += by
        if rank == Rank.TEARDOWN:
            self._teardowns += by

    async def _enter(self, rank: Rank) -> None:
        if self._may(rank) and not any(waiting <= rank for waiting, _, _ in self._waiting):
            self._count(rank, -1)
            return
        self._number += 1
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, self._number, mine))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._leave(rank)
            raise

    def _leave(self, rank: int) -> None:
        self._count(rank, 1)
        kept: list[tuple[int, int, asyncio.Future[None]]] = []
        while self._waiting and self._free > 0:
            waiting = heapq.heappop(self._waiting)
            if waiting[2].done():
                continue
            if not self._may(waiting[0]):
                kept.append(waiting)
                continue
            self._count(waiting[0], -1)
            waiting[2].set_result(None)
        for waiting in kept:
            heapq.heappush(self._waiting, waiting)
