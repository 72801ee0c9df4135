"""The controller's loop: names that may need something → view → plan → transactions. Level-triggered, many names at once."""

import asyncio
from collections import deque
from typing import Any

from process import logs, metrics
from process.clock import Clock
from registry.bounds import Bounds, Naming
from registry.digests import Digests
from registry.gc import Retention
from registry.mapping import plan_mapping
from registry.observed import Observed, Unit
from registry.plan import Plan, Wanted, plan, pull_progress
from store import errors, keys
from store.backend import Store
from store.messages import PullProgress
from store.story import Story
from store.txn import Guard, Put, Txn

WORKERS = 16
QUIET_S = 2.0
"""What may wait (counts, progress words) is written at most this often for one name."""
COUNTS_S = 1.0
COUNTS_GAP_S = 0.05
"""Mere counts are looked at so long after they changed, and so many names a second: in a burst of starts they wait, for it is over or
the next change, and one write tells of both."""
ECHOES = 64
CONFLICT_WAIT_S = 0.02
CATCH_UP_S = 0.01
AWAIT_S = 1.0
AWAY_WAIT_S = 0.5
RESYNC_S = 300.0

log = logs.get("registry.controller")
_RECONCILE = metrics.histogram("registry_reconcile_seconds", "Time to plan and write one name.")
_WRITES = metrics.counter("registry_writes_total", "Transactions of the controller.", "outcome")
_QUEUE = metrics.gauge("registry_queue", "Names that wait for the controller.")


class Turns:
    """For what may wait: each has its turn `after_s`, or so much later that there is `gap_s` between two."""

    def __init__(self, after_s: float, gap_s: float) -> None:
        self._after_s, self._gap_s = after_s, gap_s
        self._last = float("-inf")

    def wait_s(self, now: float) -> float:
        """How long the next waits who comes `now`."""
        self._last = max(self._last + self._gap_s, now + self._after_s)
        return self._last - now


class Controller:
    """Reconciles names while it leads. `mark(unit)` may be called at any time."""

    def __init__(self, store: Store, naming: Naming, bounds: Bounds, clock: Clock, story: Story) -> None:
        self._store, self._naming, self._bounds, self._clock, self._story = store, naming, bounds, clock, story
        self._retention = Retention()
        self._dirty: dict[Unit, None] = {}
        self._busy: set[Unit] = set()
        self._ready = asyncio.Event()
        self._timers: dict[Unit, tuple[float, asyncio.Handle]] = {}
        """When each will be marked again. The time is kept here: uvloop's handles do not always know theirs."""
        self._counting: set[Unit] = set()
        """Whose counts have their turn to come."""
        self._turns = Turns(COUNTS_S, COUNTS_GAP_S)
        self._wrote_at: dict[Unit, float] = {}
        self._awaited: dict[Unit, tuple[str, int, float]] = {}
        """By name, what it wrote last: until the table shows that (or a second is over), planning would only conflict."""
        self._echoes: deque[int] = deque(maxlen=ECHOES)
        """Revisions of the store at which only counts and the like were written."""
        self._pulls: dict[str, PullProgress] = {}
        self._leading = False
        self.observed: Observed | None = None
        self.digests: Digests | None = None

    def wire(self, observed: Observed, digests: Digests) -> None:
        """What it sees and asks with; both call back into `mark`, so they come after it."""
        self.observed, self.digests = observed, digests

    def mark(self, unit: Unit) -> None:
        """`unit` may need something; it is looked at once, however often it is marked."""
        if self._leading:
            self._dirty[unit] = None
            _QUEUE.set(len(self._dirty))
            self._ready.set()

    def mark_counted(self, unit: Unit) -> None:
        """Only counts of `unit` changed: looked at once a while, since a start and a stop change them several times."""
        if not self._leading or unit in self._counting:
            return
        self._counting.add(unit)
        self._later(unit, self._turns.wait_s(asyncio.get_running_loop().time()))

    def echo(self, store_rev: int) -> bool:
        """Whether what was written then was a plan's that leaves nothing to do."""
        return store_rev in self._echoes

    def mark_revision(self, wanted: Wanted) -> None:
        """News of a revision's image."""
        unit = self.observed.unit_of_revision(wanted.project, wanted.revision) if self.observed is not None else None
        if unit is not None:
            self.mark(unit)

    def pulling(self, progress: PullProgress) -> None:
        """News of a pull, for the words of whoever waits for it."""
        if progress.state in ("done", "failed"):
            self._pulls.pop(progress.image, None)
        elif len(self._pulls) < 1000 or progress.image in self._pulls:
            self._pulls[progress.image] = progress
        if self._leading and self.observed is not None:
            self.observed.pulling(progress)

    async def lead(self, guard: Guard) -> None:
        """Run until cancelled, fenced by `guard`: begins with every name there is."""
        observed, digests = self.observed, self.digests
        if observed is None or digests is None:
            raise RuntimeError("wire() comes before lead()")
        await observed.synced()
        self._leading = True
        log.info("leading", names=len(observed.units()))
        workers = [asyncio.get_running_loop().create_task(self._work(observed, digests, guard)) for _ in range(WORKERS)]
        try:
            while True:
                for unit in observed.units():
                    self.mark(unit)
                done, _ = await asyncio.wait(workers, timeout=RESYNC_S, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    worker.result()
        finally:
            self._leading = False
            for _, timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self._counting.clear()
            self._dirty.clear()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, observed: Observed, digests: Digests, fence: Guard) -> None:
        while True:
            unit = await self._next()
            self._busy.add(unit)
            try:
                with _RECONCILE.time():
                    await self._reconcile(unit, observed, digests, fence)
            except Exception as error:
                log.exception("reconcile failed", project=unit[0], name=unit[1], error=repr(error))
                self._later(unit, 5.0)
            finally:
                self._busy.discard(unit)
                if unit in self._dirty:
                    self._ready.set()

    async def _next(self) -> Unit:
        """The first marked name that no worker has."""
        while True:
            for unit in self._dirty:
                if unit not in self._busy:
                    del self._dirty[unit]
                    _QUEUE.set(len(self._dirty))
                    return unit
            self._ready.clear()
            await self._ready.wait()

    async def _reconcile(self, unit: Unit, observed: Observed, digests: Digests, fence: Guard) -> None:
        if self._behind(unit, observed):
            self._later(unit, CATCH_UP_S)
            return
        seen, made = self._plan(unit, observed, digests)
        for wanted in made.wanted:
            again_s = digests.want(wanted)
            if again_s is not None:
                self._later(unit, again_s)
        if made.look_again_s is not None:
            self._later(unit, made.look_again_s)
        if not made.txns:
            if not seen:
                self._wrote_at.pop(unit, None)
            return
        since = self._clock.now() - self._wrote_at.get(unit, -QUIET_S)
        if not made.urgent and since < QUIET_S:
            self._later(unit, QUIET_S - since)
            return
        await self._write(unit, made, fence)

    def _plan(self, unit: Unit, observed: Observed, digests: Digests) -> tuple[bool, Plan]:
        """Whether there is anything of that name, and its plan."""
        now = self._clock.wall()
        if "." in unit[1]:
            mapped = observed.hosts.view(unit)
            return mapped.mapping is not None, plan_mapping(mapped, self._naming, self._bounds, now)
        view = observed.view(unit, digests.known, self._progress)
        return bool(view.seen), plan(view, self._naming, self._bounds, now, self._retention)

    def _behind(self, unit: Unit, observed: Observed) -> bool:
        """Whether the table has not yet seen what was written for `unit` last."""
        awaited = self._awaited.get(unit)
        if awaited is None:
            return False
        key, store_rev, until = awaited
        entry = observed.objects.entry(key)
        if (entry is not None and entry.store_rev >= store_rev) or self._clock.now() >= until:
            del self._awaited[unit]
            return False
        return True

    async def _write(self, unit: Unit, made: Plan, fence: Guard) -> None:
        try:
            for txn in made.txns:
                store_rev = await self._store.commit(Txn((fence, *txn.guards), txn.writes, txn.why))
                written = next((w.key for w in txn.writes if isinstance(w, Put) and w.key.startswith(keys.OBJECTS)), "")
                if not made.urgent:
                    self._echoes.append(store_rev)
                if written:
                    self._awaited[unit] = (written, store_rev, self._clock.now() + AWAIT_S)
        except errors.Conflict:
            _WRITES.labels("conflict").inc()
            self._later(unit, CONFLICT_WAIT_S)
            return
        except errors.StoreError as error:
            _WRITES.labels("failed").inc()
            log.warning("write failed", project=unit[0], name=unit[1], error=str(error))
            self._later(unit, AWAY_WAIT_S)
            return
        _WRITES.labels("written").inc()
        self._wrote_at[unit] = self._clock.now()
        for what, revision, said in made.happened:
            detail: dict[str, Any] = {"said": said} if said else {}
            self._story.tell(what, revision=f"{unit[0]}/{revision}" if revision else "", **detail)

    def _later(self, unit: Unit, wait_s: float) -> None:
        """Mark `unit` again after `wait_s`; the earliest of several such wishes counts."""
        loop = asyncio.get_running_loop()
        at, planned = loop.time() + wait_s, self._timers.get(unit)
        if planned is not None:
            if planned[0] <= at:
                return
            planned[1].cancel()
        self._timers[unit] = (at, loop.call_later(wait_s, self._timer_over, unit))

    def _timer_over(self, unit: Unit) -> None:
        self._timers.pop(unit, None)
        self._counting.discard(unit)
        self.mark(unit)

    def _progress(self, image: str) -> str:
        pull = self._pulls.get(image)
        return pull_progress(pull.layers, pull.state) if pull is not None else ""
