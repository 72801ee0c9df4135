"""Numbers, and the log."""

import json
import os

from prometheus_client import CollectorRegistry, generate_latest

from ingress.access_log import AccessLog, Line
from ingress.limits import METRIC_REVISIONS_MOST
from ingress.metrics import Exposition, Metrics
from ingress.routes import Routes
from store.model import Limits, RouteEntry, TrafficTarget


def routes(*revisions: str) -> Routes:
    made = Routes()
    targets = [TrafficTarget(revision=name, percent=100) for name in revisions]
    entry = RouteEntry(project="p", route="x", hosts={"h": targets}, limits={name: Limits() for name in revisions})
    made.put("routes/p/x", entry)
    return made


def scrape(metrics: Metrics, routes: Routes, present: list[tuple[str, int, int]]) -> str:
    registry = CollectorRegistry()
    registry.register(Exposition(metrics, lambda: present, routes))
    return generate_latest(registry).decode()


def test_a_revision_that_no_route_names_is_scraped_once_more_and_forgotten() -> None:
    metrics, known = Metrics(), routes("r")
    metrics.stats("p/r").by_class[2] += 1
    metrics.stats("p/old").by_class[2] += 1
    metrics.stats("p/busy").by_class[2] += 1
    metrics.forget(lambda _: True)
    for _ in range(2):
        scrape(metrics, known, [("p/busy", 1, 0)])
    assert sorted(metrics.revisions) == ["p/busy", "p/r"]
    known.delete("routes/p/x")
    assert 'revision="p/r"' in scrape(metrics, known, [])
    assert 'revision="p/r"' not in scrape(metrics, known, [])


def test_what_was_counted_is_scraped() -> None:
    metrics = Metrics()
    stats = metrics.stats("p/r")
    stats.by_class[2] += 3
    stats.total.add(0.002)
    stats.total.add(700)
    metrics.refused("no-route")
    metrics.refused("queue-full", stats)
    metrics.loop_late.add(0.3)
    text = scrape(metrics, routes("r"), [("p/r", 4, 5)])
    for line in (
        'ebb_ingress_requests_total{code="2xx",revision="p/r"} 3.0',
        'ebb_ingress_seconds_bucket{le="0.0025",phase="total",revision="p/r"} 1.0',
        'ebb_ingress_seconds_count{phase="total",revision="p/r"} 2.0',
        'ebb_ingress_refusals_total{reason="no-route",revision=""} 1.0',
        'ebb_ingress_refusals_total{reason="queue-full",revision="p/r"} 1.0',
        'ebb_ingress_loop_late_seconds_bucket{le="0.25"} 0.0',
        'ebb_ingress_loop_late_seconds_bucket{le="0.5"} 1.0',
        'ebb_ingress_in_flight{revision="p/r"} 4.0',
        'ebb_ingress_queued{revision="p/r"} 5.0',
        "ebb_ingress_routes 1.0",
    ):
        assert line in text


def test_revisions_beyond_the_bound_share_one_set() -> None:
    metrics = Metrics()
    for place in range(METRIC_REVISIONS_MOST + 10):
        metrics.stats(f"p/r{place}")
    assert len(metrics.revisions) == METRIC_REVISIONS_MOST + 1
    assert metrics.stats("p/another") is metrics.stats("p/more")


def line(target: str = "/", status: int = 200) -> Line:
    return Line(at=1.0, client="::1", method="GET", host="h", target=target, status=status, took_s=0.1, request_id="x")


def test_a_log_line_cannot_be_forged_from_a_target() -> None:
    read, write = os.pipe()
    log = AccessLog("full", Metrics(), write)
    log.write(line('/"}\n{"at":9}'))
    log.close()
    os.close(write)
    with os.fdopen(read, "rb") as end:
        lines = end.read().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["target"] == '/"}\n{"at":9}'


def test_a_log_nobody_reads_costs_lines_not_memory_or_time() -> None:
    read, write = os.pipe()
    metrics = Metrics()
    log = AccessLog("full", metrics, write)
    for _ in range(30_000):
        log.write(line("/" + "a" * 100))
    assert metrics.access_lines_lost > 0
    os.close(read)
    log.close()
    os.close(write)


def test_sampling_keeps_every_error_and_one_in_a_hundred() -> None:
    log = AccessLog("sampled", Metrics(), os.open(os.devnull, os.O_WRONLY))
    assert all(log.wants(502) for _ in range(10))
    assert sum(log.wants(200) for _ in range(1000)) == 10
    log.close()
