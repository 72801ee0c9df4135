"""What lending does to one revision's throttler. Pure.

Who rules a revision has all its slots: a target's `limit` is the instance's own, and what others hold of it counts as in flight
(`lent`). Everybody else has what was lent: a target's `limit` is his share, most often 0, and the throttler's own rules (room,
choice, line, draining) hold for a share as they do for the whole. So the warm path is the same for both, and lending nothing costs nothing.
"""

from collections.abc import Iterable, Sequence

from activator.balance import NO_LIMIT, State, Target
from activator.effects import NOTHING, Effect, R, Spare
from activator.throttler import Throttler
from activator.wire import Held

_UNHEARD = -1
"""The seq of an instance that only another worker has told of."""


def cede(throttler: Throttler[R], now: float) -> Sequence[Effect[R]]:
    """Rule no more: what is in use here stays as our share; what was lent is for the new owner to hear of from who holds it."""
    throttler.ruled = throttler.recalled = False
    effects: list[Effect[R]] = []
    for target in list(throttler.targets.values()):
        lent, target.lent = target.lent, 0
        target.in_flight -= lent
        target.limit = target.in_flight
        throttler.balance.reckon(target)
        if lent and target.state is not State.SERVING:
            effects += throttler.freed(target, now)
    return effects


def rule(throttler: Throttler[R], lent: Iterable[Held], now: float) -> Sequence[Effect[R]]:
    """Rule from now on, knowing what is `lent`."""
    throttler.ruled, throttler.recalled = True, False
    for target in throttler.targets.values():
        target.limit = throttler.limit or NO_LIMIT
    for held in lent:
        lend(throttler, held)
    for target in list(throttler.targets.values()):
        throttler.balance.reckon(target)
        if target.state is State.GONE and not target.in_flight:
            del throttler.targets[target.instance]
    return throttler.dispatch(now)


def lend(throttler: Throttler[R], held: Held) -> Target:
    """Count what another worker holds, though it was not lent from here."""
    target = _target(throttler, held.instance, held.node, held.address, throttler.limit or NO_LIMIT)
    target.in_flight += held.slots
    target.lent += held.slots
    throttler.balance.reckon(target)
    return target


def returned(throttler: Throttler[R], target: Target, slots: int, now: float) -> Sequence[Effect[R]]:
    """`slots` that were lent are back."""
    effects: list[Effect[R]] = []
    for _ in range(slots):
        target.lent -= 1
        target.in_flight -= 1
        effects += throttler.freed(target, now)
    if target.seq == _UNHEARD and not target.in_flight and throttler.targets.get(target.instance) is target:
        del throttler.targets[target.instance]
    return effects


def granted(throttler: Throttler[R], held: Held, keep: bool, now: float) -> Sequence[Effect[R]]:
    """A slot was lent to us; without `keep` it goes back after one request, as do all others of this revision."""
    target = _target(throttler, held.instance, held.node, held.address, 0)
    throttler.recalled = not keep
    target.limit += held.slots
    throttler.balance.reckon(target)
    return throttler.dispatch(now)


def spare(throttler: Throttler[R], *, everything: bool = False) -> Sequence[Spare]:
    """What we have borrowed and have no use for: it is ours no longer."""
    found = []
    for target in list(throttler.targets.values()):
        of_use = target.state is State.SERVING or (target.state is State.PAUSED and target.seq == _UNHEARD)
        if (everything or throttler.recalled or not of_use) and (unused := throttler.balance.shrink(target)):
            found.append(Spare(target.instance, unused))
        done = not target.limit and (target.state is State.GONE or (everything and target.seq == _UNHEARD))
        if done and not target.in_flight:
            del throttler.targets[target.instance]
    return found or NOTHING


def shares(throttler: Throttler[R]) -> list[Held]:
    """What we hold of a revision that is not ours."""
    return [
        Held(throttler.revision, throttler.limit, target.instance, target.node, target.address, target.limit)
        for target in throttler.targets.values()
        if target.limit
    ]


def _target(throttler: Throttler[R], instance: str, node: str, address: str, limit: int) -> Target:
    found = throttler.targets.get(instance)
    if found is None:
        # Its own status comes by the bus or the watch, perhaps a little later than the word of who has heard it already.
        found = throttler.targets[instance] = Target(instance, node, address, limit, _UNHEARD)
        found.limit = limit
        found.state = State.PAUSED
    return found
