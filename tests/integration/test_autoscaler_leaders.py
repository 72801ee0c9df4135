"""Several autoscalers: one leads; it is killed, again and again, or stopped for longer than its lease lasts."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from store import messages
from store.backend import Store
from store.bus import Bus
from store.messages import Refusal
from store.model import (
    Goal,
    decode,
)
from tests import real
from tests.integration.autoscaler_world import Agent, Engine, until, verified


@pytest.fixture
async def engine(etcd: real.Server, nats: real.Server, store: Store, bus: Bus) -> AsyncIterator[Engine]:
    made = Engine(etcd, nats, store, bus)
    await bus.handle(messages.REFUSAL, lambda _, data: made.refusals.append(decode(Refusal, data)))
    yield made
    await made.close()


@pytest.fixture
async def agent(engine: Engine) -> AsyncIterator[Agent]:
    made = Agent(engine.store, engine.bus)
    await made.start()
    yield made
    await made.stop()


async def test_another_autoscaler_takes_over_from_one_that_was_killed_and_takes_nothing_down(
    engine: Engine, agent: Agent
) -> None:
    first = await engine.autoscaler("--member", "one")
    await engine.deploy("k-1", initial_scale=3)
    await until(lambda: verified(engine, "k-1"), "verified")
    await engine.deploy("k-2", initial_scale=0)
    await until(lambda: verified(engine, "k-2"), "verified")
    await engine.autoscaler("--member", "two")
    running = await engine.goals("k-1")
    first.send_signal(signal.SIGKILL)

    async def woken() -> bool:
        engine.wake("k-2")
        await asyncio.sleep(0.25)
        return Goal.RUN in await engine.goals("k-2")

    await until(woken, "the second one answers wakes", 15)
    assert await engine.goals("k-1") == running, "for one stable window nothing goes down"


async def test_a_restarted_autoscaler_does_not_wait_for_the_lease_of_its_killed_predecessor(
    engine: Engine, agent: Agent
) -> None:
    first = await engine.autoscaler("--election-ttl-s", "30")
    await engine.deploy("s-1", initial_scale=0)
    await until(lambda: verified(engine, "s-1"), "verified")
    first.send_signal(signal.SIGKILL)
    first.wait(5)
    await engine.autoscaler()

    async def woken() -> bool:
        engine.wake("s-1")
        await asyncio.sleep(0.1)
        return Goal.RUN in await engine.goals("s-1")

    await until(woken, "it answers wakes", 5)
