"""What the activators say, merged into one signal a revision.

Each activator reports once a second the mean of requests in flight and queued; their sum is the revision's concurrency. An
activator's report counts for exactly one second: reports that arrive a little early or late are put into the second they
belong to, and several within one second (the report on 0 → 1, a wake) are averaged by their intervals, not added.
A sender that is silent for `stale_after_s` no longer counts as in flight; the windows keep what it said.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct, structs

from autoscaler.utilization import Usage, Used
from autoscaler.window import Window, panic_length_s
from store.messages import Sample
from store.model import RevisionKey, ScaleSpec

STALE_AFTER_S = 5.0
_INSTANT_S = 0.02
"""The interval that a wake, or a report without one, stands for."""


class Signal(Struct, frozen=True):
    """What is known of one revision's load now. `stable` and `panic` are None while nothing was ever heard."""

    stable: float | None = None
    panic: float | None = None
    in_flight: int = 0
    queued: int = 0
    busy: dict[str, int] = {}
    """In flight by instance; who is not here is idle."""
    swelling: bool = False
    """A line somewhere is longer than what serves and comes will have served in a second."""
    used: Used | None = None
    """What its instances use, where a node is asked to say."""
    unreported: bool = False
    """A sender fell silent while it had load: what it has now is not known."""

    @property
    def load(self) -> int:
        return self.in_flight + self.queued


@dataclass(slots=True)
class _Sender:
    heard_at: float
    second: int
    mass: float = 0.0
    weight: float = 0.0
    counted: float = 0.0
    in_flight: int = 0
    queued: int = 0
    swelling: bool = False
    busy: dict[str, int] = field(default_factory=dict)


class Track:
    """One active revision's windows and senders. Takes about 1.5 KB with a 60 s window."""

    __slots__ = ("_panic", "_rps", "_senders", "_stable", "loaded_at", "spec")

    def __init__(self, spec: ScaleSpec) -> None:
        exponential = spec.aggregation == "weighted-exponential"
        self.spec = spec
        self._rps = spec.metric == "rps"
        self._stable = Window(spec.stable_window_s, exponential=exponential)
        self._panic = Window(panic_length_s(spec.stable_window_s, spec.panic_window_percentage), exponential=exponential)
        self._senders: dict[str, _Sender] = {}
        self.loaded_at = -math.inf
        """When load other than zero was last heard of."""

    def wake(self, sender: str, waiting: int, now: float) -> None:
        """`waiting` requests have no instance: as good as a report of that concurrency at this instant."""
        known = self._senders.get(sender)
        if known is not None and known.heard_at > now - 1 and known.queued >= waiting:
            self.loaded_at = now
            return
        self.take(sender, _INSTANT_S, Sample(revision="", concurrency=waiting, requests=waiting, queued=waiting), now)

    def take(self, sender: str, interval_s: float, sample: Sample, now: float) -> None:
        """Count one report that covers the `interval_s` before `now`."""
        known = self._senders.get(sender)
        second = math.floor(now)
        if known is None or now - known.heard_at > min(2 * interval_s + 1, STALE_AFTER_S):
            # The mean of a report after a silence is over the silence too: what is there now says more.
            sample = structs.replace(sample, concurrency=max(sample.concurrency, float(sample.in_flight + sample.queued)))
        if known is None:
            known = self._senders[sender] = _Sender(now, second)
        elif interval_s >= 0.75:
            second = _belongs(second, known.second)
        else:
            # The last full report may have been put into the second that follows: what comes before that counts there too.
            second = max(second, known.second)
        if second != known.second:
            known.second, known.mass, known.weight, known.counted = second, 0.0, 0.0, 0.0
        self._count(known, second, interval_s, sample)
        known.heard_at = now
        known.in_flight, known.queued, known.busy = sample.in_flight, sample.queued, sample.by_instance
        known.swelling = sample.swelling
        if sample.in_flight or sample.requests > 0 or sample.concurrency > 0 or sample.queued:
            self.loaded_at = now

    def _count(self, known: _Sender, second: int, interval_s: float, sample: Sample) -> None:
        if self._rps:
            value = float(sample.requests)
        else:
            weight = interval_s if interval_s > _INSTANT_S else _INSTANT_S
            known.mass += sample.concurrency * weight
            known.weight += weight
            mean = known.mass / known.weight
            value, known.counted = mean - known.counted, mean
        self._stable.add(second, value)
        self._panic.add(second, value)

    def repeat(self, sender: str, in_flight: int, now: float) -> bool:
        """Count a report that says what the last one of `sender` said: `in_flight` for the whole second, none came and none waits. False
        when the last one said something else."""
        known = self._senders.get(sender)
        if known is None or known.in_flight != in_flight or known.queued or known.swelling or now - known.heard_at > 1.5:
            return False
        second = _belongs(math.floor(now), known.second)
        value = 0.0 if self._rps else float(known.in_flight)
        self._stable.add(second, value)
        self._panic.add(second, value)
        known.second, known.mass, known.weight, known.counted = second, value, 1.0, value
        known.heard_at = self.loaded_at = now
        return True

    def averages(self, now: float) -> tuple[float | None, float | None]:
        """Of the stable and of the panic window, as in `signal`."""
        return self._stable.average(now), self._panic.average(now)

    def leaves(self, now: float, stable: tuple[float, float], panic: tuple[float, float]) -> float:
        """When, with nothing said any more, one of the averages is first outside its pair, not above the first or over the second."""
        return min(self._stable.leaves(now, *stable), self._panic.leaves(now, *panic))

    def signal(self, now: float, stale_after_s: float = STALE_AFTER_S) -> Signal:
        """The merged view at `now`; senders silent for too long are dropped."""
        in_flight = queued = 0
        busy: dict[str, int] = {}
        unreported = swelling = False
        for sender in list(self._senders):
            known = self._senders[sender]
            if now - known.heard_at > stale_after_s:
                had_load = known.in_flight or known.queued
                if not had_load or now - known.heard_at > max(stale_after_s, self.spec.stable_window_s):
                    del self._senders[sender]
                else:
                    unreported = True
                continue
            in_flight += known.in_flight
            queued += known.queued
            swelling |= known.swelling
            for instance, count in known.busy.items():
                busy[instance] = busy.get(instance, 0) + count
        return Signal(self._stable.average(now), self._panic.average(now), in_flight, queued, busy, swelling, None, unreported)


def _belongs(second: int, last: int) -> int:
    """The second that a full report belongs to: the one after the sender's last, when it is at most one off."""
    return last + 1 if second in (last, last + 2) else second


class Signals:
    """All active revisions. A revision nobody speaks of costs nothing here."""

    def __init__(self) -> None:
        self._tracks: dict[RevisionKey, Track] = {}
        self._usage: dict[RevisionKey, Usage] = {}

    def __len__(self) -> int:
        return len(self._tracks)

    def __contains__(self, revision: RevisionKey) -> bool:
        return revision in self._tracks

    def track(self, revision: RevisionKey, spec: ScaleSpec) -> Track:
        """The revision's track, made on first use."""
        track = self._tracks.get(revision)
        if track is None:
            track = self._tracks[revision] = Track(spec)
        return track

    def view(self, revision: RevisionKey, now: float) -> Signal:
        track = self._tracks.get(revision)
        signal = track.signal(now) if track is not None else Signal()
        usage = self._usage.get(revision)
        return structs.replace(signal, used=usage.mean(now)) if usage is not None else signal

    def usage(self, revision: RevisionKey) -> Usage:
        """What the revision's instances use; made on first use."""
        found = self._usage.get(revision)
        if found is None:
            found = self._usage[revision] = Usage()
        return found

    def averages(self, revision: RevisionKey, now: float) -> tuple[float | None, float | None]:
        """Of the stable and of the panic window; None when nothing was heard."""
        track = self._tracks.get(revision)
        return track.averages(now) if track is not None else (None, None)

    def leaves(self, revision: RevisionKey, now: float, stable: tuple[float, float], panic: tuple[float, float]) -> float:
        """When its averages are first outside these pairs, as in `Track.leaves`; now, when nothing was heard."""
        track = self._tracks.get(revision)
        return track.leaves(now, stable, panic) if track is not None else now

    def loaded_at(self, revision: RevisionKey) -> float:
        """When the revision last had load, on the clock of `now`; minus infinity when never."""
        track = self._tracks.get(revision)
        return track.loaded_at if track is not None else -math.inf

    def forget(self, revisions: Iterable[RevisionKey]) -> None:
        for revision in revisions:
            self._tracks.pop(revision, None)
            self._usage.pop(revision, None)
