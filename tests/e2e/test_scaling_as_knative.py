"""What Knative's own end-to-end tests ask of scaling, with shorter windows; each test is named after theirs.

TestActivatorOverload is `test_scaling.test_one_at_a_time_means_one_at_a_time`, TestInitScaleZero and TestMinScale are there too.
"""

import asyncio
import math
import time

import pytest

from tests.e2e.engine import Engine, Load, until

WINDOW_S = 6
SHORT = {"window": f"{WINDOW_S}s"}
RUNNING = ("Pending", "Pulling", "Starting", "Ready")


def running(engine: Engine, service: str) -> int:
    return len(engine.instances(service=service, phases=RUNNING))


async def test_fast_scale_to_zero(engine: Engine, app: str) -> None:
    """Not before the window, and within 15 s after it (Knative's own bound adds its grace)."""
    await asyncio.to_thread(engine.deploy, app, "test/static:v1", annotations=SHORT)
    assert (await Load(engine, app).burst(1)).counts == {"200": 1}
    called = time.monotonic()
    await asyncio.to_thread(engine.at_zero, app, WINDOW_S + 15)
    assert time.monotonic() - called > WINDOW_S - 2, "it went while its window was open"


async def test_activation_scale(engine: Engine, app: str) -> None:
    """The first call after zero starts as many as the annotation says; without load it is zero, and not one."""
    # Its window is longer than three starts take anywhere: the first two must not be let go before the third is there.
    annotations = {"window": "30s", "activation-scale": "3", "initial-scale": "0"}
    await asyncio.to_thread(engine.deploy, app, "test/static:v1", annotations=annotations)
    assert running(engine, app) == 0
    assert (await Load(engine, app).burst(1)).counts == {"200": 1}
    await asyncio.to_thread(until, lambda: len(engine.instances(service=app, phases=("Ready",))) == 3, "three Ready", 25)


async def test_autoscale_sustaining(engine: Engine, app: str) -> None:
    """A load that lasts is answered whole, by no more than a tenth over what it needs."""
    callers, limit, utilization = 12, 6, 0.7
    annotations = {**SHORT, "target-utilization-percentage": f"{utilization * 100:g}"}
    await asyncio.to_thread(
        engine.deploy, app, "test/testapp:v1", annotations=annotations, spec={"containerConcurrency": limit}
    )
    load = asyncio.create_task(Load(engine, app, "/?ms=500").callers(callers, 7))
    most = 0
    while not load.done():
        most = max(most, await asyncio.to_thread(running, engine, app))
        await asyncio.wait({load}, timeout=0.25)
    outcomes = load.result()
    assert outcomes.counts == {"200": outcomes.total}
    need = math.ceil(callers / (limit * utilization))
    assert math.ceil(callers / limit) <= most <= math.ceil(need * 1.1)


@pytest.mark.parametrize("capacity", ["-1", "0", "10"])
async def test_target_burst_capacity(engine: Engine, app: str, capacity: str) -> None:
    """Whatever is asked for, the front door is in the path: a burst far over what runs is held and answered whole."""
    annotations = {**SHORT, "target-burst-capacity": capacity, "max-scale": "2"}
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", annotations=annotations, spec={"containerConcurrency": 5})
    outcomes = await Load(engine, app, "/?ms=100").burst(40)
    assert outcomes.counts == {"200": 40}
    assert (await asyncio.to_thread(engine.get, app, "/gauge")).json()["most"] <= 5


async def test_single_concurrency(engine: Engine, app: str) -> None:
    """Five callers who never pause: no two requests overlap in one instance."""
    annotations = {**SHORT, "max-scale": "5"}
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", annotations=annotations, spec={"containerConcurrency": 1})
    outcomes = await Load(engine, app, "/?ms=20").callers(5, 4)
    assert outcomes.counts == {"200": outcomes.total}
    gauges = [(await asyncio.to_thread(engine.get, app, "/gauge")).json() for _ in range(10)]
    assert {gauge["most"] for gauge in gauges} == {1}
