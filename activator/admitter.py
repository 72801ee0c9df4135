"""The shell around the throttlers of this process: carries out their effects and tells them what is heard and what time it is.

admitter = Admitter(bus, member, clock, wake_in_store)
target = admitter.throttler(revision).reserve(now)      # the fast way, by the ingress itself
admitter.arrive(throttler, request, deadline)           # the slow way: `request.dispatched` or `request.refused` follows
admitter.release(throttler, target, now)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from activator.balance import Target
from activator.breaker import QUEUE_BOUND, Waiter
from activator.effects import Dispatch, DrainedNow, Effect, Refuse, Spare, Swelling, WakeUp
from activator.loans import Loans
from activator.reporter import INTERVAL_S, report
from activator.throttler import Throttler
from process import logs
from process.clock import Clock
from store import messages
from store.bus import Bus
from store.messages import Drained, Refusal, Wake
from store.model import Instance, RevisionKey, encode

log = logs.get("activator")

TICK_S = 0.05


class Request(Protocol):
    """Who is admitted. Both are called at most once, and never both."""

    def dispatched(self, target: Target, waited_s: float) -> None: ...

    def refused(self, reason: str, message: str, retry_after_s: float) -> None: ...


Tell = Callable[..., None]
"""`Story.tell`."""
WakeInStore = Callable[[Wake], Awaitable[None]]
"""Puts a wake where the autoscaler finds it while the bus is away."""


class Admitter:
    """All throttlers of one process. `member` is its name in reports, wakes and drained messages, `worker` the one among workers."""

    def __init__(
        self,
        bus: Bus,
        member: str,
        clock: Clock,
        wake_in_store: WakeInStore,
        tell: Tell,
        *,
        bound: int = QUEUE_BOUND,
        worker: str = "",
    ) -> None:
        self.throttlers: dict[RevisionKey, Throttler[Request]] = {}
        self.wakes_sent = 0
        self._bus = bus
        self._member = member
        self._clock = clock
        self._wake_in_store = wake_in_store
        self._tell = tell
        self._bound = bound
        self.loans = Loans(worker or member, self.throttler, self._perform)
        self._restless: set[Throttler[Request]] = set()
        self._stirred = asyncio.Event()
        self._report_at = clock.now() + INTERVAL_S
        self._storing: dict[RevisionKey, asyncio.Task[None]] = {}

    def throttler(self, revision: RevisionKey, limit: int | None = None) -> Throttler[Request]:
        """The throttler of `revision`, made when it is new; `limit` is its `container_concurrency`, when known."""
        found = self.throttlers.get(revision)
        if found is None:
            found = Throttler(revision, limit or 0, bound=self._bound, now=self._clock.now())
            self.throttlers[revision] = found
        elif limit is not None:
            self._perform(found, found.limited(limit, self._clock.now()))
        if limit:
            self.loans.limited(found, self._clock.now())
        return found

    # -- requests -------------------------------------------------------------------------------------------------------------

    def arrive(
        self,
        throttler: Throttler[Request],
        request: Request,
        now: float,
        deadline: float,
        cause_id: str,
        *,
        first: bool = False,
    ) -> Waiter[Request] | None:
        """Put `request` in line; None when it was refused or dispatched on the spot."""
        waiter, effects = throttler.arrive(request, now, deadline, cause_id, first=first)
        if throttler.quiet and any(isinstance(effect, WakeUp) for effect in effects):
            throttler.quiet = False  # the wake says who waits; the next report, what became of it
        elif throttler.quiet:
            self.awake(throttler)
        self._perform(throttler, effects)
        if waiter is not None and waiter.waiting:
            self.loans.waiting(throttler, waiter, now)
            self._stir(throttler)
            return waiter
        return None

    def leave(self, throttler: Throttler[Request], waiter: Waiter[Request], now: float) -> None:
        """The client of who waits went away, or the time is over."""
        if throttler.leave(waiter, now):
            self.loans.borrowing.left(throttler, waiter)

    def release(self, throttler: Throttler[Request], target: Target, now: float) -> None:
        effects = throttler.release(target, now)
        if effects:
            self._perform(throttler, effects)

    def prefer(self, throttler: Throttler[Request], target: Target, name: str, now: float) -> Target:
        """A slot was reserved at `target`: move it to the instance called `name`, if that has room. Where it is now."""
        wished = throttler.take(name, now) if name not in ("", target.instance) else None
        if wished is None:
            return target
        self.release(throttler, target, now)
        return wished

    def awake(self, throttler: Throttler[Request]) -> None:
        """A revision whose last report was zero has a request: the autoscaler hears it now, not in a second."""
        throttler.quiet = False
        self._report([throttler], 0.0)

    def unreachable(self, throttler: Throttler[Request], target: Target) -> None:
        self._perform(throttler, throttler.unreachable(target, self._clock.now()))
        self._stir(throttler)

    def reached(self, throttler: Throttler[Request], target: Target) -> None:
        self._perform(throttler, throttler.reached(target, self._clock.now()))

    def unanswered(self, throttler: Throttler[Request], target: Target, *, silent: bool = False) -> None:
        self._perform(throttler, throttler.unanswered(target, self._clock.now(), silent=silent))
        self._stir(throttler)

    def answered(self, throttler: Throttler[Request], target: Target) -> None:
        self._perform(throttler, throttler.answered(target, self._clock.now()))

    # -- news -----------------------------------------------------------------------------------------------------------------

    def heard(self, news: Instance, *, stored: bool) -> None:
        throttler = self.throttler(news.revision_key)
        self.loans.met(throttler, news, self._clock.now())
        self._changed(throttler, throttler.heard(news, self._clock.now(), stored=stored))
        if throttler.restless:
            self._stir(throttler)

    def forgotten(self, revision: RevisionKey, instance: str) -> None:
        throttler = self.throttlers.get(revision)
        if throttler is not None:
            self._changed(throttler, throttler.forgotten(instance, self._clock.now()))

    def withdrawn(self, revision: RevisionKey, instance: str) -> None:
        """The instance is to be no more: whatever is said of it."""
        throttler = self.throttlers.get(revision)
        if throttler is not None:
            self._changed(throttler, throttler.withdrawn(instance, self._clock.now()))

    def refused(self, refusal: Refusal) -> None:
        throttler = self.throttlers.get(refusal.revision)
        if throttler is not None:
            self._perform(throttler, throttler.refused(refusal, self._clock.now()))

    # -- time -----------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick while something waits; report every second. Never returns."""
        while True:
            now = self._clock.now()
            self.turn(now)
            if self._restless or self.loans.restless:
                await asyncio.sleep(TICK_S)
            else:
                self._stirred.clear()
                try:
                    await asyncio.wait_for(self._stirred.wait(), self._report_at - now)
                except TimeoutError:
                    pass

    def turn(self, now: float) -> None:
        """What is due at `now`."""
        if now >= self._report_at:
            self._report(self.throttlers.values())
            self._sweep()
            self._report_at = now + INTERVAL_S
        self.loans.tick(now)
        for throttler in list(self._restless):
            self._perform(throttler, throttler.tick(now))
            if not throttler.restless:
                self._restless.discard(throttler)

    def stir(self) -> None:
        """Something else than a request made time matter."""
        self._stirred.set()

    def _stir(self, throttler: Throttler[Request]) -> None:
        self._restless.add(throttler)
        self._stirred.set()

    def _report(self, throttlers: Iterable[Throttler[Request]], interval_s: float = INTERVAL_S) -> None:
        now, wall = self._clock.now(), self._clock.wall()
        made = report(throttlers, sender=self._member, now=now, wall=wall, interval_s=interval_s)
        if made is not None:
            self._bus.publish(messages.SAMPLES, encode(made))

    def _sweep(self) -> None:
        """Forget throttlers of revisions with nothing left; a request or an instance makes them again."""
        for throttler in list(self.throttlers.values()):
            if not throttler.ruled:
                self.loans.beat(throttler)
        for revision in [key for key, each in self.throttlers.items() if each.idle and each.quiet]:
            del self.throttlers[revision]
            self.loans.forgotten(revision)

    def _changed(self, throttler: Throttler[Request], effects: Sequence[Effect[Request]]) -> None:
        """Other instances than before: what a borrower does not need any more goes back to its owner."""
        self._perform(throttler, effects)
        if not throttler.ruled:
            self.loans.borrowing.give_back(throttler)

    # -- effects --------------------------------------------------------------------------------------------------------------

    def _perform(self, throttler: Throttler[Request], effects: Sequence[Effect[Request]]) -> None:
        for effect in effects:
            if isinstance(effect, Dispatch):
                effect.request.dispatched(effect.target, effect.waited_s)
            elif isinstance(effect, Refuse):
                effect.request.refused(effect.reason, effect.message, effect.retry_after_s)
            elif isinstance(effect, WakeUp):
                self._wake(throttler.revision, effect)
            elif isinstance(effect, Swelling):
                self._report([throttler], self._clock.now() - throttler.load.since)
            elif isinstance(effect, DrainedNow):
                news = Drained(instance=effect.instance, sender=self._member, seq=effect.seq)
                self._bus.publish(messages.drained(effect.node), encode(news))
            elif isinstance(effect, Spare):
                self.loans.borrowing.spare(throttler, effect)
        if not throttler.ruled:
            self.loans.borrowing.performed(throttler)

    def _wake(self, revision: RevisionKey, effect: WakeUp) -> None:
        wake = Wake(
            revision=revision, waiting=effect.waiting, sender=self._member, cause_id=effect.cause_id, at=self._clock.wall()
        )
        self.wakes_sent += 1
        if self._bus.connected:
            self._bus.publish(messages.WAKE, encode(wake))
        if (effect.unheard or not self._bus.connected) and revision not in self._storing:
            task = asyncio.get_running_loop().create_task(self._store_wake(wake))
            self._storing[revision] = task
            task.add_done_callback(lambda _: self._storing.pop(revision, None))
        self._tell("wake sent", cause_id=effect.cause_id, revision=revision, waiting=effect.waiting)

    async def _store_wake(self, wake: Wake) -> None:
        try:
            await self._wake_in_store(wake)
        except Exception as error:
            log.warning("wake not stored", revision=wake.revision, error=str(error), cause_id=wake.cause_id)
