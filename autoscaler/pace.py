"""How long a revision's calls take by how many are in an instance at once, and where that bends. Pure.

The mean time of a call follows from what is reported anyway (Little's law): mean concurrency ÷ calls a second. It is kept by the
concurrency in one instance, in steps that double. Up to some concurrency the time stays what it is with one call; beyond it, calls
only wait for each other inside the instance. The bend is the first step at which they take `BENT` times as long as at the lowest
that was seen.
"""

from array import array

STEPS = 8
"""1, 2–3, 4–7, …, 128 and more."""
BENT = 2.0
SEEN = 20
"""Seconds a step has to be seen for before it counts."""
_NEW = 0.1


class Pace:
    """Running means of a call's time, in seconds, by step of concurrency."""

    __slots__ = ("seen", "took_s")

    def __init__(self) -> None:
        self.took_s = array("f", bytes(4 * STEPS))
        self.seen = array("H", bytes(2 * STEPS))

    def note(self, concurrency: float, requests: int, interval_s: float, instances: int) -> None:
        """For `interval_s` there were so many calls on average in so many instances, and `requests` came."""
        if requests < 1 or instances < 1 or interval_s <= 0 or concurrency <= 0:
            return
        step = min(STEPS - 1, int(max(1.0, concurrency / instances)).bit_length() - 1)
        took_s = concurrency * interval_s / requests
        self.seen[step] = min(60_000, self.seen[step] + 1)
        self.took_s[step] += max(_NEW, 1 / self.seen[step]) * (took_s - self.took_s[step])

    def bend(self) -> float:
        """The concurrency in one instance from which on calls take much longer; 0 when none was seen."""
        base_s = 0.0
        for step in range(STEPS):
            if self.seen[step] < SEEN:
                continue
            if not base_s:
                base_s = self.took_s[step]
            elif self.took_s[step] >= BENT * base_s:
                return float(1 << step)
        return 0.0

    def service_s(self) -> float:
        """A call's time at the lowest concurrency seen for long enough; 0 when none was."""
        return next((self.took_s[step] for step in range(STEPS) if self.seen[step] >= SEEN), 0.0)
