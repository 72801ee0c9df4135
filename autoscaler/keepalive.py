"""How long an idle revision keeps its last instance, and when one is started ahead of the next request. Pure.

In the manner of the hybrid histogram policy: from the idle times of the revision's own past (`profile`), instead of one window for
all. Being warm through a bin of the histogram costs its width times the chance of still being idle then, and wins the chance that
the next request falls into it. A cold start avoided is worth a price in idle memory-time that is the same for all revisions
(`budget`), so memory goes where it avoids most, and a small app is kept longer than a large one. Two spans are chosen: the one
from the last request on that wins most, and one later. When requests come on a beat, the later one is as narrow as the beat is even,
and nothing is kept until then. What is not known yet is filled by a prior: any order of magnitude of idle time is as likely as
any other. Those beside the first stay for as long as a like sum is worth it to them: a burst that comes in waves finds them.
"""

import math
from dataclasses import dataclass

from autoscaler.profile import BINS, Profile, bin_of, lower_s

PRIOR = 3.0
"""Weight of the prior, in idle times."""
SHORTEST_S = 6.0
"""Nothing is given up sooner: between two requests of one visit."""
LEAST_MB = 16.0
AHEAD = 0.9
"""A start ahead is made at so much of the time that its span begins."""
SHARE = 0.3
"""A span later is only used when so large a share of all idle times end in it."""
OFFS = 4.0
"""A beat's span reaches so many mean deviations to each side, and `SLACK_S` for the tick; it catches `CAUGHT` of the requests."""
SLACK_S = 2.0
CAUGHT = 0.93
OTHERS = 0.5
"""A call that the others meet is worth so much of one that the first meets: not every crowd needs them all."""
OTHERS_MOST_S = 60.0
USUAL_START_S = 0.5
HEAVIEST = 2.0
"""How long a start takes makes it worth at most so many times more, or less, than a usual one."""

_WIDTH_S = [lower_s(index + 1) - lower_s(index) for index in range(BINS)]


@dataclass(frozen=True, slots=True)
class Keep:
    """Warm while idle for less than `keep_s`, and again from `from_s` to `until_s` (0 and 0: not again)."""

    keep_s: float
    from_s: float = 0.0
    until_s: float = 0.0
    why: str = ""
    others_s: float = SHORTEST_S
    """So long after the last request those beside the first stay, where the windows hold them; then one is enough."""

    def warm(self, idle_s: float) -> bool:
        """Whether an instance shall stand after `idle_s` without a request."""
        return idle_s < self.keep_s or self.from_s <= idle_s < self.until_s

    def next_s(self, idle_s: float) -> float:
        """The next idle time at which `warm` turns true; infinity: never."""
        return self.from_s if idle_s < self.from_s < self.until_s else math.inf

    def ends_s(self, idle_s: float) -> float:
        """The idle time up to which `warm` stays what it is at `idle_s`, and whether one is enough."""
        if idle_s < self.others_s < self.keep_s:
            return self.others_s
        if idle_s < self.keep_s:
            return self.keep_s
        return self.until_s if self.from_s <= idle_s < self.until_s else self.next_s(idle_s)

    def held_s(self, idle_s: float) -> float:
        """For how long of an idle time of `idle_s` an instance stood."""
        again_s = min(idle_s, self.until_s) - self.from_s if self.until_s > self.from_s else 0.0
        return min(idle_s, self.keep_s) + max(0.0, again_s)


def plan(profile: Profile, memory_bytes: int, price_mb_s: float) -> Keep:
    """The spans for a revision whose instance holds `memory_bytes`; a call that needs not wait for a start is worth `price_mb_s`."""
    each_s = price_mb_s * _weight(profile.start_s) / max(LEAST_MB, memory_bytes / (1 << 20))
    price_s = each_s * max(1.0, profile.crowd)
    kept, best = _best_start(profile, price_s)
    keep_s = max(SHORTEST_S, lower_s(kept))
    others, _ = _best_start(profile, OTHERS * each_s)
    others_s = min(keep_s, OTHERS_MOST_S, max(SHORTEST_S, lower_s(others)))
    seen = round(profile.seen)
    why = f"of {seen} idle times half ended within {profile.within(0.5):.0f} s; a cold start is worth {price_s:.0f} s of its memory"
    if profile.steady_beat and profile.mean_s > SHORTEST_S:
        half_s, ahead_s = OFFS * profile.off_s + SLACK_S, SLACK_S + profile.start_s
        if CAUGHT * price_s - (2 * half_s + ahead_s) - SHORTEST_S > best:
            from_s, until_s = max(SHORTEST_S, profile.mean_s - half_s - ahead_s), profile.mean_s + half_s
            return Keep(
                SHORTEST_S, from_s, until_s, f"{why}; they come {profile.mean_s:.0f} s apart, give or take {half_s:.0f}"
            )
    after = max(kept, bin_of(SHORTEST_S))
    if profile.seen < 4 or sum(profile.idle[after:BINS]) < SHARE * profile.seen:
        return Keep(keep_s, why=why, others_s=others_s)
    first, last = _best_span(_gains(profile, price_s), after)
    caught = sum(profile.idle[first:last])
    if lower_s(last) <= keep_s or caught < SHARE * profile.seen:
        return Keep(keep_s, why=why, others_s=others_s)
    why += f", and {caught / profile.seen:.0%} end between {lower_s(first):.0f} and {lower_s(last):.0f} s"
    return Keep(keep_s, max(keep_s, AHEAD * lower_s(first) - profile.start_s), lower_s(last), why, others_s)


def _weight(start_s: float) -> float:
    """A start that takes long is worth more to avoid than a short one, but not in proportion; 1 when none was seen."""
    return max(1 / HEAVIEST, min(HEAVIEST, math.sqrt(start_s / USUAL_START_S))) if start_s else 1.0


def _gains(profile: Profile, price_s: float) -> list[float]:
    """What being warm through each bin wins beyond what it costs, in seconds of the instance's memory."""
    total = profile.seen + PRIOR
    each = PRIOR / (BINS + 1)
    gains: list[float] = []
    left = 1.0
    for count, width_s in zip(profile.idle, _WIDTH_S, strict=False):  # What lies beyond the range wins nothing.
        share = (count + each) / total
        gains.append(share * price_s - (left - share / 2) * width_s)
        left -= share
    return gains


def _best_start(profile: Profile, price_s: float) -> tuple[int, float]:
    """How many bins from the first on are worth most together, and what: the sum of their `_gains`, which ends where all that is left
    could not make up for what it has cost since."""
    all_, each = profile.seen + PRIOR, PRIOR / (BINS + 1)
    best = total = 0.0
    bins, left = 0, 1.0
    for index, (count, width_s) in enumerate(zip(profile.idle, _WIDTH_S, strict=False)):
        share = (count + each) / all_
        total += share * price_s - (left - share / 2) * width_s
        left -= share
        if total > best:
            best, bins = total, index + 1
        elif total + left * price_s < best:
            break
    return bins, best


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
