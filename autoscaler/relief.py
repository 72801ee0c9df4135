"""Which parked and frozen instances go when a node has too little memory for them: those that are worth least. Pure.

    worth = wake rate × seconds saved by it ÷ bytes it holds

The wake rate is one over the median idle time, or over how long it has been idle when that is longer (or all that is known): what is
silent beyond its habit is expected less. What was never called since this autoscaler began is worth nothing, and of equals the
oldest goes first.

A node that is pressed (`Node.pressed`) gives up a tenth of what rests on it, and again every `PACE_S` until it says it is well:
memory pressure is a mean over ten seconds and follows late. Beyond its own bound (`Node.parked_most`) a node gives up all that is
too many. What was given up is kept again after its next call.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from autoscaler.fleet import Fleet, Slot
from autoscaler.need import PARKED_BYTES
from autoscaler.profile import Profile
from store.model import Goal, Node, RevisionKey

PACE_S = 5.0
SHARE = 0.1
CREATE_S = 0.08
"""What a parked instance saves when nothing was measured: making snapshot, network and task."""
BOOT_S = 1.0
"""What a frozen one saves when nothing was measured."""
UNKNOWN_BYTES = 64 << 20
"""What a frozen instance without memory request or limit is thought to hold."""
_CREATION = ("network", "snapshot", "create")


def worth(slot: Slot, profile: Profile | None, now: float) -> float:
    """Seconds saved a second, for each byte that `slot` holds."""
    if profile is None or profile.busy_at == -math.inf:
        return 0.0
    rate = 1 / max(1.0, profile.within(0.5), now - profile.busy_at)
    if slot.goal == Goal.FREEZE:
        return rate * (profile.start_s or BOOT_S) / (slot.need.memory_bytes or UNKNOWN_BYTES)
    return rate * (sum(profile.phases_s.get(step, 0.0) for step in _CREATION) or CREATE_S) / PARKED_BYTES


def too_many(node: Node, resting: int) -> int:
    """How many of `resting` instances `node` shall give up now."""
    over = max(0, resting - node.parked_most) if node.parked_most else 0
    return min(resting, max(over, math.ceil(resting * SHARE) if node.pressed else 0))


class Relief:
    """What was given up, over time."""

    def __init__(self) -> None:
        self.given_up: dict[RevisionKey, str] = {}
        """Revisions that shall keep nothing until they are called, and why."""
        self._eased_at: dict[str, float] = {}

    def called(self, key: RevisionKey) -> None:
        """The revision has load: it is worth something again."""
        self.given_up.pop(key, None)

    def choose(self, fleet: Fleet, profiles: Mapping[RevisionKey, Profile], now: float) -> list[RevisionKey]:
        """Revisions whose resting instances go now."""
        found: list[RevisionKey] = []
        for node in fleet.nodes.values():
            resting = fleet.resting(node.node)
            count = too_many(node, len(resting))
            if not count or now - self._eased_at.get(node.node, -math.inf) < PACE_S:
                continue
            self._eased_at[node.node] = now
            least = least_worth(resting, lambda slot: worth(slot, profiles.get(slot.assignment.revision_key), now), count)
            why = node.pressed or f"{node.node} keeps {node.parked_most} at most"
            for slot in least:
                self.given_up[slot.assignment.revision_key] = why
                found.append(slot.assignment.revision_key)
        return found


def least_worth(slots: Iterable[Slot], worth_of: Callable[[Slot], float], count: int) -> list[Slot]:
    """`count` of `slots`, in the order they should go."""
    return sorted(slots, key=lambda slot: (worth_of(slot), slot.assignment.at, slot.name))[:count]
