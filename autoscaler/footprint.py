"""What one call takes of an instance: a straight line through what instances hold and use by how many calls they have at once. Pure.

Least squares whose sums fade, so that a changed app is learned; five numbers a line. What an instance takes without any call is where
the line begins.
"""

FADES = 0.99
"""Each report leaves so much of the earlier ones: about the last hundred count, eight minutes of one instance."""
SEEN = 12.0
"""Reports a line is told from at least, after fading."""
APART = 0.25
"""The calls at once have to differ by so much (standard deviation), or what one takes cannot be told from what none takes."""


class Line:
    """`none + each × calls`."""

    __slots__ = ("_count", "_x", "_xx", "_xy", "_y")

    def __init__(self) -> None:
        self._count = self._x = self._y = self._xx = self._xy = 0.0

    def note(self, calls: float, value: float) -> None:
        """An instance with so many calls at once, on average, took `value`."""
        self._count = self._count * FADES + 1
        self._x = self._x * FADES + calls
        self._y = self._y * FADES + value
        self._xx = self._xx * FADES + calls * calls
        self._xy = self._xy * FADES + calls * value

    def each(self) -> float:
        """What one call at once more takes; 0 when it is not known, or less than nothing."""
        count = self._count
        if count < SEEN:
            return 0.0
        spread = self._xx / count - (self._x / count) ** 2
        if spread < APART * APART:
            return 0.0
        return max(0.0, (self._xy / count - self._x * self._y / count**2) / spread)


class Footprint:
    """The two lines of a revision."""

    __slots__ = ("cpu_m", "memory_bytes")

    def __init__(self) -> None:
        self.cpu_m, self.memory_bytes = Line(), Line()

    def note(self, calls: float, cpu_m: float, memory_bytes: float) -> None:
        """An instance with so many calls at once, on average, uses so much."""
        self.cpu_m.note(calls, cpu_m)
        self.memory_bytes.note(calls, memory_bytes)
