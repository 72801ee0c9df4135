"""What is learned of one revision from what passes by: how long it is idle between requests, how long its starts take. Pure.

Less than a kilobyte each. Idle times are counted in bins that grow by a tenth, from a second to four hours, so that seconds and
hours are known equally well; the older count half after every `HALVE_AT` new ones, so that a changed habit is learned.
"""

import math
from array import array
from collections.abc import Mapping

from autoscaler.footprint import Footprint
from autoscaler.pace import Pace

FIRST_S = 1.0
GROWTH = 1.1
RANGE_S = 4 * 3600.0
BINS = math.ceil(math.log(RANGE_S / FIRST_S, GROWTH))
HALVE_AT = 500
GAP_S = 2.5
"""Load is reported every second; silence for longer was idleness."""
PHASES = 8
"""Phases of a start that are kept."""
BEAT_SEEN = 4
"""Idle times that a beat is told from at least."""
BEAT_EVEN = 0.12
"""Idle times that differ from their mean by no larger share of it, on average, are a beat."""
CROWD_MOST = 50
MEMORY_FADES = 0.005
"""So much of what is above the present use is forgotten with each report."""
_NEW = 0.2
"""Weight of the newest in a running mean."""
_LOG = math.log(GROWTH)


def lower_s(index: int) -> float:
    """Where bin `index` begins; the first begins at 0."""
    return FIRST_S * GROWTH**index if index else 0.0


def bin_of(idle_s: float) -> int:
    """The bin of an idle time; `BINS` when it is longer than the range."""
    if idle_s < FIRST_S * GROWTH:
        return 0
    return min(BINS, int(math.log(idle_s / FIRST_S) / _LOG + 1e-9))


class Profile:
    """One revision's habits. Times are seconds."""

    __slots__ = (
        "busy_at",
        "count",
        "cpu_m",
        "crowd",
        "footprint",
        "idle",
        "mean_s",
        "memory_bytes",
        "off_s",
        "pace",
        "phases_s",
        "seen",
        "start_s",
    )

    def __init__(self) -> None:
        self.idle = array("f", bytes(4 * (BINS + 1)))
        """Idle times by bin; the last one holds those beyond the range."""
        self.seen = 0.0
        """Sum of `idle`."""
        self.count = 0
        """Idle times seen in all."""
        self.mean_s = self.off_s = 0.0
        """Running means of the idle times and of how far they are from that mean."""
        self.busy_at = -math.inf
        """When load was last heard of."""
        self.crowd = 1.0
        """Running mean of the calls that wait for the first instance when it is ready."""
        self.pace = Pace()
        self.footprint: Footprint | None = None
        """What a call takes; kept of what its nodes are asked about."""
        self.cpu_m = 0.0
        """Running mean of an instance's CPU, where its nodes say it."""
        self.memory_bytes = 0
        """The most that an instance held lately."""
        self.start_s = 0.0
        """Running mean of a start; 0: none seen."""
        self.phases_s: dict[str, float] = {}

    def loaded(self, now: float) -> float:
        """There is load at `now`: the idle time that ended with it; 0 when load was heard of within `GAP_S`, or never."""
        idle_s = now - self.busy_at
        self.busy_at = max(now, self.busy_at)
        if not GAP_S < idle_s < math.inf:
            return 0.0
        self.was_idle(idle_s)
        return idle_s

    def was_idle(self, idle_s: float) -> None:
        """A request came after `idle_s` without any."""
        if self.seen >= HALVE_AT:
            self.idle = array("f", (count / 2 for count in self.idle))
            self.seen /= 2
        self.idle[bin_of(idle_s)] += 1
        self.seen += 1
        self.count += 1
        new = max(_NEW / 2, 1 / self.count)
        off_s = abs(idle_s - self.mean_s) if self.count > 1 else 0.0
        self.off_s += (
            max(new, 1 / 3) * (off_s - self.off_s) if self.count <= 3 else new * (min(off_s, self.mean_s) - self.off_s)
        )
        self.mean_s += new * (idle_s - self.mean_s)

    @property
    def steady_beat(self) -> bool:
        """Whether the next request can be told from the last: all idle times are about the same."""
        return self.count >= BEAT_SEEN and self.off_s < BEAT_EVEN * self.mean_s

    def started(self, took_s: float, phases_ms: Mapping[str, float]) -> None:
        """An instance became ready `took_s` after it was asked for; `phases_ms` as its node says."""
        self.start_s = _mean(self.start_s, took_s)
        for name, value in phases_ms.items():
            if name in self.phases_s or len(self.phases_s) < PHASES:
                self.phases_s[name] = _mean(self.phases_s.get(name, 0.0), value / 1000)

    def met(self, waiting: int) -> None:
        """`waiting` calls found nothing running and were there when the first instance became ready."""
        self.crowd += _NEW * (min(waiting, CROWD_MOST) - self.crowd)

    def used(self, cpu_m: float, memory_bytes: float, calls: float | None = None) -> None:
        """An instance uses so much now, and has so many calls at once; None when that is not known."""
        if calls is not None:
            self.footprint = self.footprint or Footprint()
            self.footprint.note(calls, cpu_m, memory_bytes)
        self.cpu_m += _NEW * (cpu_m - self.cpu_m) if self.cpu_m else cpu_m
        self.memory_bytes = int(max(memory_bytes, self.memory_bytes - MEMORY_FADES * (self.memory_bytes - memory_bytes)))

    def within(self, share: float) -> float:
        """The idle time that `share` of all were no longer than (0…1); the range when it lies beyond, 0 when none was seen."""
        if not self.seen:
            return 0.0
        so_far = 0.0
        for index, count in enumerate(self.idle):
            so_far += count
            if count and so_far >= share * self.seen - 1e-6:
                return min(RANGE_S, lower_s(index + 1))
        return RANGE_S


def _mean(old: float, new: float) -> float:
    return new if not old else old + _NEW * (new - old)
