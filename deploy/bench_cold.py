"""`deploy/bench cold`: how long the first caller waits, what an idle engine takes, how quickly fifty services are Ready.

It starts an engine of its own and leaves nothing behind. Cold starts are measured from before the client connects to the first
byte of the answer, one at a time, each from zero: *parked* (the default) and *pooled* (nothing parked; image unpacked, network
namespaces ready). Each phase is a median of its own, from the story and from what the node says, so they need not add up.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.bench_cold_engine import ApiError, BenchEngine, until, usage

WINDOW_S = 6
FIFTY = 50
RUNNING = {"Pending", "Pulling", "Starting", "Ready", "Frozen", "Draining"}
BETWEEN = {
    "queue": ("request waiting", "wake sent"),
    "decide": ("wake sent", "decided"),
    "answer": ("dispatched", "first byte"),
}
"""Phase → the steps of the story it lies between."""
CREATING = ("network", "snapshot", "create")
"""The node's own steps that belong to `create`; a parked instance has them behind it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON. Exit code 0 when everything was measured."""
    options = _options(argv)
    services, samples, idle_s = (5, 15, 5.0) if options.quick else (10, 60, 20.0)
    figures: dict[str, float] = {}
    with BenchEngine() as engine:
        _say("the engine is up")
        for kind in ("parked", "pooled"):
            figures |= cold(engine, kind, services, samples)
        figures |= {"deploy.fifty_ready_s": fifty_ready(engine, FIFTY)}
        figures |= idle(engine, FIFTY, idle_s)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    _print(figures)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/bench cold", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--quick", action="store_true", help="15 cold starts of each kind and 5 s of idleness: a look, not a measurement"
    )
    return parser.parse_args(argv)


def cold(engine: BenchEngine, kind: str, services: int, samples: int) -> dict[str, float]:
    """`samples` cold starts over `services` services, in rounds: all at zero, then each called once."""
    names = [f"{kind}-{n}" for n in range(services)]
    for name in names:
        engine.deploy(name, park=kind == "parked", window_s=WINDOW_S)
    until(lambda: engine.ready() >= set(names), f"{services} services are Ready", 60)
    took: list[float] = []
    phases: dict[str, list[float]] = {}
    while len(took) < samples:
        _at_zero(engine, names, parked=kind == "parked")
        for name in names[: samples - len(took)]:
            took_ms, cause = engine.first_byte(name)
            took.append(took_ms)
            time.sleep(0.1)
            _note_phases(engine, cause, phases, parked=kind == "parked")
        _say(f"{kind}: {len(took)} of {samples} cold starts, p50 {statistics.median(took):.1f} ms")
    for name in names:
        engine.call("DELETE", f"/apis/serving.knative.dev/v1/namespaces/default/services/{name}")
    until(lambda: not engine.phases(), "all instances are gone", 60)
    took.sort()
    figures = {
        f"cold.{kind}_p50_ms": statistics.median(took),
        f"cold.{kind}_p99_ms": took[min(len(took) - 1, int(len(took) * 0.99))],
    }
    figures |= {f"cold.phases.{kind}.{name}_ms": statistics.median(values) for name, values in phases.items()}
    return {name: round(value, 2) for name, value in figures.items()}


def _at_zero(engine: BenchEngine, names: list[str], *, parked: bool) -> None:
    """Wait until none of `names` runs, and each has one parked or none has any."""
    want = ["Parked"] if parked else []

    def quiet() -> bool:
        phases = engine.phases()
        return all(sorted(p for p in phases.get(name, []) if p in RUNNING or p == "Parked") == want for name in names)

    until(quiet, f"{len(names)} services are at zero, {'one parked each' if parked else 'nothing parked'}", 90, every_s=0.2)
    time.sleep(0.3)


def _note_phases(engine: BenchEngine, cause: str, phases: dict[str, list[float]], *, parked: bool) -> None:
    """Add what the story and the node say of one cold start; a step that was lost on its way costs only its phase."""
    try:
        events = engine.story(cause) if cause else []
    except ApiError:
        return
    at: dict[str, float] = {}
    for event in events:
        at.setdefault(event["what"], event["at"])
        if event["what"] == "assigned" and "etcd_ms" in event.get("detail", {}):
            phases.setdefault("etcd", []).append(float(event["detail"]["etcd_ms"]))
    for phase, (begin, end) in BETWEEN.items():
        if begin in at and end in at:
            phases.setdefault(phase, []).append((at[end] - at[begin]) * 1000)
    instance = next((e["instance"] for e in events if e["what"] == "dispatched" and e.get("instance")), "")
    status = engine.instance(instance)
    if status is None:
        return
    if "dispatched" in at and status["phase"] == "Ready":
        phases.setdefault("dispatch", []).append((at["dispatched"] - status["at"]) * 1000)
    steps = {name: float(took) for name, took in status.get("phases_ms", {}).items()}
    if not parked and any(name in steps for name in CREATING):
        phases.setdefault("create", []).append(sum(steps.get(name, 0.0) for name in CREATING))
    for name in ("start", "app", "probe"):
        if name in steps:
            phases.setdefault(name, []).append(steps[name])


def fifty_ready(engine: BenchEngine, count: int) -> float:
    """Seconds from the first POST until all of `count` services, created at once from a present image, are Ready."""
    names = [f"many-{n}" for n in range(count)]
    begin = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: engine.deploy(name, park=True, window_s=WINDOW_S), names))
    until(lambda: engine.ready() >= set(names), f"{count} services are Ready", 180)
    took = time.monotonic() - begin
    _say(f"{count} services created at once: all Ready after {took:.1f} s")
    return round(took, 2)


def idle(engine: BenchEngine, count: int, idle_s: float) -> dict[str, float]:
    """Memory and CPU of everything, with `count` services at zero."""
    _at_zero(engine, [f"many-{n}" for n in range(count)], parked=True)
    time.sleep(3)
    pids = engine.processes()
    _, _, before_s = usage(pids)
    begin = time.monotonic()
    time.sleep(idle_s)
    rss, pss, after_s = usage(pids)
    cores = (after_s - before_s) / (time.monotonic() - begin)
    for name in sorted(rss, key=rss.__getitem__, reverse=True):
        _say(
            f"idle: {name:18} {sum(n == name for n in pids.values()):3} processes  RSS {rss[name]:7.1f} MiB  PSS {pss[name]:7.1f} MiB"
        )
    figures = {
        # What the machine really holds: pages that several processes share (Python, crun, the shims) are counted once.
        "idle.rss_mb": sum(pss.values()),
        "idle.rss_summed_mb": sum(rss.values()),
        "idle.cores": cores,
        "idle.services": float(count),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def _print(figures: dict[str, Any]) -> None:
    for name in sorted(figures):
        sys.stdout.write(f"{name:40} {figures[name]:>12}\n")


def _say(text: str) -> None:
    sys.stderr.write(f"bench cold: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
