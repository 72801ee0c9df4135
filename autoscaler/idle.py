"""When the last instance of a revision may go.

The policy wants zero (nothing in the stable window); this says whether zero it is:

| a route    | to zero | in flight | idle ≥ stable | active ≥ stable | idle ≥ window +       | answer |
| names it   | allowed | or queued | window        | window          | max(grace, retention) |        |
|------------|---------|-----------|---------------|-----------------|-----------------------|--------|
| any        | any     | yes       | any           | any             | any                   | stays  |
| no longer  | any     | no        | any           | any             | any                   | 0 at once |
| yes or yet | no      | no        | any           | any             | any                   | stays  |
| yes or yet | yes     | no        | no            | any             | any                   | stays  |
| yes or yet | yes     | no        | yes           | no              | any                   | stays  |
| yes or yet | yes     | no        | yes           | yes             | no                    | stays  |
| yes or yet | yes     | no        | yes           | yes             | yes                   | 0      |

("Yes or yet": a route names it, or none does yet and none has stopped to, as while a deploy verifies it.)

`min_scale` is not asked here: it bounds every decision, except for the unreachable.

Knative's `scale-to-zero-grace-period` is an upper bound on the time it takes to put its activator into the path, and is zero when
it is there already. Here the ingress always is, so the grace is 0 unless an operator sets one: idle to zero takes the stable
window (60 s), not the 90 s of Knative. `ScaleSpec.scale_to_zero_grace_s` is kept for those who read it; nothing waits for it.
"""

from dataclasses import dataclass
from enum import Enum

from store.model import ScaleSpec


class Reach(Enum):
    """Whether requests can come to a revision."""

    ROUTED = "routed"
    """A route names it, by percent or by tag."""
    PENDING = "pending"
    """No route names it yet, and none has stopped to: it is being deployed, or waits for its share."""
    UNROUTED = "unreachable"
    """A route named it, and none does any more."""


@dataclass(frozen=True, slots=True)
class Idleness:
    """How long what has been so, in seconds; `load` is requests in flight and queued now."""

    idle_s: float
    active_s: float
    load: int
    grace_s: float = 0


def may_leave(spec: ScaleSpec, reach: Reach, idleness: Idleness) -> tuple[bool, str]:
    """Whether the last instance may go, and why or why not."""
    if idleness.load:
        return False, f"{idleness.load} requests are in flight or queued"
    if reach is Reach.UNROUTED:
        return True, "no route names it"
    if not spec.scale_to_zero:
        return False, "scale to zero is off"
    window = spec.stable_window_s
    if idleness.idle_s < window:
        return False, f"idle for {idleness.idle_s:.0f} s of {window:.0f} s"
    if idleness.active_s < window:
        return False, f"active for {idleness.active_s:.0f} s of {window:.0f} s"
    wait = max(idleness.grace_s, spec.retention_s)
    if idleness.idle_s < window + wait:
        return False, f"kept for {wait:.0f} s after the window"
    return True, f"idle for {idleness.idle_s:.0f} s"
