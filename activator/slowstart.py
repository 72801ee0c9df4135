"""A new instance takes its share over `RAMP_S`: its caches are cold, and with the fewest in flight it would get every request.

Only where there is no hard limit, and only beside instances that have served for longer. With `container_concurrency` the limit says
what even a cold instance can take, and a request that waits for a slot is worse off than one at a cold instance. Without
others there is nothing to spare the new one for.

The share is a bound on what is in flight, 1 + the others' mean × the part of `RAMP_S` that has passed, set anew by every tick: the choice
itself costs nothing more, and an instance that is slow while it is new gets fewer by that alone.
"""

from collections.abc import Collection

from activator.balance import NO_LIMIT, State, Target

RAMP_S = 5.0


def ramp(targets: Collection[Target], now: float) -> list[Target]:
    """Set the `cap` of each instance without a hard limit for `now`; those whose cap changed."""
    steady = [each for each in targets if now - each.since >= RAMP_S and each.state is State.SERVING and not each.ejected_until]
    mean = sum(each.in_flight for each in steady) / len(steady) if steady else 0.0
    changed: list[Target] = []
    for each in targets:
        grown = (now - each.since) / RAMP_S
        cap = NO_LIMIT if not steady or grown >= 1 or each.limit != NO_LIMIT else 1 + int(mean * grown)
        if cap != each.cap:
            each.cap = cap
            changed.append(each)
    return changed


def ramping(targets: Collection[Target]) -> bool:
    """Whether a cap is to grow still."""
    return any(each.cap != NO_LIMIT for each in targets)
