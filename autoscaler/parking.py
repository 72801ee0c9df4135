"""Which revisions keep one parked instance: created in containerd, not started, about 2 MB and a wake of some milliseconds."""

from autoscaler.idle import Reach
from store.model import Node, Revision

RESERVE = 0.10
"""Share of a node's memory and slots that parking leaves free."""
SLACK = 0.05
"""So much more than its bound a node takes for a moment, so that what is worth more can take the place of what is worth less (`relief`)."""


def wanted(
    revision: Revision, *, enabled: bool, reach: Reach, verified: bool, failing: bool, desired: int, given_up: str = ""
) -> tuple[bool, str]:
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
    if given_up:
        return False, given_up
    if reach is Reach.PENDING:
        return False, "no route names it yet"
    return True, "idle, and its next start shall be quick"


def has_room(node: Node, headroom: float, resting: int) -> bool:
    """Whether `node`, with that free share (`Placement.headroom`) and so many parked and frozen, may take one more parked instance."""
    most = node.parked_most + max(1, int(node.parked_most * SLACK)) if node.parked_most else resting + 1
    return headroom > RESERVE and not node.pressed and resting < most
