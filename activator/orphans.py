"""Slots of requests whose worker has died: nobody will return them, and they are free when the instance is done with them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from activator.balance import Target
from activator.ownership import ORPHAN_S
from activator.throttler import Throttler
from activator.wire import Held

LINGER_S = 0.05
"""How often it is looked whether what a dead worker left at an instance has ended."""
LINGER_MOST_S = 65.0
"""The kernel keeps a closed connection that the other side keeps open for no longer (`tcp_fin_timeout`, 60 s)."""
Lingering = Callable[[], dict[str, int]]
"""Address of an instance → connections to it whose process has ended and which it has not closed: requests may still run there."""


@dataclass(slots=True)
class _Orphan:
    until: float
    throttler: Throttler[Any]
    target: Target
    slots: int


class Orphans:
    """Those at one worker's instances."""

    def __init__(self) -> None:
        self.lingering: Lingering = dict
        self._orphans: list[_Orphan] = []

    def __bool__(self) -> bool:
        return bool(self._orphans)

    def lent(self, throttler: Throttler[Any], target: Target, slots: int, now: float) -> None:
        """Slots that were lent to who has just died: its connections may not even be closed."""
        self._orphans.append(_Orphan(now + ORPHAN_S, throttler, target, slots))

    def found(self, throttler: Throttler[Any], target: Target, slots: int, now: float) -> None:
        """Slots that are in use by nobody alive."""
        self._orphans.append(_Orphan(now + LINGER_S, throttler, target, slots))

    def at(self, throttler: Throttler[Any], targets: Iterable[Target]) -> list[Held]:
        """What requests of the dead hold at instances of which we have not known who holds what."""
        lingering = self.lingering()
        return [
            Held(throttler.revision, throttler.limit, target.instance, target.node, target.address, lingering[target.address])
            for target in targets
            if target.address in lingering
        ]

    def forget(self, throttler: Throttler[Any]) -> None:
        """Its revision is ruled by another now, who looks himself."""
        self._orphans = [orphan for orphan in self._orphans if orphan.throttler is not throttler]

    def ended(self, now: float) -> list[tuple[Throttler[Any], Target, int]]:
        """Slots that are free by now, whose instance and revision."""
        due = [orphan for orphan in self._orphans if orphan.until <= now]
        if not due:
            return []
        lingering = self.lingering()
        free = []
        for orphan in due:
            left = min(orphan.slots, lingering.get(orphan.target.address, 0))
            if left:
                lingering[orphan.target.address] -= left
            if orphan.slots > left:
                free.append((orphan.throttler, orphan.target, orphan.slots - left))
            orphan.slots, orphan.until = left, now + LINGER_S
        self._orphans = [orphan for orphan in self._orphans if orphan.slots]
        return free
