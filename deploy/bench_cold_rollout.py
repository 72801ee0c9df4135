"""Twenty deploys of one service under 200 requests a second, each shifting traffic to the new revision in two steps."""

import asyncio
import time
from typing import Any

from deploy.bench_cold_engine import IMAGE, SERVICES, BenchEngine, NotInTime, note, percentile
from deploy.bench_cold_load import load

RATE = 200
DEPLOYS = 20
STEADY_S = 20.0
STEP_S = 1.0
"""How long each share stands."""
NAME = "rollout"


def rollout(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`rollout.failed` of all requests, and the p95 to the first byte in quiet and during the deploys, with their ratio."""
    return asyncio.run(_rollout(engine, 3 if quick else DEPLOYS, 4.0 if quick else STEADY_S))


async def _rollout(engine: BenchEngine, deploys: int, steady_s: float) -> dict[str, float]:
    await _deploy(engine, 1, [{"latestRevision": True, "percent": 100}])
    with load(engine.port, NAME, RATE) as quiet:
        await asyncio.sleep(steady_s)
    with load(engine.port, NAME, RATE) as during:
        for version in range(2, 2 + deploys):
            before, new = f"{NAME}-{version - 1:05d}", {"latestRevision": True}
            await _deploy(engine, version, [{"revisionName": before, "percent": 50}, {**new, "percent": 50}])
            await asyncio.sleep(STEP_S)
            await _deploy(engine, version, [{**new, "percent": 100}])
            await asyncio.sleep(STEP_S)
    p95_quiet, p95_during = (percentile([took for took, _ in calls], 0.95) for calls in (quiet, during))
    failed = sum(not good for calls in (quiet, during) for _, good in calls)
    note(f"{deploys} deploys, {len(during)} requests: p95 {p95_during:.2f} ms, in quiet {p95_quiet:.2f} ms, {failed} failed")
    return {
        "rollout.failed": failed,
        "rollout.p95_quiet_ms": round(p95_quiet, 2),
        "rollout.p95_ms": round(p95_during, 2),
        "rollout.p95_ratio": round(p95_during / p95_quiet, 3),
    }


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
