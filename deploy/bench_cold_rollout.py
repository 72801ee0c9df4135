"""Twenty deploys of one service under 200 requests a second, each shifting traffic to the new revision in two steps."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from deploy.bench_cold_engine import IMAGE, SERVICES, BenchEngine, NotInTime, note, percentile
from deploy.bench_cold_load import load
from deploy.bench_cold_usage import metered

RATE = 200
DEPLOYS = 20
STEADY_S = 40.0
"""As long as the deploys take: both are as many requests."""
SETTLE_S = 3.0
STEP_S = 1.0
"""How long each share stands."""
NAME = "rollout"


def rollout(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`rollout.failed` of all requests; p95 to the first byte during the deploys and in quiet, half of that before them and half after,
    with their ratio; and the CPU that a deploy takes."""
    return asyncio.run(_rollout(engine, 3 if quick else DEPLOYS, 4.0 if quick else STEADY_S))


async def _rollout(engine: BenchEngine, deploys: int, steady_s: float) -> dict[str, float]:
    await _deploy(engine, 1, [{"latestRevision": True, "percent": 100}])
    await asyncio.sleep(SETTLE_S)
    quiet: list[tuple[float, bool]] = []
    for when in ("before", "during", "after"):
        if when == "during":
            with metered(engine.home) as working, load(engine.port, NAME, RATE) as during:
                for version in range(2, 2 + deploys):
                    await _shift(engine, version)
            await asyncio.sleep(SETTLE_S)
            continue
        with metered(engine.home) as resting, load(engine.port, NAME, RATE) as calls:
            await asyncio.sleep(steady_s / 2)
        quiet += calls
        note(f"{when}: p95 {p95(calls):.2f} ms of {len(calls)}")
    p95_quiet, p95_during = p95(quiet), p95(during)
    failed = sum(not good for calls in (quiet, during) for _, good in calls)
    note(f"{deploys} deploys, {len(during)} requests: p95 {p95_during:.2f} ms, in quiet {p95_quiet:.2f} ms, {failed} failed")
    # What the requests themselves cost is taken off: it is in both.
    spent = {name: cpu_s - resting.get(name, 0.0) / (steady_s / 2) * len(during) / RATE for name, cpu_s in working.items()}
    for name in sorted(spent, key=spent.__getitem__, reverse=True):
        note(f"CPU of a deploy: {name:16} {spent[name] / deploys * 1000:7.1f} ms")
    return {
        "rollout.failed": failed,
        "rollout.p95_quiet_ms": round(p95_quiet, 2),
        "rollout.p95_ms": round(p95_during, 2),
        "rollout.p95_ratio": round(p95_during / p95_quiet, 3),
        "rollout.cpu_ms_per_deploy": round(sum(spent.values()) / deploys * 1000, 1),
    }


def p95(calls: Sequence[tuple[float, bool]]) -> float:
    return percentile([took for took, _ in calls], 0.95)


async def _shift(engine: BenchEngine, version: int) -> None:
    """Deploy `version`, give it half of the requests, then all."""
    before, new = f"{NAME}-{version - 1:05d}", {"latestRevision": True}
    await _deploy(engine, version, [{"revisionName": before, "percent": 50}, {**new, "percent": 50}])
    await asyncio.sleep(STEP_S)
    await _deploy(engine, version, [{**new, "percent": 100}])
    await asyncio.sleep(STEP_S)


async def _deploy(engine: BenchEngine, version: int, traffic: list[dict[str, Any]]) -> None:
    """The service as its version `version`, with these shares; returns when it is Ready so."""
    container = {"image": IMAGE, "env": [{"name": "VERSION", "value": str(version)}]}
    annotations = {"autoscaling.knative.dev/window": "6s"}
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}
    kind = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": NAME}}
    body = {**kind, "spec": {"template": template, "traffic": traffic}}
    path = SERVICES if version == 1 else f"{SERVICES}/{NAME}"
    written = await asyncio.to_thread(engine.call, "POST" if version == 1 else "PUT", path, body)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = await asyncio.to_thread(engine.call, "GET", f"{SERVICES}/{NAME}")
        status = found.get("status", {})
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
        if ready and status.get("observedGeneration", 0) >= written["metadata"]["generation"]:
            return
        await asyncio.sleep(0.1)
    raise NotInTime(f"version {version} of {NAME} is not Ready within 60 s")
