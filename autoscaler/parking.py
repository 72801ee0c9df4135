"""Which revisions keep one parked instance: created in containerd, not started, about 2 MB and a wake of some milliseconds."""

from autoscaler.idle import Reach
from store.model import Revision

RESERVE = 0.10
"""Share of a node's memory and slots that parking leaves free."""


def wanted(revision: Revision, *, enabled: bool, reach: Reach, verified: bool, failing: bool, desired: int) -> tuple[bool, str]:
    """Whether `revision` should have a parked instance now, and why (not). Room is asked for separately."""
    if not enabled:
        return False, "parking is off"
    if not revision.parkable:
        return False, "the revision is not parkable"
    if reach is Reach.UNROUTED:
        return False, "no route names it"
    if not verified:
        return False, "not verified yet"
    if failing:
        return False, "its last start failed"
    if desired > 0:
        return False, "it runs"
    if reach is Reach.PENDING:
        return False, "no route names it yet"
    return True, "idle, and its next start shall be quick"


def has_room(headroom: float) -> bool:
    """Whether a node with that free share (`Placement.headroom`) may take one more parked instance."""
    return headroom > RESERVE
