"""Twenty deploys of one service under 200 requests a second, each shifting traffic to the new revision in two steps."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from deploy.bench_cold_engine import IMAGE, SERVICES, BenchEngine, NotInTime, note, percentile
from deploy.bench_cold_load import load
from deploy.bench_cold_usage import metered

RATE = 200
DEPLOYS = 20
SETTLE_S = 1.0
POLL_S = 0.1
STEP_S = 1.0
"""How long each share stands."""
NAME = "rollout"


def rollout(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`rollout.failed` of all requests; p95 to the first byte during the deploys and in the quiet times between them, with their
    ratio; and the CPU that a deploy takes."""
    return asyncio.run(_rollout(engine, 3 if quick else DEPLOYS))


async def _rollout(engine: BenchEngine, deploys: int) -> dict[str, float]:
    """Each deploy has a quiet time as long as it before it, so that what else the machine does falls on both alike."""
    await _deploy(engine, 1, [{"latestRevision": True, "percent": 100}])
    slices: dict[str, list[tuple[float, float]]] = {"quiet": [], "deploy": []}
    spent: dict[str, dict[str, float]] = {"quiet": {}, "deploy": {}}
    with load(engine.port, NAME, RATE) as calls:
        await asyncio.sleep(SETTLE_S)
        for version in range(2, 2 + deploys):
            for what in slices:
                begun = time.monotonic()
                with metered(engine.home, spent[what]):
                    await (_shift(engine, version) if what == "deploy" else asyncio.sleep(took_s(slices["deploy"])))
                slices[what].append((begun, time.monotonic()))
            await asyncio.sleep(SETTLE_S)  # The old revision ends.
    failed = sum(not call.good for call in calls)
    found = {what: [c.took_ms for c in calls if any(a <= c.at < b for a, b in times)] for what, times in slices.items()}
    p95 = {what: percentile(took, 0.95) for what, took in found.items()}
    for what, took in found.items():
        note(
            f"{what}: {len(took)} requests, p50 {percentile(took, 0.5):.2f} ms, p95 {p95[what]:.2f}, p99 {percentile(took, 0.99):.2f}"
        )
    note(f"{deploys} deploys, {len(calls)} requests, {failed} failed")
    # What the requests themselves cost is in both.
    share = len(found["deploy"]) / max(1, len(found["quiet"]))
    more = {name: cpu_s - spent["quiet"].get(name, 0.0) * share for name, cpu_s in spent["deploy"].items()}
    for name in sorted(more, key=more.__getitem__, reverse=True):
        note(f"CPU of a deploy: {name:16} {more[name] / deploys * 1000:7.1f} ms")
    return {
        "rollout.failed": failed,
        "rollout.p95_quiet_ms": round(p95["quiet"], 2),
        "rollout.p95_ms": round(p95["deploy"], 2),
        "rollout.p95_ratio": round(p95["deploy"] / p95["quiet"], 3),
        "rollout.cpu_ms_per_deploy": round(sum(more.values()) / deploys * 1000, 1),
    }


def took_s(slices: Sequence[tuple[float, float]]) -> float:
    """How long a quiet time is: as the deploy before it; the first as the steps alone."""
    return slices[-1][1] - slices[-1][0] if slices else 2 * STEP_S


async def _shift(engine: BenchEngine, version: int) -> None:
    """Deploy `version`, give it half of the requests, then all."""
    before, new = f"{NAME}-{version - 1:05d}", {"latestRevision": True}
    await _deploy(engine, version, [{"revisionName": before, "percent": 50}, {**new, "percent": 50}])
    await asyncio.sleep(STEP_S)
    await _deploy(engine, version, [{**new, "percent": 100}])
    await asyncio.sleep(STEP_S)


async def _deploy(engine: BenchEngine, version: int, traffic: list[dict[str, Any]]) -> None:
    """The service as its version `version`, with these shares; returns when it is Ready so."""
    await asyncio.to_thread(_deploy_as_one_command, engine, version, traffic)


def _deploy_as_one_command(engine: BenchEngine, version: int, traffic: list[dict[str, Any]]) -> None:
    """By one connection, as `ebb deploy` and `kubectl` do: a handshake for each look would be the benchmark's own load."""
    container = {"image": IMAGE, "env": [{"name": "VERSION", "value": str(version)}]}
    annotations = {"autoscaling.knative.dev/window": "6s"}
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}
    kind = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": NAME}}
    body = {**kind, "spec": {"template": template, "traffic": traffic}}
    path = SERVICES if version == 1 else f"{SERVICES}/{NAME}"
    with contextlib.closing(engine.connection()) as connection:
        written = engine.call_on(connection, "POST" if version == 1 else "PUT", path, body)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            status = engine.call_on(connection, "GET", f"{SERVICES}/{NAME}").get("status", {})
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            if ready and status.get("observedGeneration", 0) >= written["metadata"]["generation"]:
                return
            time.sleep(POLL_S)
    raise NotInTime(f"version {version} of {NAME} is not Ready within 60 s")
