"""Starts children in order, starts again what dies, stops them in order.

A child's output goes straight into its log file (appended; rotated by copying), never through a pipe of ours: when the
supervisor is killed its children live on, and the next one adopts them by pid and start time.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from process import confine, logs, pids
from process.restarts import Restarts

_log = logs.get("supervise")

Ready = Callable[[], Awaitable[str | None]]
"""Says what is not ready yet, or None."""

LOG_LIMIT_BYTES = 16 * 2**20
LOGS_KEPT = 3


class StartFailed(Exception):
    """A child did not come up the first time; the message says which, why, and the last lines of its log."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One child. Lower `stage` starts first; lower `stop_stage` stops first; equals go together."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Ready
    stage: int = 0
    stop_stage: int = 0
    stop_timeout_s: float = 15
    start_timeout_s: float = 60
    nice: int = 0
    """Below 0: it goes before the others when there is not enough CPU for all; where we may not do that, it does not."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: confine.User | None = None
    """None: whoever we are."""


@dataclass
class Child:
    """What is known of one child now. `state`: waiting, starting, running, restarting, stopping, stopped."""

    spec: Spec
    state: str = "waiting"
    who: pids.Pid | None = None
    since: float = 0
    last_exit: str = ""
    restarts: Restarts = field(default_factory=Restarts)
    adopted: bool = False
    process: subprocess.Popen[bytes] | None = None
    ready_at: float = 0


class Supervisor:
    """Owns children from `start` to `stop`. `on_change(child, message)` is called for each change worth telling."""

    def __init__(self, specs: Sequence[Spec], on_change: Callable[[Child, str], None]) -> None:
        self.children = {spec.name: Child(spec) for spec in specs}
        self._on_change = on_change
        self._stopping = False
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._rotation: asyncio.Task[None] | None = None

    async def start(self, adopt: Mapping[str, pids.Pid]) -> None:
        """Start stage by stage, each ready before the next. A child named in `adopt` that still runs is kept as it is.

        Raises StartFailed when one ends or is not ready in time; the caller then calls `stop`.
        """
        self._rotation = asyncio.create_task(self._rotate(), name="rotate logs")
        for stage in sorted({child.spec.stage for child in self.children.values()}):
            group = [child for child in self.children.values() if child.spec.stage == stage]
            starts = [asyncio.create_task(self._first_start(child, adopt.get(child.spec.name))) for child in group]
            try:
                await asyncio.gather(*starts)
            finally:
                for start in starts:
                    start.cancel()
                await asyncio.gather(*starts, return_exceptions=True)

    async def stop(self) -> None:
        """Stop all in order: SIGTERM, the child's own time to drain, SIGKILL. Returns when none runs."""
        self._stopping = True
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        for stage in sorted({child.spec.stop_stage for child in self.children.values()}):
            group = [child for child in self.children.values() if child.spec.stop_stage == stage]
            await asyncio.gather(*(self._stop_child(child) for child in group))
        if self._rotation is not None:
            self._rotation.cancel()

    async def add(self, spec: Spec) -> None:
        """Start one more child and wait until it is ready. Raises StartFailed; then there is none."""
        child = self.children[spec.name] = Child(spec)
        try:
            await self._first_start(child, None)
        except StartFailed:
            await self.remove(spec.name)
            raise

    async def remove(self, name: str) -> None:
        """Stop a child for good."""
        child = self.children[name]
        await self._unwatch(child)
        await self._stop_child(child)
        del self.children[name]
        self._change(child, "stopped", "")

    async def replace(self, name: str) -> None:
        """Stop a child and start it anew. Raises StartFailed; it is then tried again, with back-off."""
        child = self.children[name]
        await self._unwatch(child)
        await self._stop_child(child)
        try:
            await self._first_start(child, None)
        except StartFailed:
            self._watchers[name] = asyncio.create_task(self._watch(child), name=f"watch {name}")
            raise

    async def _unwatch(self, child: Child) -> None:
        watcher = self._watchers.pop(child.spec.name, None)
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    # -- one child --------------------------------------------------------------------------------------------------------

    async def _first_start(self, child: Child, old: pids.Pid | None) -> None:
        if old is not None and pids.alive(old):
            child.who, child.adopted = old, True
            self._change(child, "starting", f"adopted (pid {old.pid})")
        else:
            self._spawn(child)
        try:
            await asyncio.wait_for(self._until_ready(child), child.spec.start_timeout_s)
        except TimeoutError:
            why = await child.spec.ready()
            raise StartFailed(
                f"{child.spec.name} was not ready after {child.spec.start_timeout_s:g} s: {why}\n{log_tail(child.spec.log)}"
            ) from None
        if child.state != "running":
            raise StartFailed(
                f"{child.spec.name} ended before it was ready ({child.last_exit}); "
                f"its log is {child.spec.log}:\n{log_tail(child.spec.log)}"
            )
        self._watchers[child.spec.name] = asyncio.create_task(self._watch(child), name=f"watch {child.spec.name}")

    def _spawn(self, child: Child) -> None:
        spec = child.spec
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with open(spec.log, "ab") as log:
            child.process = subprocess.Popen(
                spec.argv if spec.user is None else confine.command(spec.argv, spec.user),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(spec.env) or None,
                cwd=spec.cwd,
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's to act on, in order
            )
        if spec.nice:
            pids.be_nice(child.process.pid, spec.nice)
        child.who = pids.identify(child.process.pid)
        child.adopted = False
        self._change(child, "starting", f"started (pid {child.process.pid})")

    async def _until_ready(self, child: Child) -> None:
        """Returns when the child is ready or has ended."""
        ended = asyncio.create_task(self._until_ended(child))
        pause_s = 0.01
        try:
            while not ended.done():
                if await child.spec.ready() is None and not ended.done():
                    child.ready_at = time.monotonic()
                    self._change(child, "running", "ready")
                    return
                await asyncio.wait([ended], timeout=pause_s)
                pause_s = min(pause_s * 1.5, 0.25)
        finally:
            ended.cancel()

    async def _until_ended(self, child: Child) -> None:
        if child.who is not None:
            await pids.ended(child.who)
        child.last_exit = self._exit_of(child)
        child.who = None

    def _exit_of(self, child: Child) -> str:
        if child.adopted or child.process is None:
            return "ended"
        code = child.process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def _watch(self, child: Child) -> None:
        """For ever: wait for its end, wait the back-off, start it again."""
        while True:
            await self._until_ended(child)
            ran_s = time.monotonic() - child.ready_at if child.ready_at else 0
            child.ready_at = 0
            delay_s = child.restarts.died(ran_s)
            self._change(child, "restarting", f"died ({child.last_exit}); starting again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            try:
                self._spawn(child)
            except OSError as error:
                child.last_exit = str(error)
                continue
            await self._until_ready(child)

    async def _stop_child(self, child: Child) -> None:
        who = child.who
        if who is None or not pids.alive(who):
            if child.process is not None:
                child.process.poll()
            self._change(child, "stopped", "")
            return
        self._change(child, "stopping", "stopping")
        ended = asyncio.create_task(self._until_ended(child))
        began = time.monotonic()
        how = "stopped"
        pids.send(who, signal.SIGTERM)
        done, _ = await asyncio.wait([ended], timeout=child.spec.stop_timeout_s)
        if not done:
            how = f"killed: it had not stopped after {child.spec.stop_timeout_s:g} s"
            pids.send(who, signal.SIGKILL)
            await asyncio.wait([ended], timeout=5)
        ended.cancel()
        self._change(child, "stopped", f"{how} ({time.monotonic() - began:.1f} s)")

    def _change(self, child: Child, state: str, message: str) -> None:
        child.state, child.since = state, time.time()
        if message:
            _log.info(message, child=child.spec.name, state=state, restarts=child.restarts.total)
        self._on_change(child, message)

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(10)
            for child in list(self.children.values()):
                await asyncio.to_thread(rotate, child.spec.log)


def rotate(log: Path, limit_bytes: int = LOG_LIMIT_BYTES, kept: int = LOGS_KEPT) -> bool:
    """Move what is in `log` to `log.1` (and `.1` to `.2` …) when it is larger than the limit; the writer keeps its file.

    Lines written between the copy and the cut are lost: for logs that is less bad than losing the child's file.
    """
    try:
        if log.stat().st_size <= limit_bytes:
            return False
        for number in range(kept - 1, 0, -1):
            older = log.with_name(f"{log.name}.{number}")
            if older.exists():
                older.replace(log.with_name(f"{log.name}.{number + 1}"))
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except OSError as error:
        _log.warning("could not rotate a log", path=str(log), error=str(error))
        return False
    return True


def log_tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log file, indented; empty when there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
