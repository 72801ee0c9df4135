"""Most of the active revisions need at a tick what they needed at the last one. This says so for a tenth of a decision's cost.

A decision that changed nothing leaves a `Steady`: what it was and the bounds of load within which `policy.decide` would decide
the same again, as long as nothing else changed. Whoever hears of anything else forgets it. Pure.
"""

import math
from typing import NamedTuple

from autoscaler.idle import Reach
from autoscaler.keepalive import SHORTEST_S, Keep
from autoscaler.policy import Decision, Memory, Mode, Standing, target_of
from autoscaler.signals import Signal
from autoscaler.utilization import METRICS
from autoscaler.window import panic_length_s
from store.model import Revision, ScaleSpec


class Steady(NamedTuple):
    """Bounds of the windows' averages: above `more_than`, up to `at_most`, and the panic window between its two."""

    more_than: float
    at_most: float
    panic_below: float
    panic_above: float = -1.0
    until: float = math.inf
    """On the clock of `now`: a panic ends of itself."""

    def holds(self, stable: float | None, panic: float | None) -> bool:
        """Whether the decision would be the same with these averages."""
        if stable is None or panic is None:
            return False
        return self.more_than < stable <= self.at_most and self.panic_above < panic < self.panic_below


def bounds(revision: Revision, decision: Decision, signal: Signal, standing: Standing, mode: Mode, now: float) -> Steady | None:
    """Within which load, and until when, `decision`, which changed nothing, would be made again; None: it has to be made at each tick."""
    steady = found(revision, decision, standing, mode)
    if steady is not None and steady.holds(signal.stable, signal.panic):
        return steady
    return resting(revision, decision, signal, standing, mode, now)


def found(revision: Revision, decision: Decision, standing: Standing, mode: Mode) -> Steady | None:
    """The bounds of `decision`, or None when more than the averages bears on it.

    Where idle times are followed (`mode.keep`), they bear on it once the panic window is empty.
    Only what runs, has all it asked for, is routed and verified, and remembers no wishes is steady. In panic nothing goes down: it holds
    until the panic is over, or would begin anew. The bounds are a hair narrower than the policy's, so that rounding never makes them
    differ.
    """
    wish, spec = decision.desired, revision.scale
    if not wish or standing.starting or standing.ready != wish or decision.memory.wishes:
        return None
    if (
        spec.metric in METRICS
        or decision.reason != "Traffic"
        or mode.waking
        or not mode.verified
        or not mode.tick
        or mode.reach is not Reach.ROUTED
    ):
        return None
    if mode.keep is not None and panic_length_s(spec.stable_window_s, spec.panic_window_percentage) > SHORTEST_S:
        return None
    if mode.freeze_after_s < math.inf or spec.scale_down_delay_s > 0 or wish < spec.activation_scale:
        return None
    target = target_of(spec, revision.container_concurrency, mode.bend).target
    panics_at = math.ceil(wish * spec.panic_threshold_percentage / 100 - 1e-9)
    panic_at = decision.memory.panic_at
    if panic_at is not None:
        most = wish * target * (1 - _HAIR)
        below = min(most, (panics_at - 1) * target * (1 - _HAIR))
        if decision.memory.panic_peak != wish:
            return None
        return Steady(-1.0, most, below, -1.0 if mode.keep is None else 0.0, panic_at + spec.stable_window_s)
    return Steady(
        (wish - 1) * target * (1 + _HAIR),
        wish * target * (1 - _HAIR),
        (panics_at - 1) * target * (1 - _HAIR),
        -1.0 if mode.keep is None else 0.0,
    )


def resting(
    revision: Revision, decision: Decision, signal: Signal, standing: Standing, mode: Mode, now: float
) -> Steady | None:
    """The bounds of `decision` on what is idle and kept, or let go, by its habits; None when more than load and time can change it.

    What is left in the stable window fades; the bounds are such that it asks for no more than stands.
    """
    keep, panic_at = mode.keep, decision.memory.panic_at
    if keep is None or not _idle(signal, standing, mode) or decision.desired != standing.ready or decision.memory.wishes:
        return None
    if decision.desired > 1 and (panic_at is None or decision.memory.panic_peak != decision.desired):
        return None
    until = now + _ends_s(keep, revision.scale, mode.idle_s) - mode.idle_s
    if panic_at is not None:
        until = min(until, panic_at + revision.scale.stable_window_s)
    target = target_of(revision.scale, revision.container_concurrency, mode.bend).target
    most = decision.desired * target * (1 - _HAIR) if decision.desired else math.inf
    return Steady(-1.0, most, 1e-6, until=until) if until > now else None


def kept(revision: Revision, before: Steady, keep: Keep, memory: Memory, idle_s: float, now: float) -> Steady | None:
    """The bounds that follow on `before` when the one instance of what was busy has become idle and its habits keep it: what `resting`
    would say after deciding the same again, without deciding. None: it has to be decided on.

    Nothing but time has passed since `before`; the panic window is empty, the stable window is not yet.
    """
    spec = revision.scale
    if idle_s < SHORTEST_S or memory != _NOTHING or spec.scale_down_delay_s or not spec.scale_to_zero:
        return None
    most = target_of(spec, revision.container_concurrency).target * (1 - _HAIR)
    if before.at_most != most or spec.activation_scale > 1 or spec.min_scale > 1:
        return None
    if not keep.warm(idle_s) and idle_s >= spec.retention_s:
        return None
    return Steady(-1.0, most, 1e-6, until=now + _ends_s(keep, spec, idle_s) - idle_s)


def _ends_s(keep: Keep, spec: ScaleSpec, idle_s: float) -> float:
    """The idle time up to which habits, and what it is to be kept in any case, say the same as at `idle_s`."""
    ends_s = keep.ends_s(idle_s)
    return min(ends_s, spec.retention_s) if idle_s < spec.retention_s else ends_s


def _idle(signal: Signal, standing: Standing, mode: Mode) -> bool:
    """Whether nothing is there, comes, starts or may have been missed."""
    if signal.load or signal.unreported or signal.stable is None or signal.panic or standing.starting:
        return False
    if mode.freeze_after_s < math.inf or not mode.tick or not mode.settled or mode.blind or mode.waking or not mode.verified:
        return False
    return mode.idle_s >= SHORTEST_S and mode.reach is Reach.ROUTED


_HAIR = 1e-9
_NOTHING = Memory()
