"""Most of the active revisions need at a tick what they needed at the last one. This says so for a tenth of a decision's cost.

A decision that changed nothing leaves a `Steady`: what it was and the bounds of load within which `policy.decide` would decide
the same again, as long as nothing else changed. Whoever hears of anything else forgets it. Pure.
"""

import math
from typing import NamedTuple

from autoscaler.idle import Reach
from autoscaler.policy import Decision, Mode, Standing, target_of
from store.model import Revision


class Steady(NamedTuple):
    """Bounds of the windows' averages: above `more_than`, up to `at_most`, and the panic window below `panic_below`."""

    more_than: float
    at_most: float
    panic_below: float

    def holds(self, stable: float | None, panic: float | None) -> bool:
        """Whether the decision would be the same with these averages."""
        return stable is not None and panic is not None and self.more_than < stable <= self.at_most and panic < self.panic_below


def found(revision: Revision, decision: Decision, standing: Standing, mode: Mode) -> Steady | None:
    """The bounds of `decision`, or None when more than the averages bears on it.

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
    if decision.reason != "Traffic" or mode.waking or not mode.verified or not mode.tick or mode.reach is not Reach.ROUTED:
        return None
    if mode.keep is not None or mode.freeze_after_s < math.inf or spec.scale_down_delay_s > 0 or wish < spec.activation_scale:
        return None
    target = target_of(spec, revision.container_concurrency).target
    panics_at = math.ceil(wish * spec.panic_threshold_percentage / 100 - 1e-9)
    return Steady((wish - 1) * target * (1 + _HAIR), wish * target * (1 - _HAIR), (panics_at - 1) * target * (1 - _HAIR))


_HAIR = 1e-9
