"""How many instances a revision needs: Knative's autoscaler (KPA) as a pure function, with its names and defaults.

Units: load is requests (concurrency) or requests per second (rps); counts are instances; times are seconds of `now`'s clock.

    target = max(0.01, total × utilization); total = containerConcurrency or 100 (concurrency), 200 (rps), or the annotation
    stable_need = ⌈stable / target⌉, panic_need = ⌈panic / target⌉, each within [⌊ready / down rate⌋, ⌈ready × up rate⌉]
    panic while panic_need / r ≥ threshold, and for one stable window after; in panic never down
    unreachable: only what is in flight and queued now counts, no bound from below

Differences from Knative, on purpose:
* `r` is ready **and starting**: what is already on its way is not asked for again. While instances start, and between ticks, more
  are asked only when the load exceeds what ready and starting ones hold at their full `total` (not only their target).
* It never goes below what is in flight and queued at this instant.
* A wake does not wait for a tick: it asks at once for what holds the waiting requests at full `total`, so that nothing but they
  competes for the start; the headroom of the target follows at the tick. Between ticks it only goes up.
* A line that swells while something serves is answered like a wake: at once, by what holds all of it at full `total`.
"""

import math
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from autoscaler import utilization
from autoscaler.idle import Idleness, Reach, may_leave
from autoscaler.keepalive import SHORTEST_S, Keep
from autoscaler.schedule import NEVER, Least
from autoscaler.signals import Signal
from store.model import Revision, ScaleSpec

CONCURRENCY_TOTAL = 100.0
RPS_TOTAL = 200.0
MIN_TARGET = 0.01


_WINDOW = "{:g} ÷ {:g} → {}, within {}…{}"


class Step(NamedTuple):
    """One step of a decision: after `rule` the wish is `value`, because `why`. Put into words only when somebody reads it."""

    rule: str
    value: float
    form: str
    facts: tuple[object, ...] = ()

    @property
    def why(self) -> str:
        return self.form.format(*self.facts) if self.facts else self.form


class Target(Struct, frozen=True):
    """Per instance: `total` is what it can hold, `target` what it shall."""

    total: float
    target: float


class Standing(Struct, frozen=True):
    """Instances of the revision that shall run, now."""

    ready: int = 0
    starting: int = 0

    @property
    def asked(self) -> int:
        return self.ready + self.starting


class Mode(Struct, frozen=True):
    """What else bears on a decision."""

    reach: Reach = Reach.ROUTED
    verified: bool = True
    waking: int = 0
    """Requests that wait with nothing to run them."""
    tick: bool = True
    """False between ticks: only up."""
    settled: bool = True
    """False for one stable window after this autoscaler took over: never down."""
    blind: str = ""
    """Why samples may be missing (`NATS is away`): never down; empty when they are not."""
    idle_s: float = math.inf
    active_s: float = math.inf
    grace_s: float = 0
    keep: Keep | None = None
    """What was learned of when it is needed, for revisions that ask for it; None: Knative's windows alone."""
    bend: float = 0.0
    """The concurrency at which its latency bends: what an instance can hold, when it says nothing itself; 0: not known or used."""
    freeze_after_s: float = math.inf
    """Idle for so long, the last instance is frozen; infinity: the windows alone say when it goes."""
    freezes: str = ""
    """Why its last instance is frozen when its habits let it go; empty: it is not."""
    scheduled: Least = NEVER
    """What its schedules ask for now."""
    gave_up: bool = False
    """Its progress deadline passed without it ever having been ready."""


class Memory(Struct, frozen=True):
    """What one decision leaves to the next."""

    panic_at: float | None = None
    panic_peak: int = 0
    wishes: tuple[tuple[float, int], ...] = ()
    """(when, wish) of the last `scale_down_delay_s`, decreasing."""


class Decision(Struct, frozen=True):
    desired: int
    reason: str
    """InitialScale, Waking, Traffic, NoTraffic, MinScale, Schedule, Unreachable or TimedOut."""
    steps: tuple[Step, ...]
    memory: Memory
    excess_burst_capacity: float = 0.0
    """Headroom left after `target_burst_capacity`; negative: less than asked."""


def takeover(ready: int, now: float) -> Memory:
    """The memory of a new scaler: one that finds more than one instance ready starts in panic, and so holds them."""
    return Memory(panic_at=now, panic_peak=ready) if ready > 1 else Memory()


def target_of(spec: ScaleSpec, container_concurrency: int, bend: float = 0.0) -> Target:
    """What one instance can and shall hold. `bend` is taken for the usual 100."""
    if spec.metric in utilization.METRICS:
        total = float(container_concurrency) or CONCURRENCY_TOTAL
    elif spec.metric == "rps":
        total = spec.target or RPS_TOTAL
    else:
        total = spec.target or float(container_concurrency) or bend or CONCURRENCY_TOTAL
        if spec.target and container_concurrency:
            total = min(spec.target, float(container_concurrency))
    return Target(total, max(MIN_TARGET, total * spec.target_utilization))


def decide(revision: Revision, signal: Signal, standing: Standing, mode: Mode, memory: Memory, now: float) -> Decision:
    """The number of instances `revision` shall have, with the steps that led there."""
    spec = revision.scale
    steps: list[Step] = []
    per = target_of(spec, revision.container_concurrency, mode.bend)
    if mode.bend:
        steps.append(Step("latency bends", standing.asked, "at {:g} calls in an instance: its target", (mode.bend,)))
    if mode.waking and not mode.tick:
        wish = _wake(revision, signal, standing, mode, steps)
    elif mode.reach is Reach.UNROUTED:
        wish = math.ceil(signal.load / per.total)
        steps.append(Step("no route", wish, "{} requests in flight or queued, and no more will come", (signal.load,)))
    elif spec.metric in utilization.METRICS:
        wish, memory = _use(revision, signal, standing, mode, memory, now, steps)
    elif signal.stable is None or signal.panic is None:
        wish = standing.asked if mode.idle_s < spec.stable_window_s else 0
        steps.append(Step("no data", wish, "nothing was heard of it yet" if wish else "nothing was heard of it for a window"))
    else:
        wish, memory = _follow(spec, signal, standing, mode, memory, per, now, steps)
    if signal.swelling and not mode.tick and mode.reach is not Reach.UNROUTED:
        wish = _swell(revision, signal, standing, wish, steps)
    wish = _hold(spec, signal, standing, mode, per, wish, steps)
    if mode.waking and wish < max(1, spec.activation_scale):
        wish = max(1, spec.activation_scale)
        steps.append(Step("wake", wish, f"{mode.waking} requests wait: at least one, or the activation scale"))
    reason = "Waking" if mode.waking else "Traffic"
    rest = mode.tick or not standing.asked  # Between ticks what went stays away, and nothing else goes.
    if mode.keep is not None and rest and _quiet(spec, signal, mode):
        # One is enough to meet the next call; what else the windows would still hold goes, and with it the panic it was for.
        warm = mode.keep.warm(mode.idle_s) or mode.idle_s < spec.retention_s
        if warm and mode.idle_s < mode.keep.others_s:
            wish = max(1, wish)
        else:
            wish = min(max(1, wish), max(1, spec.activation_scale)) if warm else 0
            memory = replace(memory, panic_at=None, panic_peak=0) if memory.panic_at is not None else memory
        steps.append(Step("learned", wish, "idle for {:.0f} s: {}", (mode.idle_s, mode.keep.why)))
        if mode.freezes and not wish:
            steps.append(Step("freeze", wish, mode.freezes))
    elif mode.idle_s >= mode.freeze_after_s and rest and standing.asked <= 1 and _quiet(spec, signal, mode):
        wish = 0
        steps.append(Step("freeze", wish, "idle for {:.0f} s: frozen, and back within milliseconds", (mode.idle_s,)))
    elif wish == 0 and standing.asked:
        leave, why = may_leave(spec, mode.reach, Idleness(mode.idle_s, mode.active_s, signal.load, mode.grace_s))
        wish = 0 if leave else 1
        steps.append(Step("to zero" if leave else "last one stays", wish, why))
    elif wish == 0 and not spec.scale_to_zero and mode.reach is Reach.ROUTED:
        wish = 1
        steps.append(Step("at least", wish, "scale to zero is off"))
    if wish == 0:
        reason = "Unreachable" if mode.reach is Reach.UNROUTED else "NoTraffic"
    wish, reason = _bound(spec, mode, wish, reason, steps)
    headroom = _headroom(spec, signal, standing, per)
    return Decision(wish, reason, tuple(steps), memory, headroom)


def _wake(revision: Revision, signal: Signal, standing: Standing, mode: Mode, steps: list[Step]) -> int:
    """What holds all that waits, and no less than is on its way."""
    waiting, each = max(mode.waking, signal.load), revision.container_concurrency or CONCURRENCY_TOTAL
    highest = math.ceil(revision.scale.max_scale_up_rate * max(1, standing.ready))
    wish = max(standing.asked, min(math.ceil(waiting / each), highest))
    steps.append(
        Step("wake", wish, f"{waiting} requests wait and nothing runs; {each:g} fit in one, {standing.starting} are starting")
    )
    return wish


def _swell(revision: Revision, signal: Signal, standing: Standing, wish: int, steps: list[Step]) -> int:
    """What holds all that is in flight and waits; without the headroom, which follows at the tick."""
    each = revision.container_concurrency or CONCURRENCY_TOTAL
    enough = min(math.ceil(signal.load / each), math.ceil(revision.scale.max_scale_up_rate * max(1, standing.ready)))
    if enough > max(wish, standing.asked):
        steps.append(
            Step("swelling", enough, "{} are in flight or wait, and the line grows; {:g} fit in one", (signal.load, each))
        )
        return enough
    return wish


def _follow(
    spec: ScaleSpec, signal: Signal, standing: Standing, mode: Mode, memory: Memory, per: Target, now: float, steps: list[Step]
) -> tuple[int, Memory]:
    """The windows' wish: stable and panic need, rate limits, panic, scale-down delay."""
    assert signal.stable is not None
    assert signal.panic is not None
    ready = max(1, standing.ready)
    stable_need = math.ceil(signal.stable / per.target)
    panic_need = math.ceil(signal.panic / per.target)
    highest = math.ceil(spec.max_scale_up_rate * ready)
    lowest = math.floor(standing.ready / spec.max_scale_down_rate)
    stable = min(max(stable_need, lowest), highest)
    panic = min(max(panic_need, lowest), highest)
    steps.append(Step("stable", stable, _WINDOW, (signal.stable, per.target, stable_need, lowest, highest)))
    steps.append(Step("panic window", panic, _WINDOW, (signal.panic, per.target, panic_need, lowest, highest)))
    if spec.activation_scale > 1:
        stable = max(stable, spec.activation_scale) if stable_need > 0 else stable
        panic = max(panic, spec.activation_scale) if panic_need > 0 else panic
        steps.append(Step("activation scale", stable, f"at least {spec.activation_scale} when any"))
    over = panic_need / max(1, standing.asked) >= spec.panic_threshold_percentage / 100
    wish, memory = _panic(spec, over, stable, panic, memory, now, steps)
    if (standing.starting or not mode.tick) and wish > standing.asked:
        wish = _subtract_starting(spec, standing, signal, per, wish, steps)
        memory = replace(memory, panic_peak=min(memory.panic_peak, wish)) if memory.panic_at is not None else memory
    return _delay(wish, spec.scale_down_delay_s, memory, now, steps)


def _delay(wish: int, delay_s: float, memory: Memory, now: float, steps: list[Step]) -> tuple[int, Memory]:
    """The most that was wished in the last `delay_s`."""
    if delay_s <= 0:
        return wish, memory
    recent = [(at, n) for at, n in memory.wishes if n > wish and now - at < delay_s]
    wishes = (*recent, (now, wish))
    if wishes[0][1] > wish:
        wish = wishes[0][1]
        steps.append(Step("scale-down delay", wish, f"the most of the last {delay_s:g} s"))
    return wish, replace(memory, wishes=wishes)


def _use(
    revision: Revision, signal: Signal, standing: Standing, mode: Mode, memory: Memory, now: float, steps: list[Step]
) -> tuple[int, Memory]:
    """What cpu or memory asks for; zero when it may and nothing came for a window."""
    spec = revision.scale
    if spec.scale_to_zero and not signal.load and mode.idle_s >= spec.stable_window_s:
        steps.append(Step(spec.metric, 0, "nothing came for a window"))
        return 0, replace(memory, wishes=())
    found = utilization.need(revision, signal.used, standing.ready)
    wish, why = found if found is not None else (max(1, standing.asked), "not told by its nodes yet")
    steps.append(Step(spec.metric, wish, why))
    return _delay(wish, spec.scale_down_delay_s or utilization.STABILIZED_S, memory, now, steps)


def _panic(
    spec: ScaleSpec, over: bool, stable: int, panic: int, memory: Memory, now: float, steps: list[Step]
) -> tuple[int, Memory]:
    if over:
        memory = replace(memory, panic_at=now)
    elif memory.panic_at is not None and memory.panic_at + spec.stable_window_s < now:
        memory = replace(memory, panic_at=None, panic_peak=0)
        steps.append(Step("calm", stable, "a stable window without panic"))
    if memory.panic_at is None:
        return stable, memory
    peak = max(memory.panic_peak, stable, panic)
    steps.append(Step("panic", peak, "for {:.0f} s; never down in panic", (now - memory.panic_at,)))
    return peak, replace(memory, panic_peak=peak)


def _subtract_starting(spec: ScaleSpec, standing: Standing, signal: Signal, per: Target, wish: int, steps: list[Step]) -> int:
    """While instances start, and between ticks, more are asked only for load that ready and starting ones cannot hold."""
    assert signal.stable is not None
    assert signal.panic is not None
    load = max(signal.stable, signal.panic)
    room = standing.asked * per.total
    if load > room:
        return wish
    enough = min(wish, max(standing.asked, spec.activation_scale if load > 0 else 0))
    steps.append(
        Step("enough coming", enough, f"{standing.ready} ready and {standing.starting} starting hold {room:g} ≥ {load:g}")
    )
    return enough


def _hold(spec: ScaleSpec, signal: Signal, standing: Standing, mode: Mode, per: Target, wish: int, steps: list[Step]) -> int:
    """What forbids to go down now."""
    if wish >= standing.asked:
        return wish
    held, why = wish, ""
    if not mode.tick and mode.reach is not Reach.UNROUTED:
        held, why = standing.asked, "down only at a tick"
    elif mode.blind:
        held, why = standing.asked, mode.blind
    elif signal.unreported:
        held, why = standing.asked, "a sender with requests in flight fell silent"
    elif not mode.settled and mode.reach is not Reach.UNROUTED:
        held, why = standing.asked, "this autoscaler has not watched for one stable window yet"
    elif spec.metric != "rps" and signal.load:
        held, why = min(standing.asked, math.ceil(signal.load / per.total)), f"{signal.load} requests in flight or queued now"
    if held > wish:
        steps.append(Step("hold", held, why))
        return held
    return wish


def _bound(spec: ScaleSpec, mode: Mode, wish: int, reason: str, steps: list[Step]) -> tuple[int, str]:
    """`min_scale`, schedules, `initial_scale` until verified, `max_scale`, which always wins."""
    least = spec.min_scale if mode.reach is not Reach.UNROUTED else 0
    why = "MinScale"
    if mode.gave_up and not mode.verified and not mode.waking:
        steps.append(Step("gave up", 0, "not ready before its progress deadline"))
        return 0, "TimedOut"
    if mode.reach is Reach.ROUTED and mode.scheduled.instances > least:
        least, why = mode.scheduled.instances, "Schedule"
    if not mode.verified and mode.reach is not Reach.UNROUTED and spec.initial_scale > least:
        least, why = spec.initial_scale, "InitialScale"
    if wish < least:
        wish, reason = least, why
        steps.append(Step("at least", wish, mode.scheduled.why if why == "Schedule" else why))
    if spec.max_scale and wish > spec.max_scale:
        wish = spec.max_scale
        steps.append(Step("at most", wish, "max-scale"))
    return wish, reason


def _quiet(spec: ScaleSpec, signal: Signal, mode: Mode) -> bool:
    """Whether how long it has been idle may decide: nothing is there, waits or may have been missed."""
    if signal.load or mode.waking or not mode.settled or mode.blind or signal.unreported or not mode.verified:
        return False
    allowed = spec.scale_to_zero and not spec.scale_down_delay_s and mode.reach is Reach.ROUTED
    return allowed and SHORTEST_S <= mode.idle_s < math.inf


def _headroom(spec: ScaleSpec, signal: Signal, standing: Standing, per: Target) -> float:
    if spec.target_burst_capacity == 0:
        return 0.0
    if spec.target_burst_capacity < 0:
        return -1.0
    return float(math.floor(standing.ready * per.total - spec.target_burst_capacity - (signal.panic or 0.0)))
