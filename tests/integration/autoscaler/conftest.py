"""Real etcd and NATS for autoscalers, and a node."""

from collections.abc import AsyncIterator

import pytest

from store import messages
from store.backend import Store
from store.bus import Bus
from store.messages import Refusal
from store.model import decode
from tests import real
from tests.integration.autoscaler.world import Agent, Engine


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
