"""Probes of every instance on this node: runs what `readiness` asks for, when it asks, and tells what came of it.

prober = Prober(clock, jobs)
prober.start(instance, revision, ip, exec_fn, on_event)    # on_event(instance, Verdict)
prober.pause(instance); prober.resume(instance)            # frozen: no probe fails meanwhile
prober.stop(instance)
"""

import asyncio
from collections.abc import Awaitable, Callable

from nodeagent import checks
from nodeagent.readiness import SLOWEST_FAST_GAP_S, Readiness, Verdict, plan_of
from process.clock import Clock
from process.run import Jobs
from store.model import Revision

STARTING_PER_S = 2_000
"""So many probes a second are made of all together that were not ready yet, or one in SLOWEST_FAST_GAP_S of each: a crowd that starts
needs the processor for itself."""

ExecFn = Callable[[str, list[str], float], Awaitable[int]]
"""(instance, argv, timeout_s) → exit code."""
OnEvent = Callable[[str, Verdict], None]
"""Called in the loop for every change of mind; must not block."""


class _Watched:
    __slots__ = ("paused_at", "resumed", "starting", "state", "task")

    def __init__(self, state: Readiness) -> None:
        self.state = state
        self.starting = not state.ready
        self.task: asyncio.Task[None] | None = None
        self.paused_at: float | None = None
        self.resumed = asyncio.Event()
        self.resumed.set()


class Prober:
    """One background job an instance; steady ones sleep nearly all the time."""

    def __init__(self, clock: Clock, jobs: Jobs) -> None:
        self._clock, self._jobs = clock, jobs
        self._watched: dict[str, _Watched] = {}
        self._starting = 0
        """How many of them were never ready."""

    def __contains__(self, instance: str) -> bool:
        return instance in self._watched

    def start(
        self, instance: str, revision: Revision, ip: str, exec_fn: ExecFn | None, on_event: OnEvent, *, ready: bool = False
    ) -> None:
        """Begin to probe an instance that has just been started; `ready=True` for one that was Ready before (adopted).

        Ends by itself after StartupFailed or LivenessFailed. Starting an instance again replaces what went on.
        """
        self.stop(instance)
        plan, now = plan_of(revision), self._clock.now()
        watched = _Watched(Readiness.already_ready(plan, now) if ready else Readiness(plan, now))
        self._watched[instance] = watched
        run = None if exec_fn is None else _bound(exec_fn, instance)

        async def watch() -> None:
            self._starting += watched.starting
            try:
                await self._watch(watched, ip, revision.port, run, lambda verdict: on_event(instance, verdict))
            finally:
                self._starting -= watched.starting
                if self._watched.get(instance) is watched:
                    del self._watched[instance]

        watched.task = self._jobs.start(watch(), f"probe {instance}")

    def stop(self, instance: str) -> None:
        """Probe it no more; one that is not probed is fine."""
        watched = self._watched.pop(instance, None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    def pause(self, instance: str) -> None:
        """Hold its probes while it is frozen; its deadlines stand still."""
        watched = self._watched.get(instance)
        if watched is not None and watched.paused_at is None:
            watched.paused_at = self._clock.now()
            watched.resumed.clear()

    def resume(self, instance: str) -> None:
        """Go on after `pause`."""
        watched = self._watched.get(instance)
        if watched is not None and watched.paused_at is not None:
            watched.state.shift(self._clock.now() - watched.paused_at)
            watched.paused_at = None
            watched.resumed.set()

    async def _watch(
        self, watched: _Watched, ip: str, port: int, run: checks.Exec | None, tell: Callable[[Verdict], None]
    ) -> None:
        state, probed_at = watched.state, float("-inf")
        while True:
            await watched.resumed.wait()
            next_probe = state.next_due()
            if next_probe is None:
                return
            which, due = next_probe
            if watched.starting:
                due = max(due, probed_at + min(self._starting / STARTING_PER_S, SLOWEST_FAST_GAP_S))
            wait = min(due, state.deadline or due) - self._clock.now()
            if wait > 0:
                await asyncio.sleep(wait)
                if watched.paused_at is not None:
                    continue
            late = state.expired(self._clock.now())
            if late is not None:
                tell(late)
                return
            if self._clock.now() < due - 1e-4:
                continue
            why = await checks.check(state.plan.probe(which), ip, port, run)
            if watched.paused_at is not None:
                continue  # frozen while it was asked: its silence says nothing
            probed_at = self._clock.now()
            verdict = state.answer(which, why is None, probed_at, why or "")
            if watched.starting and state.ready:
                watched.starting = False
                self._starting -= 1
            if verdict is not None:
                tell(verdict)


def _bound(exec_fn: ExecFn, instance: str) -> checks.Exec:
    return lambda argv, timeout_s: exec_fn(instance, argv, timeout_s)
