"""How often a project and a service may be called, and how many requests of a project may be in flight or wait. Pure.

Each worker of the front door holds its share: a rate or cap of N is N ÷ workers in each. The kernel spreads connections evenly over
workers, so many clients together get N; one client on one connection gets its worker's share.
"""

from collections.abc import Callable

BURST_S = 1.0
"""What was not used in so long a time may be used at once."""


class Bucket:
    """A token bucket that is empty for a moment, never in debt."""

    __slots__ = ("_at", "_level", "_most", "_per_s")

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._most = self._level = max(1.0, per_s * BURST_S)
        self._at = now

    def change(self, per_s: float, now: float) -> None:
        """Another rate from now on; what is left stays, within the new bound."""
        self._refill(now)
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._level = min(self._level, self._most)

    def take(self, now: float) -> float:
        """0: taken. Else nothing was, and in so many seconds there is one."""
        level = self._level
        if now > self._at:
            level += (now - self._at) * self._per_s
            if level > self._most:
                level = self._most
            self._at = now
        if level >= 1:
            self._level = level - 1
            return 0.0
        self._level = level
        return (1 - level) / self._per_s

    def give_back(self) -> None:
        """What was taken last was not used."""
        self._level = min(self._most, self._level + 1)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._most, self._level + (now - self._at) * self._per_s)
            self._at = now


class Crowd:
    """All guarded requests of one project in this worker."""

    __slots__ = ("_counted", "bucket", "in_flight", "in_flight_most", "per_s", "queued", "queued_most", "since", "whole")

    def __init__(self, queued: Callable[[], int]) -> None:
        self.bucket: Bucket | None = None
        self.per_s = 0
        self.in_flight = self.in_flight_most = self.queued_most = 0
        self.whole = (0, 0)
        """Caps over all workers, as people know them: in flight, queued."""
        self.queued = queued
        """How many requests of the project wait now: asks each of its revisions."""
        self._counted = self.since = 0
        """How many waited when last asked, and how many were let in since. At first: as if the line were full."""

    def change(self, per_s: int, in_flight: int, queued: int, workers: int, now: float) -> None:
        """The project's quota, 0: no limit, and over how many workers it is shared."""
        self.per_s, self.whole = per_s, (in_flight, queued)
        self.bucket = _changed(self.bucket, per_s / workers, now)
        self.in_flight_most, self.queued_most = -(-in_flight // workers), -(-queued // workers)
        self._counted, self.since = self.queued_most, 0

    def line_full(self) -> bool:
        """Whether as many wait as may. No more can have joined than were let in, so the revisions need not be asked each time."""
        if self._counted + self.since < self.queued_most:
            return False
        self._counted, self.since = self.queued(), 0
        return self._counted >= self.queued_most

    def leave(self) -> None:
        """A request that was let in is over."""
        self.in_flight -= 1


class Rates:
    """The limits that stand before one route: its own rate, and its project's."""

    __slots__ = ("_bucket", "_crowd", "_per_s", "_project")

    def __init__(self, project: str, crowd: Crowd) -> None:
        self._project, self._crowd = project, crowd
        self._bucket: Bucket | None = None
        self._per_s = 0.0

    def change(self, per_s: float, workers: int, now: float) -> None:
        """The route's own rate, 0: no limit."""
        self._per_s = per_s
        self._bucket = _changed(self._bucket, per_s / workers, now)

    def enter(self, now: float) -> Crowd | tuple[str, str, float]:
        """Let one request in: who is to be told when it is over; or a refusal's reason, message and seconds to wait."""
        crowd = self._crowd
        if crowd.in_flight_most and crowd.in_flight >= crowd.in_flight_most:
            most = crowd.whole[0]
            return "project-full", f"project {self._project} has its {most} requests in flight; its quota says no more", 1
        if crowd.queued_most and crowd.line_full():
            queued = crowd.whole[1]
            return "project-full", f"project {self._project} has its {queued} requests waiting; its quota says no more", 1
        bucket = self._bucket
        if bucket is not None and (wait_s := bucket.take(now)):
            return "rate-limited", f"this service takes {self._per_s:g} requests a second", wait_s
        if crowd.bucket is not None and (wait_s := crowd.bucket.take(now)):
            if bucket is not None:
                bucket.give_back()
            return "rate-limited", f"project {self._project} takes {crowd.per_s} requests a second", wait_s
        crowd.in_flight += 1
        crowd.since += 1
        return crowd


def _changed(bucket: Bucket | None, per_s: float, now: float) -> Bucket | None:
    if not per_s:
        return None
    if bucket is None:
        return Bucket(per_s, now)
    bucket.change(per_s, now)
    return bucket
