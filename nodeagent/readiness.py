"""When to probe and what the answers mean: Kubernetes' rules as a pure machine over one instance's probes.

    state = Readiness(plan_of(revision), started_at=now)
    while (due := state.next_due()) is not None:      # (which, at)
        … at that time: run the probe, then
        verdict = state.answer(which, ok, now, why)   # a Verdict or None

The startup probe gates the others. Starting, before the first success, a probe without its own pace is tried every 2 ms at
first and then ever more slowly up to 50 ms: an app that listens after 7 ms is found after 8.
"""

from dataclasses import dataclass
from enum import StrEnum

from store.model import Probe, Revision

FIRST_GAP_S = 0.001
FAST_GAP_S = 0.002
FAST_FOR_S = 0.1
SLOWEST_FAST_GAP_S = 0.05
RECOVERY_GAP_S = 1.0
"""Between probes of an instance that was Ready before."""
STARTUP_DEADLINE_S = 240.0
"""An instance that was never ready by then is given up, if its revision has no shorter progress deadline and no startup probe."""
STEADY_PERIOD_S = 10.0
"""Between readiness probes of an instance that is Ready, when the probe has no period of its own."""


class Which(StrEnum):
    """A revision's three probes."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


class Became(StrEnum):
    """What the answers add up to."""

    READY = "ready"
    NOT_READY = "not ready"
    STARTUP_FAILED = "startup failed"
    LIVENESS_FAILED = "liveness failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A change of mind; `message` says why, for people. After the two failures nothing is probed any more."""

    became: Became
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """The probes of one instance, ports filled in."""

    readiness: Probe
    startup: Probe | None = None
    liveness: Probe | None = None
    deadline_s: float = STARTUP_DEADLINE_S
    """From the start, or from the startup probe's success, to the first Ready."""
    startup_deadline_s: float = STARTUP_DEADLINE_S
    """From the start to the startup probe's success."""

    def probe(self, which: Which) -> Probe:
        """The probe called `which`, which must be there."""
        found = {Which.STARTUP: self.startup, Which.READINESS: self.readiness, Which.LIVENESS: self.liveness}[which]
        assert found is not None
        return found


def plan_of(revision: Revision) -> ProbePlan:
    """The plan for a revision. To become ready it has the shorter of its progress deadline and 240 s; its startup probe, if it has
    one, first has its own budget: the delay and as many periods as it may fail."""
    deadline = min(revision.progress_deadline_s, STARTUP_DEADLINE_S)
    startup = revision.startup_probe
    if startup is None:
        return ProbePlan(revision.readiness_probe, None, revision.liveness_probe, deadline, deadline)
    budget = startup.initial_delay_s + startup.failure_threshold * startup.period_s if startup.period_s else deadline
    return ProbePlan(revision.readiness_probe, startup, revision.liveness_probe, deadline, budget)


def _pace(probe: Probe) -> float:
    return probe.period_s or STEADY_PERIOD_S


@dataclass(slots=True)
class _Track:
    due: float
    passed: int = 0
    failed: int = 0


class Readiness:
    """One instance's probes in time. `started_at` and every `now` are monotonic seconds."""

    def __init__(self, plan: ProbePlan, started_at: float) -> None:
        self.plan = plan
        self.ready = False
        self.over = False
        self._since = started_at
        self._deadline: float | None = started_at + (plan.startup_deadline_s if plan.startup else plan.deadline_s)
        self._last = "it was not probed yet"
        self._tracks: dict[Which, _Track] = {}
        if plan.startup is not None:
            self._tracks[Which.STARTUP] = _Track(started_at + self._first(plan.startup))
        else:
            self._open(started_at)

    @classmethod
    def already_ready(cls, plan: ProbePlan, now: float) -> "Readiness":
        """For an instance that was Ready before the agent began to watch it: its startup is behind it."""
        found = cls(ProbePlan(plan.readiness, None, plan.liveness, plan.deadline_s), now)
        found.ready, found._deadline = True, None
        found._tracks[Which.READINESS].due = now + found._gap(Which.READINESS, now)
        return found

    def next_due(self) -> tuple[Which, float] | None:
        """Which probe to run next and when; None when it is over."""
        if self.over or not self._tracks:
            return None
        which = min(self._tracks, key=lambda each: self._tracks[each].due)
        return which, self._tracks[which].due

    @property
    def deadline(self) -> float | None:
        """When `expired` must be asked at the latest; None once it was ready."""
        return None if self.over else self._deadline

    def expired(self, now: float) -> Verdict | None:
        """The verdict that it took too long, if it did."""
        if self.over or self._deadline is None or now < self._deadline:
            return None
        self.over = True
        took = f"{now - self._since:.0f}s"
        return Verdict(
            Became.STARTUP_FAILED, f"not ready within {took}: {self._last}; see its logs, or give it a startup probe"
        )

    def answer(self, which: Which, ok: bool, now: float, why: str = "") -> Verdict | None:
        """Take in the outcome of a probe that ended at `now`. `why` says why it failed."""
        track = self._tracks.get(which)
        if self.over or track is None:
            return None
        probe = self.plan.probe(which)
        if ok:
            track.passed, track.failed = track.passed + 1, 0
        else:
            track.passed, track.failed = 0, track.failed + 1
            self._last = f"{which} probe: {why or 'failed'}"
        verdict = self._judge(which, probe, track, now)
        if which in self._tracks:
            track.due = now + self._gap(which, now)
        return verdict

    def shift(self, seconds: float) -> None:
        """Move all that is planned: the instance stood still (frozen) for so long."""
        for track in self._tracks.values():
            track.due += seconds
        if self._deadline is not None:
            self._deadline += seconds

    def _judge(self, which: Which, probe: Probe, track: _Track, now: float) -> Verdict | None:
        if which is Which.STARTUP:
            if track.passed >= 1:
                del self._tracks[which]
                self._open(now)
                self._deadline = now + self.plan.deadline_s
            elif track.failed >= probe.failure_threshold and not self._fast(probe):
                self.over = True
                return Verdict(Became.STARTUP_FAILED, f"startup probe failed {track.failed} times in a row; {self._last}")
        elif which is Which.LIVENESS:
            if track.failed >= probe.failure_threshold:
                self.over = True
                return Verdict(Became.LIVENESS_FAILED, f"liveness probe failed {track.failed} times in a row; {self._last}")
        elif not self.ready and track.passed >= probe.success_threshold:
            self.ready, self._deadline = True, None
            return Verdict(Became.READY)
        elif self.ready and track.failed >= probe.failure_threshold:
            self.ready = False
            return Verdict(Became.NOT_READY, f"readiness probe failed {track.failed} times in a row; {self._last}")
        return None

    def _open(self, now: float) -> None:
        self._tracks[Which.READINESS] = _Track(now + self._first(self.plan.readiness))
        if self.plan.liveness is not None:
            self._tracks[Which.LIVENESS] = _Track(now + self.plan.liveness.initial_delay_s)

    def _first(self, probe: Probe) -> float:
        return probe.initial_delay_s or (FIRST_GAP_S if self._fast(probe) else 0.0)

    def _gap(self, which: Which, now: float) -> float:
        probe = self.plan.probe(which)
        if which is Which.LIVENESS or (which is Which.READINESS and self.ready) or not self._fast(probe):
            return _pace(probe)
        if self._deadline is None:
            return min(RECOVERY_GAP_S, _pace(probe))
        # A twentieth of the time it has been waiting: quick at first, then patient.
        waiting = now - self._since - probe.initial_delay_s
        return FAST_GAP_S if waiting < FAST_FOR_S else min(SLOWEST_FAST_GAP_S, max(FAST_GAP_S, waiting / 20))

    def _fast(self, probe: Probe) -> bool:
        """Whether its pace at the start is ours to choose: no period was given, or it is the default TCP probe."""
        return probe.period_s == 0 or (probe.kind == "tcp" and probe.period_s == Probe().period_s)
