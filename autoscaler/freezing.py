"""Which revisions keep their last instance frozen when idle, instead of stopping it. Pure.

A frozen instance holds its memory and uses no CPU. It is for apps whose own boot is slow: waking one costs a write to the freezer's
file, whatever the app is.
"""

import math

from autoscaler.idle import Reach
from store.model import Revision

AFTER_S = 6.0
"""Idle for so long, the last instance is frozen: between two requests of one visit it runs on."""


def wanted(revision: Revision, reach: Reach) -> bool:
    """Whether the last instance of `revision` is frozen rather than stopped."""
    return revision.scale.idle == "freeze" and reach is not Reach.UNROUTED


def after_s(revision: Revision, reach: Reach) -> float:
    """How long the last instance runs on while idle, at most; infinity when the windows alone say."""
    return max(AFTER_S, revision.scale.retention_s) if wanted(revision, reach) else math.inf
