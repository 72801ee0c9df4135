"""What came of it all for one app of the simulator: calls, starts, and memory-time, summed as things change. Pure."""

from dataclasses import dataclass, field

PARKED_MB = 2.1
"""What a parked instance holds, measured."""
LATELY_S = 60.0


@dataclass(slots=True)
class Ledger:
    """Memory is that of one instance; times are virtual seconds."""

    memory_mb: float
    came: int = 0
    served: int = 0
    refused: int = 0
    cold: int = 0
    """Calls that found nothing running."""
    cold_unparked: int = 0
    """Those of them for which nothing was parked either."""
    waited: list[float] = field(default_factory=list)
    """Slowdown of the calls that waited: (wait + time) ÷ time. All others have 1."""
    starts: int = 0
    standing: int = 0
    """Instances that run now."""
    idle_mb_s: float = 0.0
    """Memory-time of instances while no call is here."""
    spare_mb_s: float = 0.0
    """That of instances without a call while others have some."""
    parked_mb_s: float = 0.0
    over: float = 0.0
    """Most instances beyond need, as a share of need."""
    _at: float = 0.0
    _busy: int = 0
    _parked: int = 0
    _peak: float = 0.0
    _before: float = 0.0
    _since: float = 0.0

    @property
    def wasted_mb_s(self) -> float:
        """Memory-time held for nothing."""
        return self.idle_mb_s + self.spare_mb_s + self.parked_mb_s

    def stands(self, standing: int, parked: int, now: float) -> None:
        """So many instances run or are parked from now on."""
        self._count(now)
        self.standing, self._parked = standing, parked

    def busies(self, by: int, now: float) -> None:
        """So many instances more have calls."""
        self._count(now)
        self._busy += by

    def present(self, load: float, now: float) -> None:
        """So many calls are here: what is needed is told from the most of the last minute or two."""
        if now - self._since > LATELY_S:
            self._before, self._peak, self._since = (self._peak if now - self._since < 2 * LATELY_S else 0.0), 0.0, now
        self._peak = max(self._peak, load)

    @property
    def peak(self) -> float:
        """The most calls at once of the last minute or two."""
        return max(self._peak, self._before)

    def compare(self, running: int, target: float) -> None:
        """`running` instances shall stand, each for `target` calls."""
        need = max(1.0, self.peak / target)
        self.over = max(self.over, running / need - 1)

    def _count(self, now: float) -> None:
        past_s = now - self._at
        if past_s > 0:
            held = max(0, self.standing - self._busy) * self.memory_mb * past_s
            if self._busy:
                self.spare_mb_s += held
            else:
                self.idle_mb_s += held
            self.parked_mb_s += self._parked * PARKED_MB * past_s
            self._at = now
