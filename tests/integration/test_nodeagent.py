"""The node agent on real etcd, NATS and containerd."""

from collections.abc import AsyncIterator

import pytest

from store.backend import Store
from store.lifecycle import Phase
from store.model import Goal
from tests import real
from tests.integration.agent_world import World, fetch, world

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


async def test_a_parked_instance_runs_answers_and_is_forgotten(node: World) -> None:
    await node.revision()
    await node.assign("app-1", Goal.PARK)
    parked = await node.phase("app-1", Phase.PARKED)
    assert parked.address
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert ready.seq > parked.seq
    assert await fetch(ready.address) == "hello\n"
    print(ready.phases_ms)
    await node.withdraw("app-1")
    await node.gone("app-1")
