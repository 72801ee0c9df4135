"""What is counted, cheaply: plain ints on the request path, made into Prometheus samples only when somebody scrapes.

Labels are bounded: revisions up to `METRIC_REVISIONS_MOST` (the rest is `other`), reasons are the rows of the refusals' table.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ingress.limits import METRIC_REVISIONS_MOST
from ingress.routes import Routes

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper edges in seconds."""
HANDSHAKE_OUTCOMES_MOST = 50
OTHER = "other"
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Times:
    """A histogram of seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def plus(self, other: "Times") -> "Times":
        both = Times()
        both.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        both.sum = self.sum + other.sum
        return both

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        total = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return found


class Stats:
    """One revision's. `queue` and `connect` count only requests that waited or connected: for the others both are 0.

    `at_once`: answers that came whole with their head; their first byte and their end are one, counted once.
    """

    __slots__ = (
        "at_once", "by_class", "connect", "first_byte", "queue", "received_bytes", "refusals",
        "revision", "sent_bytes", "tcp", "total", "unrouted",
    )  # fmt: skip

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.by_class = [0] * 6
        self.queue = Times()
        self.connect = Times()
        self.first_byte = Times()
        self.total = Times()
        self.at_once = Times()
        self.sent_bytes = 0
        self.received_bytes = 0
        self.tcp = 0
        """Raw TCP connections that reached an instance."""
        self.refusals: dict[str, int] = {}
        self.unrouted = False
        """No route named it when it was last scraped."""


class Metrics:
    """All counters of one front door."""

    def __init__(self) -> None:
        self.revisions: dict[str, Stats] = {}
        self.refusals: dict[str, int] = {}
        self.handshakes: dict[str, int] = {}
        """TLS, by outcome: full, resumed, timeout, or what the library calls the failure."""
        self.mirror: dict[str, int] = {}
        self.connections = 0
        self.connections_total = 0
        self.upstream_connects = 0
        self.upstream_failures = 0
        self.access_lines_lost = 0
        self.spans_sent = 0
        self.spans_lost = 0
        self.loop_late = Times()
        """By how much the event loop was late for what was due: a stall, or too much work."""

    def stats(self, revision: str) -> Stats:
        """The counters of `revision`; those of `other` once there are too many."""
        found = self.revisions.get(revision)
        if found is None:
            if len(self.revisions) >= METRIC_REVISIONS_MOST:
                return self.revisions.setdefault(OTHER, Stats(OTHER))
            found = self.revisions[revision] = Stats(revision)
        return found

    def refused(self, reason: str, stats: Stats | None = None) -> None:
        """One more for `reason`, of a revision that is known or of none."""
        counts = self.refusals if stats is None else stats.refusals
        counts[reason] = counts.get(reason, 0) + 1

    def forget(self, stays: Callable[[str], bool]) -> None:
        """Drop revisions that do not stay, nor did when this was last called: their last numbers are scraped once more."""
        for stats in list(self.revisions.values()):
            gone = stats.revision != OTHER and not stays(stats.revision)
            if gone and stats.unrouted:
                del self.revisions[stats.revision]
            stats.unrouted = gone

    def handshake(self, outcome: str) -> None:
        if outcome in self.handshakes or len(self.handshakes) < HANDSHAKE_OUTCOMES_MOST:
            self.handshakes[outcome] = self.handshakes.get(outcome, 0) + 1

    def mirrored(self, outcome: str) -> None:
        """A request that was to be copied: `answered`, `refused` by the front door, or not sent (`too-large`, `busy`)."""
        self.mirror[outcome] = self.mirror.get(outcome, 0) + 1


class Exposition(Collector):
    """`metrics` for a Prometheus registry. `now` gives (revision, in flight, queued) of those that have any.

    What no route names and nothing is in flight of is forgotten.
    """

    def __init__(self, metrics: Metrics, now: Callable[[], list[tuple[str, int, int]]], routes: Routes) -> None:
        self._metrics = metrics
        self._now = now
        self._routes = routes

    def collect(self) -> Iterator[Metric]:
        busy = {revision for revision, _, _ in self._now()}
        self._metrics.forget(lambda revision: revision in busy or self._routes.names(revision))
        yield from self._requests()
        yield from self._present()
        one = self._metrics
        for name, doc, value in (
            ("ebb_ingress_connections", "Client connections open now.", one.connections),
            ("ebb_ingress_routes", "Routes known.", len(self._routes)),
        ):
            gauge = GaugeMetricFamily(name, doc)
            gauge.add_metric([], value)
            yield gauge
        for name, doc, value in (
            ("ebb_ingress_connections_accepted", "Client connections accepted.", one.connections_total),
            ("ebb_ingress_upstream_connects", "Connections made to instances.", one.upstream_connects),
            ("ebb_ingress_upstream_connect_failures", "Connections to instances that failed.", one.upstream_failures),
            ("ebb_ingress_access_lines_lost", "Access log lines dropped because their reader is slow.", one.access_lines_lost),
            ("ebb_ingress_spans_sent", "Spans that the trace collector took.", one.spans_sent),
            ("ebb_ingress_spans_lost", "Spans dropped because the collector is slow or away.", one.spans_lost),
        ):
            counter = CounterMetricFamily(name, doc)
            counter.add_metric([], value)
            yield counter
        late = HistogramMetricFamily("ebb_ingress_loop_late_seconds", "How late the event loop was, ten times a second.")
        late.add_metric([], one.loop_late.buckets(), one.loop_late.sum)
        yield late

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "ebb_ingress_requests", "Requests answered, by class of status.", labels=("revision", "code")
        )
        phases = HistogramMetricFamily(
            "ebb_ingress_seconds",
            "Time of requests by phase; queue and connect only where there was any.",
            labels=("revision", "phase"),
        )
        sizes = CounterMetricFamily("ebb_ingress_bytes", "Bytes of bodies.", labels=("revision", "direction"))
        tcp = CounterMetricFamily(
            "ebb_ingress_tcp_connections", "Raw TCP connections that reached an instance.", labels=("revision",)
        )
        known = list(self._metrics.revisions.values())
        for stats in known:
            for place, label in enumerate(CLASSES, 1):
                if stats.by_class[place]:
                    requests.add_metric([stats.revision, label], stats.by_class[place])
            for phase in ("queue", "connect", "first_byte", "total"):
                times: Times = getattr(stats, phase)
                if phase in ("first_byte", "total"):
                    times = times.plus(stats.at_once)
                if any(times.counts):
                    phases.add_metric([stats.revision, phase], times.buckets(), times.sum)
            sizes.add_metric([stats.revision, "sent"], stats.sent_bytes)
            sizes.add_metric([stats.revision, "received"], stats.received_bytes)
            if stats.tcp:
                tcp.add_metric([stats.revision], stats.tcp)
        refusals = CounterMetricFamily(
            "ebb_ingress_refusals", "Requests answered by the front door itself.", labels=("revision", "reason")
        )
        for revision, counts in (("", self._metrics.refusals), *((each.revision, each.refusals) for each in known)):
            for reason, count in counts.items():
                refusals.add_metric([revision, reason], count)
        mirrored = CounterMetricFamily("ebb_ingress_mirrored", "Requests that were to be mirrored.", labels=("outcome",))
        for outcome, count in self._metrics.mirror.items():
            mirrored.add_metric([outcome], count)
        yield from (requests, phases, sizes, tcp, refusals, mirrored)
        if self._metrics.handshakes:
            handshakes = CounterMetricFamily("ebb_ingress_handshakes", "TLS handshakes, by outcome.", labels=("outcome",))
            for outcome, count in self._metrics.handshakes.items():
                handshakes.add_metric([outcome.lower()], count)
            yield handshakes

    def _present(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily("ebb_ingress_in_flight", "Requests at instances now.", labels=("revision",))
        queued = GaugeMetricFamily("ebb_ingress_queued", "Requests waiting now.", labels=("revision",))
        for revision, flying, waiting in self._now()[:METRIC_REVISIONS_MOST]:
            in_flight.add_metric([revision], flying)
            queued.add_metric([revision], waiting)
        yield from (in_flight, queued)
