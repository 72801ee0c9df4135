"""Most of the active revisions need at a tick what they needed at the last one. This says so for a tenth of a decision's cost.

A decision that changed nothing leaves a `Steady`: what it was and the bounds of load within which `policy.decide` would decide
the same again, as long as nothing else changed. Whoever hears of anything else forgets it. Pure.
"""

import math
from typing import NamedTuple

from autoscaler.idle import Reach
from autoscaler.keepalive import SHORTEST_S
from autoscaler.policy import Decision, Memory, Mode, Standing, target_of
from autoscaler.signals import Signal
from autoscaler.utilization import METRICS
from autoscaler.window import panic_length_s
from store.model import Revision


class Steady(NamedTuple):
    """Bounds of the windows' averages: above `more_than`, up to `at_most`, and the panic window between its two."""

    more_than: float
    at_most: float
    panic_below: float
    panic_above: float = -1.0

    def holds(self, stable: float | None, panic: float | None) -> bool:
        """Whether the decision would be the same with these averages."""
        if stable is None or panic is None:
            return False
        return self.more_than < stable <= self.at_most and self.panic_above < panic < self.panic_below


QUIET = Steady(-1.0, 0.0, 1e-6)
"""No load in any window."""


def found(revision: Revision, decision: Decision, standing: Standing, mode: Mode) -> Steady | None:
    """The bounds of `decision`, or None when more than the averages bears on it.

    Where idle times are followed (`mode.keep`), they bear on it once the panic window is empty.
    Only what runs, has all it asked for, is routed and verified, and neither panics nor remembers is steady. The bounds are a hair
    narrower than the policy's, so that rounding never makes them differ.
    """
    wish, spec = decision.desired, revision.scale
    if (
        not wish
        or standing.starting
        or standing.ready != wish
        or decision.memory.panic_at is not None
        or decision.memory.wishes
    ):
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
    return Steady(
        (wish - 1) * target * (1 + _HAIR),
        wish * target * (1 - _HAIR),
        (panics_at - 1) * target * (1 - _HAIR),
        -1.0 if mode.keep is None else 0.0,
    )


def resting(revision: Revision, decision: Decision, signal: Signal, standing: Standing, mode: Mode) -> float:
    """For how long, in seconds, only load can change `decision` on what is idle and kept warm; 0: something else can."""
    keep = mode.keep
    if (
        keep is None
        or mode.freeze_after_s < math.inf
        or signal.load
        or signal.unreported
        or signal.stable
        or signal.panic
        or standing.starting
    ):
        return 0.0
    if decision.desired != standing.ready or decision.memory != Memory() or not mode.tick or not mode.settled or mode.blind:
        return 0.0
    if mode.idle_s < SHORTEST_S or mode.waking or not mode.verified or mode.reach is not Reach.ROUTED:
        return 0.0
    retention_s = revision.scale.retention_s
    ends_s = keep.ends_s(mode.idle_s)
    return max(0.0, (min(ends_s, retention_s) if mode.idle_s < retention_s else ends_s) - mode.idle_s)


_HAIR = 1e-9
