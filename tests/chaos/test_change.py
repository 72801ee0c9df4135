"""Change under load loses nothing: revisions roll, instances come and go."""

import asyncio

from tests.e2e.engine import Engine, Load, until


async def test_a_rolling_change_of_revision_under_200_rps_fails_no_request(engine: Engine, app: str) -> None:
    annotations = {"window": "6s", "target": "20"}
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", env={"VERSION": "1"}, annotations=annotations)
    load = Load(engine, app, "/?ms=5")
    async with load.steady(200) as outcomes:
        for version in range(2, 6):
            await asyncio.to_thread(
                engine.deploy, app, "test/testapp:v1", env={"VERSION": str(version)}, annotations=annotations
            )
            await asyncio.sleep(2)
    assert outcomes.failed == 0, outcomes.failures[:5]
    assert set(outcomes.by_revision) == {f"{app}-{n:05d}" for n in range(1, 6)}
    await asyncio.to_thread(
        until,
        lambda: not [i for i in engine.instances(service=app, phases=("Ready",)) if not i["revision"].endswith("5")],
        "old ones gone",
        60,
    )


async def test_scaling_down_aborts_no_request(engine: Engine, app: str) -> None:
    annotations = {"window": "6s", "max-scale": "4"}
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", annotations=annotations, spec={"containerConcurrency": 2})
    burst = await Load(engine, app, "/?ms=1000").burst(40)
    assert burst.counts == {"200": 40}
    load = Load(engine, app, "/?ms=200")
    async with load.steady(4) as outcomes:
        await asyncio.sleep(20)
    assert outcomes.failed == 0, outcomes.failures[:5]
    assert len(engine.instances(service=app, phases=("Ready",))) <= 2
