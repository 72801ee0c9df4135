"""Averages over the last seconds: a ring of one-second buckets, with Knative's two ways to weigh them.

*linear*: the sum of the buckets inside the window, divided by the seconds that data spans. A window younger than its length is
divided by its age; a trailing gap is dropped from the divisor, inner gaps count as zero. *weighted-exponential*: bucket `i`
seconds back weighs `c(1-c)^i` with `c = max(1 - 0.0001^(1/n), 0.2)`, so that recent seconds count most.
Nothing for a whole window is 0; nothing ever is None: there is no data to decide on.
"""

import math

DIGITS = 6
"""Averages are rounded to so many digits, so that 0.1 + 0.2 does not ask for one instance more."""
_ROUNDS = 10.0**-DIGITS
_NEVER = -2


class Window:
    """One window of `length_s` whole seconds. `now` may be any clock that does not go backwards."""

    __slots__ = ("_buckets", "_decay", "_first", "_last", "_length", "_total")

    def __init__(self, length_s: float, *, exponential: bool = False) -> None:
        self._length = max(1, math.floor(length_s))
        self._buckets = [0.0] * self._length
        self._first = self._last = _NEVER
        self._total = 0.0
        self._decay = max(1 - math.pow(1 - 0.9999, 1 / self._length), 0.2) if exponential else 0.0

    @property
    def length_s(self) -> int:
        return self._length

    @property
    def empty(self) -> bool:
        """Nothing was ever written."""
        return self._last < 0

    def add(self, now: float, value: float) -> None:
        """Add `value` to the bucket of second `now`. What is older than the window is ignored."""
        second = math.floor(now)
        if second == self._last + 1:  # As nearly always.
            at = second % self._length
            self._total = self._total - self._buckets[at] + value
            self._buckets[at], self._last = value, second
            return
        if self._last < 0 or second - self._last >= self._length:
            self._buckets = [0.0] * self._length
            self._total = 0.0
            self._first = self._last = second
        elif second > self._last:
            for gap in range(self._last + 1, second + 1):
                self._total -= self._buckets[gap % self._length]
                self._buckets[gap % self._length] = 0.0
            self._last = second
        elif self._last - second >= self._length:
            return
        elif second < self._first:
            self._first = second
        self._buckets[second % self._length] += value
        self._total += value

    def average(self, now: float) -> float | None:
        """The average at `now`, or None when nothing was ever written."""
        if self._last < 0:
            return None
        second = math.floor(now)
        late = max(0, second - self._last)
        if late >= self._length:
            return 0.0
        return round(self._weighted(second, late) if self._decay else self._linear(late), DIGITS)

    def leaves(self, now: float, above: float, up_to: float) -> float:
        """The first second, from `now` on, in which the average will not be above `above` or will exceed `up_to` when nothing is added
        any more; infinity: never. Now, when nothing was ever written."""
        second = math.floor(now)
        over = self._last + self._length
        if self._last < 0:
            return float(second)
        if above <= 0 and not self._decay and max(self._buckets) < up_to - _ROUNDS:
            # No average exceeds the most there was in a second, and it is above zero for as long as anything is in the window.
            if above < 0:
                return math.inf
            newest = self._newest()
            if self._buckets[newest % self._length] > 2 * _ROUNDS * self._length:
                return float(max(second, newest + self._length))
        if self._decay:
            seconds = range(second, max(second, over) + 1)
            return next((float(each) for each in seconds if not above < (self.average(each) or 0.0) <= up_to), math.inf)
        if second < over:
            total, late = self._total, max(0, second - self._last)
            for gap in range(self._last + 1, self._last + late + 1):
                total -= self._buckets[gap % self._length]
            held = self._last - self._first + 1
            begin, low, high = self._last + late, above + _ROUNDS, up_to - _ROUNDS
            for at in range(begin, over):
                if at > begin:
                    total -= self._buckets[at % self._length]
                average = total / (held if held < over - at else over - at)
                if low < average < high:
                    continue
                if not above < round(max(0.0, average), DIGITS) <= up_to:
                    return float(at if at > begin else second)
        return math.inf if above < 0 <= up_to else float(max(second, over))

    def _newest(self) -> int:
        """The newest second that is not empty, or the oldest of all."""
        oldest = self._last - self._length + 1
        for second in range(self._last, oldest, -1):
            if self._buckets[second % self._length]:
                return second
        return oldest

    def _linear(self, late: int) -> float:
        total = self._total
        for gap in range(self._last + 1, self._last + late + 1):
            total -= self._buckets[gap % self._length]
        seconds = min(self._last - self._first + 1, self._length - late)
        return max(0.0, total / seconds)

    def _weighted(self, second: int, late: int) -> float:
        newest = max(second, self._last)
        spans = min(newest - self._first + 1, self._length)
        weight, total = self._decay, 0.0
        for back in range(spans):
            if back >= late:
                total += self._buckets[(newest - back) % self._length] * weight
            weight *= 1 - self._decay
        return max(0.0, total)


def panic_length_s(stable_window_s: float, panic_window_percentage: float) -> int:
    """The panic window in whole seconds, at least one."""
    return max(1, round(stable_window_s * panic_window_percentage / 100))
