"""Which revisions keep their last instance frozen when idle, instead of stopping it. Pure.

A frozen instance holds its memory and uses no CPU. It is for apps whose own boot is slow: waking one costs a write to the freezer's
file, whatever the app is. A service asks for it (`ebb.dev/idle: freeze`), or its policy chooses it: what follows its habits and boots
slowly is frozen when its keep-alive ends, while its node has room.
"""

import math

from autoscaler.idle import Reach
from store.model import Revision

AFTER_S = 6.0
"""Idle for so long, the last instance is frozen: between two requests of one visit it runs on."""


SLOW_BOOT_S = 1.0
"""An app that takes so long from its start to its first good probe is worth its memory while there is room."""


def wanted(revision: Revision, reach: Reach) -> bool:
    """Whether the last instance of `revision` is frozen rather than stopped."""
    return revision.scale.idle == "freeze" and reach is not Reach.UNROUTED


def chosen(revision: Revision, reach: Reach, boot_s: float, *, room: bool) -> str:
    """Why the last instance of `revision`, which follows its habits, is frozen when they let it go; empty: it is not."""
    if revision.scale.idle or reach is not Reach.ROUTED or boot_s < SLOW_BOOT_S or not room:
        return ""
    return f"its own boot takes {boot_s:.1f} s: frozen, and back within milliseconds, while its node has room"


def after_s(revision: Revision, reach: Reach) -> float:
    """How long the last instance runs on while idle, at most; infinity when the windows alone say."""
    return max(AFTER_S, revision.scale.retention_s) if wanted(revision, reach) else math.inf
