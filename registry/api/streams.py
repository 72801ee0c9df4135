"""Answers that go on: lines from a bounded queue until the source, the time or the process ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from registry.api import problems

STREAMS_MAX = 2000
_BUFFER = 1000

Queue = asyncio.Queue[bytes | None]
Fill = Callable[[Queue], Awaitable[None]]
"""Puts lines into the queue; None, or returning, ends the stream."""


class Streams:
    """All open streams of this process: bounded, and ended together when it stops."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self.open = 0

    def stop(self) -> None:
        """End all streams cleanly."""
        self._stopping.set()

    def lines(
        self, fill: Fill, *, timeout_s: float, idle_s: float = 3600, on_idle: Callable[[], bytes] | None = None
    ) -> AsyncIterator[bytes]:
        """What `fill` produces, for at most `timeout_s`; `on_idle` gives a line after each `idle_s` without any.

        Raises ApiError 429 when too many streams are open.
        """
        if self.open >= STREAMS_MAX:
            raise problems.too_many(f"{self.open} streams are open; the limit is {STREAMS_MAX}; try again in a moment")
        return self._run(fill, timeout_s, idle_s, on_idle)

    async def _run(
        self, fill: Fill, timeout_s: float, idle_s: float, on_idle: Callable[[], bytes] | None
    ) -> AsyncIterator[bytes]:
        self.open += 1
        loop = asyncio.get_running_loop()
        queue: Queue = asyncio.Queue(_BUFFER)
        pump = loop.create_task(_filled(fill, queue))
        stopping = loop.create_task(self._stopping.wait())
        ends = loop.time() + timeout_s
        try:
            while (left := ends - loop.time()) > 0 and not stopping.done():
                getting = loop.create_task(queue.get())
                done, _ = await asyncio.wait(
                    {getting, stopping}, timeout=min(left, idle_s), return_when=asyncio.FIRST_COMPLETED
                )
                if getting not in done:
                    getting.cancel()
                    if on_idle is not None and not stopping.done():
                        yield on_idle()
                    continue
                line = getting.result()
                if line is None:
                    return
                yield line
        finally:
            self.open -= 1
            pump.cancel()
            stopping.cancel()


async def _filled(fill: Fill, queue: Queue) -> None:
    try:
        await fill(queue)
    finally:
        if not queue.full():
            queue.put_nowait(None)
