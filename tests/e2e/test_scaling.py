"""Capacity follows load: exact limits inside an instance, growth with a burst, and back to zero."""

import asyncio

from tests.e2e.engine import Engine, Load, until

SHORT = {"window": "6s"}


async def test_a_burst_from_zero_is_answered_whole_and_by_several_instances(engine: Engine, app: str) -> None:
    await asyncio.to_thread(
        engine.deploy, app, "test/testapp:v1", annotations={**SHORT, "max-scale": "5"}, spec={"containerConcurrency": 5}
    )
    await asyncio.to_thread(engine.at_zero, app, 40)
    outcomes = await Load(engine, app, "/?ms=500").burst(60)
    assert outcomes.counts == {"200": 60}
    assert 2 <= len(outcomes.by_instance) <= 5
    await asyncio.to_thread(engine.at_zero, app, 60)


async def test_container_concurrency_is_never_exceeded_inside_an_instance(engine: Engine, app: str) -> None:
    await asyncio.to_thread(
        engine.deploy, app, "test/testapp:v1", annotations={**SHORT, "max-scale": "3"}, spec={"containerConcurrency": 2}
    )
    outcomes = await Load(engine, app, "/?ms=100").burst(80)
    assert outcomes.counts == {"200": 80}
    seen = {}
    for _ in range(30):
        gauge = (await asyncio.to_thread(engine.get, app, "/gauge")).json()
        seen[gauge["instance"]] = gauge["most"]
    assert max(seen.values()) <= 2, seen


async def test_one_at_a_time_means_one_at_a_time(engine: Engine, app: str) -> None:
    spec = {"containerConcurrency": 1}
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", annotations={**SHORT, "max-scale": "10"}, spec=spec)
    outcomes = await Load(engine, app, "/?ms=300").burst(100)
    assert outcomes.counts == {"200": 100}
    gauges = [(await asyncio.to_thread(engine.get, app, "/gauge")).json() for _ in range(20)]
    assert {g["most"] for g in gauges} == {1}


def test_min_scale_stays_and_max_scale_holds(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/static:v1", annotations={**SHORT, "min-scale": "2", "max-scale": "2"})
    until(lambda: len(engine.instances(service=app, phases=("Ready",))) == 2, "two Ready", 20)
    until(lambda: engine.get(app).status_code == 200, "an answer", 5)
    assert len(engine.instances(service=app, phases=("Ready", "Starting", "Pending"))) == 2


def test_initial_scale_zero_is_ready_without_an_instance(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/static:v1", annotations={"initial-scale": "0"})
    assert not engine.instances(service=app, phases=("Ready", "Starting"))
    assert engine.get(app).status_code == 200


async def test_a_request_in_flight_outlives_the_window(engine: Engine, app: str) -> None:
    await asyncio.to_thread(engine.deploy, app, "test/testapp:v1", annotations=SHORT)
    outcomes = await Load(engine, app, "/?ms=14000").burst(1)
    assert outcomes.counts == {"200": 1}
