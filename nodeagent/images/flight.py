"""One piece of work for many who ask for it at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Runs at most one job a key. A waiter that is cancelled leaves the others alone; with the last one the job is cancelled."""

    def __init__(self) -> None:
        self._jobs: dict[str, asyncio.Task[T]] = {}
        self._waiters: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, key: str) -> bool:
        return key in self._jobs

    async def run(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns or raises, for everybody who asks for `key` while it runs."""
        job = self._jobs.get(key)
        if job is None or job.done():
            job = self._jobs[key] = asyncio.ensure_future(_wrap(work))
            self._waiters[key] = 0
            job.add_done_callback(lambda done: self._ended(key, done))
        self._waiters[key] += 1
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if self._jobs.get(key) is job and self._waiters[key] == 1 and not job.done():
                # Gone from the table at once: whoever asks now starts a new job instead of joining a dying one.
                del self._jobs[key], self._waiters[key]
                job.cancel()
                await asyncio.wait([job], timeout=5)
            raise
        finally:
            if self._jobs.get(key) is job:
                self._waiters[key] -= 1

    def _ended(self, key: str, job: "asyncio.Task[Any]") -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
            del self._waiters[key]
        if not job.cancelled():
            job.exception()


async def _wrap(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
