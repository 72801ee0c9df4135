"""How often a project and a service may be called, and how many requests of a project may be in flight or wait. Pure.

Each worker of the front door holds its share: a rate or cap of N is N ÷ workers in each. The kernel spreads connections evenly over
workers, so many clients together get N; one client on one connection gets its worker's share.
"""

from collections.abc import Callable

BURST_S = 1.0
"""What was not used in so long a time may be used at once."""


class Bucket:
    """A token bucket that is empty for a moment, never in debt.

    Tokens are counted from the clock's zero on, those that came and those that were taken, so that taking one is adding one.
    """

    __slots__ = ("_most", "_per_s", "_taken")

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._taken = now * per_s - self._most

    def change(self, per_s: float, now: float) -> None:
        """Another rate from now on; what is left stays, within the new bound."""
        left = min(self._most, now * self._per_s - self._taken)
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._taken = now * per_s - min(left, self._most)

    def take(self, now: float) -> float:
        """0: taken. Else nothing was, and in so many seconds there is one."""
        came = now * self._per_s
        left = came - self._taken
        if left < 1:
            return (1 - left) / self._per_s
        if left > self._most:
            self._taken = came - self._most
        self._taken += 1
        return 0.0

    def give_back(self) -> None:
        """What was taken last was not used."""
        self._taken -= 1


class Crowd:
    """All guarded requests of one project in this worker."""

    __slots__ = ("bucket", "counted", "in_flight", "in_flight_most", "per_s", "queued", "queued_most", "since", "whole")

    def __init__(self, queued: Callable[[], int]) -> None:
        self.bucket: Bucket | None = None
        self.per_s = 0
        self.in_flight = self.in_flight_most = self.queued_most = 0
        self.whole = (0, 0)
        """Caps over all workers, as people know them: in flight, queued."""
        self.queued = queued
        """How many requests of the project wait now: asks each of its revisions."""
        self.counted = self.since = 0
        """How many waited when last asked, and how many were let in since: no more can wait now. At first: as if the line were full."""

    def change(self, per_s: int, in_flight: int, queued: int, workers: int, now: float) -> None:
        """The project's quota, 0: no limit, and over how many workers it is shared."""
        self.per_s, self.whole = per_s, (in_flight, queued)
        self.bucket = _changed(self.bucket, per_s / workers, now)
        self.in_flight_most, self.queued_most = -(-in_flight // workers), -(-queued // workers)
        self.counted, self.since = self.queued_most, 0

    def line_full(self) -> bool:
        """Whether as many wait as may: asks."""
        self.counted, self.since = self.queued(), 0
        return self.counted >= self.queued_most

    def leave(self) -> None:
        """A request that was let in is over."""
        self.in_flight -= 1


class Rates:
    """The limits that stand before one route: its own rate, and its project's."""

    __slots__ = ("_bucket", "_per_s", "_project", "crowd")

    def __init__(self, project: str, crowd: Crowd) -> None:
        self._project, self.crowd = project, crowd
        self._bucket: Bucket | None = None
        self._per_s = 0.0

    def change(self, per_s: float, workers: int, now: float) -> None:
        """The route's own rate, 0: no limit."""
        self._per_s = per_s
        self._bucket = _changed(self._bucket, per_s / workers, now)

    def enter(self, now: float) -> tuple[str, str, float] | None:
        """Let one request in, and the crowd is to be told when it is over; or a refusal's reason, message and seconds to wait."""
        crowd = self.crowd
        if crowd.in_flight_most and crowd.in_flight >= crowd.in_flight_most:
            most = crowd.whole[0]
            return "project-full", f"project {self._project} has its {most} requests in flight; its quota says no more", 1
        if crowd.queued_most and crowd.counted + crowd.since >= crowd.queued_most and crowd.line_full():
            queued = crowd.whole[1]
            return "project-full", f"project {self._project} has its {queued} requests waiting; its quota says no more", 1
        bucket = self._bucket
        if bucket is not None and (wait_s := bucket.take(now)):
            return "rate-limited", f"this service takes {self._per_s:g} requests a second", wait_s
        whole = crowd.bucket
        if whole is not None and (wait_s := whole.take(now)):
            if bucket is not None:
                bucket.give_back()
            return "rate-limited", f"project {self._project} takes {crowd.per_s} requests a second", wait_s
        crowd.in_flight += 1
        crowd.since += 1
        return None


def _changed(bucket: Bucket | None, per_s: float, now: float) -> Bucket | None:
    if not per_s:
        return None
    if bucket is None:
        return Bucket(per_s, now)
    bucket.change(per_s, now)
    return bucket
