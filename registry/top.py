"""What goes on now: the samples of all activators put together, a row for each revision."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from store.messages import Sample, SampleReport
from store.model import Instance, Scale

FRESH_S = 3.0
"""A report counts this long: activators send one a second while there is traffic."""


class Samples:
    """The last report of each sender for each revision."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], tuple[float, float, Sample]] = {}

    def add(self, report: SampleReport, now: float) -> None:
        """`now`: monotonic seconds."""
        for sample in report.samples:
            self._latest[sample.revision, report.sender] = (now, report.interval_s, sample)
        if len(self._latest) > 10_000:
            self._latest = {key: item for key, item in self._latest.items() if now - item[0] <= FRESH_S}

    def rows(self, now: float) -> dict[str, dict[str, float]]:
        """By revision key: rps, concurrency, in_flight, queued."""
        rows: dict[str, dict[str, float]] = {}
        for (revision, _), (at, interval_s, sample) in self._latest.items():
            if now - at > FRESH_S:
                continue
            row = rows.setdefault(revision, {"rps": 0.0, "concurrency": 0.0, "in_flight": 0, "queued": 0})
            row["rps"] += sample.requests / interval_s if interval_s > 0 else 0.0
            row["concurrency"] += sample.concurrency
            row["in_flight"] += sample.in_flight
            row["queued"] += sample.queued
        return rows


def snapshot(
    at: float,
    rows: Mapping[str, Mapping[str, float]],
    instances: Iterable[Instance],
    scales: Iterable[Scale],
    services: Mapping[str, str],
    nodes: Sequence[str],
) -> dict[str, Any]:
    """One line of `ebb top`. `services`: revision key → service; revisions with nothing at all are left out."""
    phases: dict[str, Counter[str]] = {}
    for instance in instances:
        phases.setdefault(instance.revision_key, Counter())[str(instance.phase)] += 1
    desired = {f"{scale.project}/{scale.revision}": scale.desired for scale in scales}
    busy = set(phases) | set(rows) | {key for key, count in desired.items() if count}
    revisions = []
    for key in sorted(busy):
        project, _, name = key.partition("/")
        row = rows.get(key, {})
        revisions.append(
            {
                "project": project,
                "revision": name,
                "service": services.get(key, ""),
                "rps": round(row.get("rps", 0.0), 2),
                "concurrency": round(row.get("concurrency", 0.0), 2),
                "in_flight": int(row.get("in_flight", 0)),
                "queued": int(row.get("queued", 0)),
                "desired": desired.get(key, 0),
                "instances": dict(phases.get(key, {})),
            }
        )
    return {"at": at, "nodes": list(nodes), "revisions": revisions}
