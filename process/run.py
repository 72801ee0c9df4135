"""How a process of Ebb lives: settings, logs, an event loop, two signals, an exit code."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import uvloop

from process import logs
from process.settings import BadSettings, Common, load

S = TypeVar("S", bound=Common)


def main(name: str, kind: type[S], serve: Callable[[S, asyncio.Event], Awaitable[None]], *, uv: bool = True) -> None:
    """Run `serve(settings, stop)` until it returns; SIGTERM and SIGINT set `stop`, on which it drains and returns.

    Exit codes: 0 done, 1 failed (the reason is logged), 2 bad settings. `uv=False` takes asyncio's own loop.
    """
    try:
        settings = load(kind, sys.argv[1:])
    except BadSettings as error:
        sys.stderr.write(f"{name}: bad settings:\n{error}\n")
        raise SystemExit(2) from None
    logs.configure(name, settings.log_level)
    log = logs.get(name)
    log.info("starting", settings=msgspec.to_builtins(settings))

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(settings, stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None) as runner:
            runner.run(body())
    except BadSettings as error:
        sys.stderr.write(f"{name}: bad settings:\n{error}\n")
        raise SystemExit(2) from None
    except Exception:
        log.exception("failed")
        raise SystemExit(1) from None
    log.info("stopped")


class Jobs:
    """Background coroutines with an owner: none is lost, and an exception in one is logged with its name.

    `fatal=True` jobs end the process's `stop` event instead of leaving it half alive.
    """

    def __init__(self, name: str, stop: asyncio.Event | None = None) -> None:
        self._log = logs.get(name)
        self._stop = stop
        self._jobs: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self, coro: Coroutine[Any, Any, Any], name: str, *, fatal: bool = False) -> asyncio.Task[Any]:
        """Run `coro` in the background under `name`."""
        job = asyncio.get_running_loop().create_task(coro, name=name)
        self._jobs.add(job)
        job.add_done_callback(lambda done: self._ended(done, fatal))
        return job

    async def cancel(self) -> None:
        """Cancel all and wait until they are gone."""
        jobs = [job for job in self._jobs if job is not asyncio.current_task()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _ended(self, job: asyncio.Task[Any], fatal: bool) -> None:
        self._jobs.discard(job)
        if job.cancelled():
            return
        error = job.exception()
        if error is not None:
            self._log.error("job failed", job=job.get_name(), error=repr(error), fatal=fatal)
        if fatal and self._stop is not None:
            self._stop.set()
