"""Admission to one revision: events in, effects out. No clock, no random, no I/O.

    reserve ── room and nobody waits ──▶ a Target, at once
    arrive  ── else ──▶ in line ──▶ Dispatch, when release / Ready / a higher limit makes room
                               └──▶ Refuse, on its deadline, a full line, or when nothing can be started

A reservation is a count that `release` gives back: in flight at one instance never exceeds its limit, and who came first
is served first. With somebody waiting and nothing that serves, a Wake goes out, and again every `WAKE_AGAIN_S`; sooner, when
more wait by then than were told of and than fit into what is on its way. When something serves and the line will still be
there in a second (`swelling`), that is reported at once.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

from activator import ejection
from activator.balance import NO_LIMIT, Balance, State, Target
from activator.breaker import QUEUE_BOUND, Line, Waiter
from activator.concurrency import Concurrency
from activator.effects import NOTHING, Dispatch, DrainedNow, Effect, Refuse, Spare, Swelling, WakeUp
from activator.slowstart import ramp, ramping
from store.lifecycle import Phase
from store.messages import Refusal
from store.model import Instance, RevisionKey

R = TypeVar("R")

WAKE_AGAIN_S = 0.25
COMING_AGAIN_S = 1.0
"""So late again, when an instance is known to come: each wake is decided on anew, which many who wait for a busy node would pay for."""
WAKE_MORE_S = 0.05
"""So soon again, when the line has outgrown what the last wake asked for."""
SWELLS_AFTER_S = 0.1
"""How long a line must have stood to tell how fast it is served."""
LASTS_S = 1.0
"""A line that is served within that time needs no more instances: it is gone by the next sample."""
WAKES_UNHEARD = 4
"""After so many wakes without any sign of an instance the bus is doubted, though it says it is there (a server that froze)."""
COMING = frozenset({Phase.PENDING, Phase.PULLING, Phase.STARTING})
LEAVING = frozenset({Phase.DRAINING, Phase.FROZEN})
"""Gets nothing new, and its node waits to hear when nothing is in flight there. A frozen one may be Ready again."""
OVER = frozenset({Phase.STOPPED, Phase.FAILED})


class Throttler(Generic[R]):
    """One revision at one admitter. Times are monotonic seconds."""

    __slots__ = (
        "_held", "_line_at", "_served", "_told", "_wakes", "_woken_at", "balance", "coming", "foreign", "in_flight",
        "limit", "line", "load", "quiet", "recalled", "revision", "ruled", "targets",
    )  # fmt: skip

    def __init__(self, revision: RevisionKey, limit: int = 0, *, bound: int = QUEUE_BOUND, now: float = 0.0) -> None:
        self.revision = revision
        self.limit = limit
        self.targets: dict[str, Target] = {}
        self.coming: dict[str, int] = {}
        """Instances on their way to Ready, by name, with the seq that said so."""
        self.balance = Balance()
        self.line: Line[R] = Line(bound)
        self.load = Concurrency(now)
        self.in_flight = 0
        self.quiet = True
        """Its last report said zero: the next request is news."""
        self.ruled = True
        """The slots are this worker's to give out. Else a target's `limit` is what was lent to us: see `shares`."""
        self.recalled = False
        """What was lent to us goes back as soon as it is free."""
        self.foreign = 0
        """How many in line are foreign."""
        self._woken_at: float | None = None
        self._told = 0
        """How many waited when the autoscaler was last told out of turn, of this line."""
        self._line_at = now
        """When this line began; `_served` were given a slot from it since."""
        self._served = 0
        self._wakes = 0
        self._held: Refusal | None = None
        """A refusal that did not count because something was on its way."""

    # -- requests -------------------------------------------------------------------------------------------------------------

    def reserve(self, now: float, chance: float = 0.0) -> Target | None:
        """A slot at once, when there is room and nobody waits; None: `arrive`."""
        if self.line.waiting:
            return None
        target = self.balance.choose(chance)
        if target is None:
            return None
        target.in_flight += 1
        self.in_flight += 1
        if target.in_flight >= target.most:
            self.balance.settle(target)
        self.load.enter(now)
        return target

    def take(self, name: str, now: float) -> Target | None:
        """A slot at the instance called `name`, if it has room now."""
        target = self.targets.get(name)
        if target is None or target.place < 0:
            return None
        target.in_flight += 1
        self.in_flight += 1
        self.balance.settle(target)
        self.load.enter(now)
        return target

    def arrive(
        self, request: R, now: float, deadline: float, cause_id: str = "", *, first: bool = False
    ) -> tuple[Waiter[R] | None, Sequence[Effect[R]]]:
        """Stand in line (`first`: again, at its head), or be refused when it is full. The Waiter is what `leave` takes."""
        waiter = Waiter(request, now, deadline, cause_id)
        if not self.line.waiting:
            self._line_at, self._served, self._told = now, 0, 0
        if first:
            self.line.join_first(waiter)
        elif (own := self.line.waiting - self.foreign) >= self.line.bound:
            # Those that only have a place kept here are bounded where they are: they take no place from ours.
            return None, (Refuse(request, "queue-full", f"{own} requests wait; the limit is {self.line.bound}", 1),)
        else:
            self.line.join(waiter)
        self.load.enter(now)
        return waiter, self._wake_if_needed(now)

    def stand_in(self, request: R, since: float, deadline: float, now: float) -> tuple[Waiter[R], Sequence[Effect[R]]]:
        """Keep a place for a request that waits at another worker since `since`."""
        if not self.line.waiting:
            self._line_at, self._served, self._told = now, 0, 0
        waiter = Waiter(request, since, deadline, foreign=True)
        self.line.join_by_age(waiter)
        self.foreign += 1
        return waiter, self.dispatch(now)

    def leave(self, waiter: Waiter[R], now: float) -> bool:
        """The client went away or the time is over; False when it was dispatched or refused before."""
        if not self.line.leave(waiter):
            return False
        if waiter.foreign:
            self.foreign -= 1
        else:
            self.load.leave(now)
        if not self.line.waiting:
            self._woken_at = None
        return True

    def release(self, target: Target, now: float) -> Sequence[Effect[R]]:
        """A request that had a slot at `target` is over."""
        assert target.in_flight > 0, f"{target}: released more than reserved"
        target.in_flight -= 1
        self.in_flight -= 1
        self.load.leave(now)
        if target.place < 0 or self.line.waiting:
            return self.freed(target, now)
        return NOTHING

    def freed(self, target: Target, now: float) -> Sequence[Effect[R]]:
        """`target` has one request less: for who is next, or back to where the slot comes from."""
        if target.place < 0:
            if target.state is not State.SERVING:
                return self._out_of_use(target)
            if self.recalled:
                return self._give_back(target)
            self.balance.settle(target)
        return self.dispatch(now)

    # -- what is heard of instances -------------------------------------------------------------------------------------------

    def heard(self, news: Instance, now: float, *, stored: bool = False) -> Sequence[Effect[R]]:
        """The status of one instance, from the bus or (`stored`) from etcd. What is older than what is known is ignored."""
        name = news.instance
        target = self.targets.get(name)
        known = target.seq if target is not None else self.coming.get(name, -1)
        if news.seq < known and not (stored and target is not None and target.unconfirmed):
            return NOTHING
        if news.phase is Phase.READY:
            return self._ready(news, target, stored, now)
        self.coming.pop(name, None)
        if news.phase in COMING:
            self.coming[name] = news.seq
        if news.phase in LEAVING:
            return [*self._leaving(news, target), *self._ramp(now), *self._wake_if_needed(now)]
        if target is not None:
            self._take_out(target, State.GONE if news.phase in OVER else State.PAUSED, news.seq)
        return [*self._refuse_if_held(now), *self._ramp(now), *self._wake_if_needed(now)]

    def forgotten(self, name: str, now: float) -> Sequence[Effect[R]]:
        """The key of an instance vanished. One that served goes on serving, unconfirmed: its node may only be cut off."""
        self.coming.pop(name, None)
        target = self.targets.get(name)
        if target is not None:
            if target.state is State.SERVING:
                target.unconfirmed = True
            elif target.vacant(self.ruled):
                del self.targets[name]
            elif target.state is State.PAUSED:
                target.state = State.GONE
        return [*self._refuse_if_held(now), *self._wake_if_needed(now)]

    def withdrawn(self, name: str, now: float) -> Sequence[Effect[R]]:
        """The instance is to be no more: it gets nothing new, whatever is said of it."""
        if (target := self.targets.get(name)) is not None:
            self._take_out(target, State.GONE, target.seq)
        return self.forgotten(name, now)

    def limited(self, limit: int, now: float) -> Sequence[Effect[R]]:
        """`container_concurrency` is `limit` from now on."""
        if limit == self.limit:
            return NOTHING
        self.limit = limit
        if self.ruled:
            for target in self.targets.values():
                target.limit, target.cap = limit or NO_LIMIT, NO_LIMIT
                self.balance.reckon(target)
        return self._ramp(now) or self.dispatch(now)

    def unreachable(self, target: Target, now: float) -> Sequence[Effect[R]]:
        """`target` could not be connected to: out for a moment, longer each time; for good when it was unconfirmed."""
        if target.state is not State.SERVING:
            return NOTHING
        if target.unconfirmed or not target.stored:
            self._take_out(target, State.GONE, target.seq)
        else:
            ejection.not_connected(target, now)
            self.balance.reckon(target)
        return [*self._ramp(now), *self._wake_if_needed(now)]

    def unanswered(self, target: Target, now: float, *, silent: bool = False) -> Sequence[Effect[R]]:
        """A request at `target` ended without an answer; `silent`: it has not ended, and the others' do."""
        if target.state is not State.SERVING or not ejection.not_answered(target, self.targets.values(), now, silent=silent):
            return NOTHING
        self.balance.reckon(target)
        return [*self._ramp(now), *self._wake_if_needed(now)]

    def reached(self, target: Target, now: float) -> Sequence[Effect[R]]:
        """`target` was connected to after having failed: it takes its full share again, unless answers are what it owes."""
        ejection.connected(target)
        return self._fit_again(target, now)

    def answered(self, target: Target, now: float) -> Sequence[Effect[R]]:
        """`target` answered after having failed to: it takes its full share again."""
        ejection.cleared(target)
        return self._fit_again(target, now)

    def refused(self, refusal: Refusal, now: float) -> Sequence[Effect[R]]:
        """Nothing can be started now: whoever waits need not, unless something serves or is on its way."""
        if self.coming or self.serving:
            self._held = refusal
            return NOTHING
        self._woken_at = self._held = None
        message = f"{refusal.reason}: {refusal.message}" if refusal.message else refusal.reason
        everybody = self.line.empty()
        for _ in everybody:
            self.load.leave(now)
        return [Refuse(each.request, "cannot-start", message, refusal.retry_after_s) for each in everybody]

    def tick(self, now: float) -> Sequence[Effect[R]]:
        """Time passed: deadlines, wakes again, ejected instances back. Call every 50 ms while `restless`."""
        effects: list[Effect[R]] = []
        while (first := self.line.first()) is not None and first.deadline <= now:
            self.line.pop()
            if first.foreign:
                self.foreign -= 1
                continue
            self.load.leave(now)
            waited = now - first.since
            effects.append(Refuse(first.request, "timeout", f"waited {waited:.1f} s for an instance of {self.revision}"))
        for target in self.targets.values():
            if ejection.over(target, now):
                self.balance.reckon(target)
        effects += self._ramp(now) or self.dispatch(now)
        effects += self._wake_if_needed(now)
        if self.line.waiting > self._told and self.swelling(now):
            self._told = 2 * self.line.waiting
            effects.append(Swelling())
        return effects

    def swelling(self, now: float) -> bool:
        """Whether what waits will, at the pace of this line so far, still wait in `LASTS_S`, and does not fit into what comes."""
        waiting, stood = self.line.waiting, now - self._line_at
        if not waiting or stood < SWELLS_AFTER_S or waiting <= len(self.coming) * self.limit or not self.serving:
            return False
        return waiting * stood > LASTS_S * self._served

    @property
    def restless(self) -> bool:
        """Whether `tick` has something to do."""
        targets = self.targets.values()
        return bool(self.line.waiting) or any(target.ejected_until for target in targets) or ramping(targets)

    @property
    def serving(self) -> bool:
        """Whether some instance is Ready and not ejected, with room or without."""
        return any(target.state is State.SERVING and not target.ejected_until for target in self.targets.values())

    @property
    def idle(self) -> bool:
        """Nothing is known and nobody is here: the throttler may be forgotten."""
        return not (self.targets or self.coming or self.line.waiting or self.in_flight)

    # -- inside ---------------------------------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> Sequence[Effect[R]]:
        """Give every free slot to who is next. Few instances have room while somebody waits, so the least loaded is taken."""
        effects: list[Effect[R]] = []
        while self.line.waiting and (target := self.balance.choose(0.5)) is not None:
            waiter = self.line.pop()
            target.in_flight += 1
            if waiter.foreign:
                self.foreign -= 1
                target.lent += 1
            else:
                self.in_flight += 1
            self.balance.settle(target)
            effects.append(Dispatch(waiter.request, target, now - waiter.since))
        if effects:
            self._woken_at = None
            self._served += len(effects)
        return effects

    def _ramp(self, now: float) -> Sequence[Effect[R]]:
        """What new instances may have by now."""
        changed = ramp(self.targets.values(), now) if not self.limit else ()
        for target in changed:
            self.balance.reckon(target)
        return self.dispatch(now) if changed else NOTHING

    def _fit_again(self, target: Target, now: float) -> Sequence[Effect[R]]:
        self.balance.reckon(target)
        return self.dispatch(now)

    def _wake_if_needed(self, now: float) -> Sequence[Effect[R]]:
        if (self._woken_at is not None and not self._wake_is_due(now - self._woken_at)) or self.serving:
            return NOTHING
        first = next(self.line.own(), None)
        if first is None:
            return NOTHING
        self._wakes = 0 if self._woken_at is None else self._wakes + 1
        self._woken_at, self._told = now, self.line.waiting
        unheard = not self.coming and self._wakes % WAKES_UNHEARD == WAKES_UNHEARD - 1
        return (WakeUp(self.line.waiting - self.foreign, first.cause_id, unheard),)

    def _wake_is_due(self, since_s: float) -> bool:
        """Whether to wake again, `since_s` after the last time: the line has outgrown what was asked for, or it has been a while."""
        waiting = self.line.waiting
        outgrown = since_s >= WAKE_MORE_S and waiting > self._told and waiting > len(self.coming) * self.limit > 0
        return outgrown or since_s >= (COMING_AGAIN_S if self.coming else WAKE_AGAIN_S)

    def _refuse_if_held(self, now: float) -> Sequence[Effect[R]]:
        """What was on its way did not come: now the refusal counts."""
        if self._held is None or self.coming:
            return NOTHING
        return self.refused(self._held, now)

    def _ready(self, news: Instance, target: Target | None, stored: bool, now: float) -> Sequence[Effect[R]]:
        self.coming.pop(news.instance, None)
        self._held = None
        if target is None or target.address != news.address:
            if target is not None:
                self._take_out(target, State.GONE, news.seq)
            target = self.targets[news.instance] = Target(news.instance, news.node, news.address, self.limit, news.seq, now)
            if not self.ruled:
                target.limit = 0
        elif news.seq > target.seq or target.unconfirmed:
            target.state, target.unconfirmed = State.SERVING, False
            if news.seq > target.seq:
                ejection.cleared(target)
            target.seq = news.seq
        target.stored = target.stored or stored
        self.balance.reckon(target)
        return self._ramp(now) or self.dispatch(now)

    def _leaving(self, news: Instance, target: Target | None) -> Sequence[Effect[R]]:
        if target is None:
            return (DrainedNow(news.instance, news.node, news.seq),)
        self._take_out(target, State.DRAINING, news.seq)
        return self._out_of_use(target)

    def _take_out(self, target: Target, state: State, seq: int) -> None:
        target.seq = max(seq, target.seq)
        target.state = state
        target.unconfirmed = False
        self.balance.settle(target)
        if state is State.GONE and target.vacant(self.ruled) and self.targets.get(target.instance) is target:
            del self.targets[target.instance]

    def _out_of_use(self, target: Target) -> Sequence[Effect[R]]:
        """A request ended at an instance that gets nothing new."""
        spare = NOTHING if self.ruled else self._give_back(target)
        if target.in_flight:
            return spare
        if target.state is State.DRAINING:
            return [*spare, DrainedNow(target.instance, target.node, target.seq)]
        if target.state is State.GONE and self.targets.get(target.instance) is target:
            del self.targets[target.instance]
        return spare

    def _give_back(self, target: Target) -> Sequence[Effect[R]]:
        """What we have of `target` and do not use returns to its owner."""
        slots = self.balance.shrink(target)
        return (Spare(target.instance, slots),) if slots else NOTHING
