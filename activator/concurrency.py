"""Exact time-weighted concurrency: the mean of (in flight + queued) over an interval, not a mean of samples.

With n(t) requests present, the area under n from 0 to T is  n(T)·T − Σ arrivals + Σ departures  (each request adds the time it was
here). So an event costs one addition, and the mean over [a, b] is (area(b) − area(a)) / (b − a).
"""


class Concurrency:
    """How many are here, and how many were on average. Times are monotonic seconds, never going back."""

    __slots__ = ("area", "arrived", "present", "since")

    def __init__(self, now: float) -> None:
        self.present = 0
        self.arrived = 0
        self.area = 0.0
        self.since = now
        """When the interval began."""

    def enter(self, now: float) -> None:
        self.present += 1
        self.arrived += 1
        self.area -= now - self.since

    def leave(self, now: float) -> None:
        assert self.present > 0, "more left than came"
        self.present -= 1
        self.area += now - self.since

    def take(self, now: float) -> tuple[float, int]:
        """(mean concurrency, arrivals) since the last `take`; a new interval begins."""
        length = now - self.since
        mean = (self.area + self.present * length) / length if length > 0 else float(self.present)
        arrived = self.arrived
        # Times count from the interval's start, so that the sums stay small and exact for ever.
        self.since, self.area, self.arrived = now, 0.0, 0
        return max(0.0, mean), arrived
