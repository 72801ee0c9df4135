"""What an avoided cold start may cost: one price for all revisions, such that in all no more is kept warm than their windows would keep.

Every idle time that ends tells two things: for how long an instance was kept through it, and for how long the revision's own stable window
would have kept one. Where several stood when it began, windows would have let the others go step by step; by habits they go as soon
as it is quiet, and what that saves may be spent. The price of a cold start, in idle megabyte-seconds, falls while the first sum is above
`SHARE` of the second and rises while it is below. So the memory that fixed windows would waste is spent, and not more, where it
avoids the most. Pure.
"""

PRICE_MB_S = 15_000.0
"""At first: 128 MB for 117 s."""
LOWEST_MB_S, HIGHEST_MB_S = 2_000.0, 1_000_000.0
SHARE = 1.05
"""Windows last a tick or two longer than they say, and an idle time that has not ended yet is not counted."""
FRUGAL = 0.4
"""For `ebb.dev/policy: frugal`: with the headroom and what is parked, which the budget does not count, half of what windows waste."""
HALF_LIFE_S = 1800.0
EVERY_S = 60.0
GAIN = 0.04
"""The exponent of each correction."""
OTHERS_S = 7.0
"""For how long the others stand by habits at least: until it is quiet, and the next tick."""
OTHERS_SHARE = 0.45
"""So much of the window others stand on average when windows decide; found in simulation."""
_STEEPEST = 2.0


class Budget:
    """Memory-time kept and allowed, fading, and the price that follows from them. Times are seconds of `now`'s clock."""

    __slots__ = ("_at", "_share", "allowed", "kept", "price_mb_s")

    def __init__(self, now: float, share: float = SHARE) -> None:
        self._share = share
        """Of what windows would keep, so much is kept."""
        self.price_mb_s = PRICE_MB_S
        self.kept = self.allowed = 0.0
        """Megabyte-seconds."""
        self._at = now

    def settle(
        self, kept_s: float, window_s: float, memory_mb: float, now: float, others: int = 0, others_s: float = OTHERS_S
    ) -> None:
        """An idle time ended: an instance of `memory_mb` stood for `kept_s` of it, and with a fixed window would have for `window_s`;
        `others` stood beside it when it began, and for `others_s` by habits."""
        self.kept += (kept_s + others * min(window_s, max(OTHERS_S, others_s))) * memory_mb
        self.allowed += (window_s + others * max(min(window_s, OTHERS_S), OTHERS_SHARE * window_s)) * memory_mb
        past_s = now - self._at
        if past_s < EVERY_S:
            return
        self._at = now
        off = max(1 / _STEEPEST, min(_STEEPEST, self._share * self.allowed / self.kept)) if self.kept > 0 else 1.0
        self.price_mb_s = max(LOWEST_MB_S, min(HIGHEST_MB_S, self.price_mb_s * off**GAIN))
        fade = 0.5 ** (past_s / HALF_LIFE_S)
        self.kept *= fade
        self.allowed *= fade
