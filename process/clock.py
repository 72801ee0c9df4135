"""The two clocks: monotonic for durations and deadlines, wall for what people and other machines read."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where shells get `now` from; pure code is given `now` and never a clock."""

    def now(self) -> float:
        """Seconds on a monotonic clock: for deadlines, queue ages, windows."""

    def wall(self) -> float:
        """Seconds since the epoch: for what is stored, shown or sent to another machine."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


def rfc3339(wall_s: float) -> str:
    """Wall seconds as `2026-11-23T13:00:00Z`, the form the API speaks."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_s))
