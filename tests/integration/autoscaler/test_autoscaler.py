"""The autoscaler as a process, on real etcd and NATS, with a node agent played by the test."""

import asyncio
import time

from process.ids import short_id
from store import keys
from store.bus import Bus
from store.messages import Wake
from store.model import (
    Failure,
    Goal,
    encode,
)
from tests import real
from tests.integration.autoscaler.world import MI, Agent, Engine, at_zero, until, verified


async def test_a_new_revision_is_verified_goes_to_zero_and_parks(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("r-1", initial_scale=3)
    await until(lambda: len(agent.starts) == 3, "three are started to verify it")
    await until(lambda: verified(engine, "r-1"), "it is verified")
    started = time.monotonic()
    await at_zero(engine, "r-1")
    assert time.monotonic() - started > 3, "not before its stable window of six seconds is over"
    scale = await engine.scale("r-1")
    assert scale is not None
    assert scale.reason == "NoTraffic"


async def test_a_wake_becomes_an_assignment_within_twenty_milliseconds(engine: Engine, agent: Agent) -> None:
    """In the third best of fifteen: etcd, NATS, the autoscaler and the agent may each have to wait for a core in the others."""
    await engine.autoscaler()
    took = []
    for number in range(15):
        name = f"w-{number}"
        await engine.deploy(name, initial_scale=0)
        await until(lambda name=name: verified(engine, name), "a revision without initial instances is verified at once")
        await until(lambda name=name: parked(engine, name), "and keeps one parked") if number % 2 else None
        started, before = time.monotonic(), set(agent.seen_at)
        engine.wake(name)
        await until(lambda before=before: set(agent.seen_at) - before, "the agent sees the assignment")
        took.append(agent.seen_at[next(iter(set(agent.seen_at) - before))] - started)
        assert await engine.goals(name) == [Goal.RUN]
    took.sort()
    assert took[2] < 0.02, f"{[round(t * 1000, 1) for t in took]} ms"


async def parked(engine: Engine, name: str) -> bool:
    return await engine.goals(name) == [Goal.PARK]


async def test_a_burst_asks_for_as_many_as_it_needs_at_once_and_says_why(engine: Engine, agent: Agent) -> None:
    agent.memory = 1 << 20
    await engine.autoscaler()
    await engine.deploy("b-1", cc=1, initial_scale=0, max_scale=20)
    await until(lambda: verified(engine, "b-1"), "verified")
    engine.wake("b-1", waiting=10)
    await until(lambda: len(agent.starts) == 15, "ten wait with one each at 70 %: fifteen")
    shown = await engine.get("/decisions?revision=p/b-1")
    steps = [step["rule"] for made in shown["decisions"] for step in made["steps"]]  # type: ignore[attr-defined]
    assert {"wake", "stable"} <= set(steps)


async def test_traffic_holds_instances_and_its_end_lets_them_go(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("t-1", initial_scale=0)
    await until(lambda: verified(engine, "t-1"), "verified")
    engine.wake("t-1")
    await until(lambda: agent.starts, "it is woken")
    for _ in range(9):
        engine.sample("t-1", 1)
        await asyncio.sleep(1)
        assert Goal.RUN in await engine.goals("t-1")
    engine.sample("t-1", 0)
    await at_zero(engine, "t-1")


async def test_an_app_that_cannot_start_is_refused_with_its_cause_and_waits_longer_each_time(
    engine: Engine, agent: Agent
) -> None:
    agent.failing = Failure(reason="ExitCode3", message="exited with 3", exit_code=3, log_tail=["no such file"])
    await engine.autoscaler()
    await engine.deploy("f-1")
    await until(lambda: len(agent.starts) >= 3, "it is tried again")
    gaps = [b - a for a, b in zip(agent.starts, agent.starts[1:], strict=False)]
    assert gaps[0] >= 0.95
    assert gaps[1] >= 1.9
    await until(lambda: engine.refusals, "whoever waits is refused")
    engine.refusals.clear()
    engine.wake("f-1")
    await until(lambda: engine.refusals, "a wake during back-off is refused at once", 2.5)
    refusal = engine.refusals[0]
    assert (refusal.revision, refusal.reason, refusal.message) == ("p/f-1", "ExitCode3", "exited with 3")

    async def recorded() -> bool:
        scale = await engine.scale("f-1")
        return scale is not None and (why := scale.failure) is not None and why.count >= 3 and why.log_tail == ["no such file"]

    async def cleared() -> bool:
        return not await engine.goals("f-1")

    await until(recorded, "the third failure is recorded")
    await until(cleared, "what failed is cleared away")
    agent.failing = None
    await until(lambda: verified(engine, "f-1"), "and it starts once the cause is gone", 15)
    scale = await engine.scale("f-1")
    assert scale is not None
    assert scale.failure is None


async def test_what_does_not_fit_is_refused_with_what_is_missing(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    revision = await engine.deploy("big-1", initial_scale=0, routed=False)
    from msgspec import structs

    await engine.store.put(
        keys.revision("p", "big-2"), encode(structs.replace(revision, name="big-2", memory_request_bytes=2048 * MI))
    )
    await engine.route("big-2")
    await until(lambda: verified(engine, "big-2"), "verified")
    engine.wake("big-2")
    await until(lambda: engine.refusals, "the wake is refused")
    assert engine.refusals[0].reason == "NoRoom"
    assert engine.refusals[0].message == "needs 2048Mi, largest free is 1024Mi on n1"
    scale = await engine.scale("big-2")
    assert scale is not None
    assert "needs 2048Mi" in scale.unplaced


async def test_instances_of_a_lost_node_are_replaced_elsewhere_and_given_up(engine: Engine, agent: Agent) -> None:
    second = Agent(engine.store, engine.bus, "n2")
    await engine.autoscaler()
    await engine.deploy("n-1", min_scale=2)
    await until(lambda: len(agent.starts) == 2, "two run on the only node")
    await until(lambda: verified(engine, "n-1"), "verified")
    await second.start()
    await agent.vanish()
    await until(lambda: len(second.starts) == 2, "the other node starts two")

    async def cleared() -> bool:
        return {a.node for a in await engine.assignments("n-1")} == {"n2"}

    await until(cleared, "what was assigned to the lost node is deleted")
    await second.stop()


async def test_a_deleted_revision_leaves_nothing_behind(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("d-1", min_scale=2)
    await until(lambda: verified(engine, "d-1"), "verified")
    await engine.store.delete(keys.route("p", "d-1"))
    await engine.store.delete(keys.revision("p", "d-1"))

    async def gone() -> bool:
        return not await engine.assignments("d-1") and await engine.scale("d-1") is None

    await until(gone, "its assignments and its scale are deleted")
    await until(lambda: not agent.instances, "and the agent has nothing left")


async def test_a_revision_that_no_route_names_any_more_falls_at_once(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("u-1", min_scale=1, stable_window_s=60)
    await until(lambda: verified(engine, "u-1"), "verified")
    await engine.deploy("u-2", initial_scale=0, routed=False)
    await engine.route("u-2", "u-1")
    await until(lambda: nothing_of(engine, "u-1"), "nothing is left of it, and nothing parked", 15)


async def nothing_of(engine: Engine, name: str) -> bool:
    return not await engine.assignments(name)


async def test_without_nats_a_wake_through_etcd_works(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("e-1", initial_scale=0)
    await until(lambda: verified(engine, "e-1"), "verified")
    lease = await engine.store.grant(5)
    wake = Wake(revision="p/e-1", waiting=1, sender=short_id(), cause_id="c-etcd")
    await engine.store.put(keys.wake("p", "e-1"), encode(wake), lease=lease)
    await until(lambda: agent.starts, "it is woken")
    assert (await engine.assignments("e-1"))[0].cause_id == "c-etcd"


async def test_a_restarted_etcd_takes_nothing_down(nats: real.Server, bus: Bus) -> None:
    from store.connect import open_store

    async with real.etcd() as etcd:
        store = await open_store(etcd.address)
        engine = Engine(etcd, nats, store, bus)
        agent = Agent(store, bus)
        try:
            await agent.start()
            await engine.autoscaler()
            await engine.deploy("x-1", min_scale=2)
            await until(lambda: verified(engine, "x-1"), "verified")
            await until(lambda: len(agent.starts) == 2, "both are started")
            before = sorted(a.instance for a in await engine.assignments("x-1"))
            await etcd.restart()
            await engine.deploy("x-2", initial_scale=1)
            await until(lambda: verified(engine, "x-2"), "it goes on deciding")
            assert sorted(a.instance for a in await engine.assignments("x-1")) == before
        finally:
            await agent.stop()
            await engine.close()
            await store.close()
