"""Change under load loses nothing: revisions roll, instances come and go."""

import asyncio
import time
from functools import partial
from typing import Any

from tests.e2e.engine import Engine, Load, until

DEPLOYS = 20


async def test_twenty_deploys_under_200_rps_and_one_that_does_not_work_fail_no_request(engine: Engine, app: str) -> None:
    """Each deploy gets half of the traffic first and then all of it; the last one exits at its start. What p95 does on a quiet
    machine: `deploy/bench cold --only rollout`; here others may use the machine, so its bound only says that nobody waits for a deploy."""

    def deploy(version: int, traffic: list[dict[str, Any]]) -> None:
        annotations = {"window": "6s", "target": "20"}
        engine.deploy(app, "test/testapp:v1", env={"VERSION": str(version)}, annotations=annotations, traffic=traffic)

    newest = {"latestRevision": True}
    left: dict[str, float] = {}
    """When the API had said that no traffic goes to a revision any more."""
    await asyncio.to_thread(deploy, 1, [{**newest, "percent": 100}])
    quiet, during = Load(engine, app, "/?ms=5"), Load(engine, app, "/?ms=5")
    async with quiet.steady(200):
        await asyncio.sleep(3)
    async with during.steady(200) as outcomes:
        for version in range(2, 2 + DEPLOYS):
            half = [{"revisionName": f"{app}-{version - 1:05d}", "percent": 50}, {**newest, "percent": 50}]
            await asyncio.to_thread(deploy, version, half)
            await asyncio.to_thread(deploy, version, [{**newest, "percent": 100}])
            left[f"{app}-{version - 1:05d}"] = time.monotonic()
        await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", env={"EXIT_AT_START": "5"}, wait_s=0)
        bad = f"{app}-{2 + DEPLOYS:05d}"
        await asyncio.to_thread(
            until, lambda: engine.condition(bad, "revisions").get("status") == "False", "the last one has failed", 40
        )
    before_s, during_s = quiet.outcomes.percentile_s(0.95), outcomes.percentile_s(0.95)
    print(
        f"p95 {before_s * 1000:.1f} ms in quiet, {during_s * 1000:.1f} ms during {DEPLOYS} deploys: {during_s / before_s:.2f} ×"
    )
    assert quiet.outcomes.failed + outcomes.failed == 0, (quiet.outcomes.failures + outcomes.failures)[:5]
    assert set(outcomes.by_revision) == {f"{app}-{n:05d}" for n in range(1, 2 + DEPLOYS)}
    late = {name: outcomes.last_begun[name] - at for name, at in left.items() if outcomes.last_begun[name] > at + 1}
    assert not late, f"requests begun more than a second after their revision had lost its traffic: {late}"
    assert during_s < max(5 * before_s, before_s + 0.5)
    last = f"{1 + DEPLOYS:05d}"
    ready = lambda: [i for i in engine.instances(service=app, phases=("Ready",)) if not i["revision"].endswith(last)]  # noqa: E731
    await asyncio.to_thread(until, lambda: not ready(), "old ones gone", 60)


async def test_scaling_down_aborts_no_request(engine: Engine, app: str) -> None:
    annotations = {"window": "6s", "max-scale": "4"}
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", annotations=annotations, spec={"containerConcurrency": 2})
    burst = await Load(engine, app, "/?ms=1000").burst(40)
    assert burst.counts == {"200": 40}
    assert len(burst.by_instance) > 2
    load = Load(engine, app, "/?ms=200")
    async with load.steady(4) as outcomes:
        left = partial(engine.instances, service=app, phases=("Ready", "Draining"))
        await asyncio.to_thread(until, lambda: len(left()) <= 2, "two are gone, under load", 60)
        await asyncio.sleep(2)
    assert outcomes.failed == 0, outcomes.failures[:5]


async def test_a_load_that_steps_tenfold_loses_no_request_and_is_not_felt_next_door(engine: Engine, app: str) -> None:
    beside = f"{app}-beside"
    spec, annotations = {"containerConcurrency": 4}, {"window": "6s", "max-scale": "5"}
    for name in (app, beside):
        await asyncio.to_thread(engine.deploy, name, "test/testapp:v1", annotations=annotations, spec=spec)
    try:
        low, high = Load(engine, app, "/?ms=100"), Load(engine, app, "/?ms=100")
        calm, shaken = Load(engine, beside), Load(engine, beside)
        async with low.steady(10), calm.steady(20):
            await asyncio.sleep(3)
        async with high.steady(100), shaken.steady(20):
            await asyncio.sleep(5)
    finally:
        await asyncio.to_thread(engine.delete, beside)
    for load in (low, high, calm, shaken):
        assert load.outcomes.failed == 0, load.outcomes.failures[:5]
    assert high.outcomes.total >= 400
    for name, load in ((app, high), (beside, shaken)):
        assert {revision.rpartition("-")[0] for revision in load.outcomes.by_revision} == {name}, "nobody gets another's answer"
    assert len(high.outcomes.by_instance) > len(low.outcomes.by_instance), "it got what it needs"
    assert max(high.outcomes.latencies_s) < 10
    before_s, during_s = calm.outcomes.percentile_s(0.95), shaken.outcomes.percentile_s(0.95)
    print(
        f"next door p95 {before_s * 1000:.1f} ms before the step, {during_s * 1000:.1f} ms during: {during_s / before_s:.2f} ×"
    )
    assert during_s < max(5 * before_s, before_s + 0.5)
