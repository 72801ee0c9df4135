"""How long an idle revision keeps its last instance, and when one is started ahead of the next request. Pure.

In the manner of the hybrid histogram policy: from the idle times of the revision's own past (`profile`), instead of one window for
all. Being warm through a bin of the histogram costs its width times the chance of still being idle then, and wins the chance that
the next request falls into it. A cold start avoided is worth `PRICE_MB_S` of idle memory, so a small app is kept longer than a
large one. Two spans are chosen: the one from the last request on that wins most, and one later, when requests come on a
beat. What is not known yet is filled by a prior: any order of magnitude of idle time is as likely as any other.
"""

import math
from dataclasses import dataclass

from autoscaler.profile import BINS, Profile, bin_of, lower_s

PRICE_MB_S = 30_000.0
"""Idle megabyte-seconds that one avoided cold start is worth: 128 MB for 234 s."""
PRIOR = 3.0
"""Weight of the prior, in idle times."""
SHORTEST_S = 6.0
"""Nothing is given up sooner: between two requests of one visit."""
LEAST_MB = 16.0
AHEAD = 0.9
"""A start ahead is made at so much of the time that its span begins."""
BEAT = 0.3
"""A span later is only used when so large a share of all idle times end in it."""

_WIDTH_S = [lower_s(index + 1) - lower_s(index) for index in range(BINS)]


@dataclass(frozen=True, slots=True)
class Keep:
    """Warm while idle for less than `keep_s`, and again from `from_s` to `until_s` (0 and 0: not again)."""

    keep_s: float
    from_s: float = 0.0
    until_s: float = 0.0
    why: str = ""

    def warm(self, idle_s: float) -> bool:
        """Whether an instance shall stand after `idle_s` without a request."""
        return idle_s < self.keep_s or self.from_s <= idle_s < self.until_s

    def next_s(self, idle_s: float) -> float:
        """The next idle time at which `warm` turns true; infinity: never."""
        return self.from_s if idle_s < self.from_s < self.until_s else math.inf


def plan(profile: Profile, memory_bytes: int) -> Keep:
    """The spans for a revision whose instance holds `memory_bytes`."""
    price_s = PRICE_MB_S / max(LEAST_MB, memory_bytes / (1 << 20))
    total = profile.seen + PRIOR
    each = PRIOR / (BINS + 1)
    gains: list[float] = []
    left = 1.0
    for index in range(BINS):
        share = (profile.idle[index] + each) / total
        gains.append(share * price_s - (left - share / 2) * _WIDTH_S[index])
        left -= share
    kept = _best_start(gains)
    keep_s = max(SHORTEST_S, lower_s(kept))
    first, last = _best_span(gains, max(kept, bin_of(SHORTEST_S)))
    caught = sum(profile.idle[first:last])
    if lower_s(last) <= keep_s or profile.seen < 4 or caught < BEAT * profile.seen:
        first = last = 0
    seen = round(profile.seen)
    why = f"of {seen} idle times half ended within {profile.within(0.5):.0f} s; a cold start is worth {price_s:.0f} s of its memory"
    if last > first:
        why += f", and {caught / profile.seen:.0%} end between {lower_s(first):.0f} and {lower_s(last):.0f} s"
        return Keep(keep_s, max(keep_s, AHEAD * lower_s(first)), lower_s(last), why)
    return Keep(keep_s, why=why)


def _best_start(gains: list[float]) -> int:
    """How many bins from the first on are worth most together."""
    best = total = 0.0
    bins = 0
    for index, gain in enumerate(gains):
        total += gain
        if total > best:
            best, bins = total, index + 1
    return bins


def _best_span(gains: list[float], after: int) -> tuple[int, int]:
    """The span of bins from `after` on that is worth most together; (0, 0) when none is worth anything."""
    best = total = 0.0
    span, begin = (0, 0), after
    for index in range(after, len(gains)):
        if total <= 0:
            total, begin = 0.0, index
        total += gains[index]
        if total > best:
            best, span = total, (begin, index + 1)
    return span
