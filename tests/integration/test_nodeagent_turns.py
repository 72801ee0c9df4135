"""Turns at the processors: of an instance that waits for calls, and of one that burns."""

from collections.abc import AsyncIterator

import pytest

from store.backend import Store
from store.lifecycle import Phase
from tests import real
from tests.integration.agent_world import SERVE, World, world
from tests.slices import slice_us

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


async def test_who_waits_for_calls_has_short_turns_and_who_burns_has_not(node: World) -> None:
    usual = slice_us()
    await node.revision("calm-00001")
    await node.revision("busy-00001", script=f"while :; do :; done & {SERVE}")
    for name in ("calm", "busy"):
        await node.assign(name, revision=f"{name}-00001")
        await node.phase(name, Phase.READY)
    calm, busy = await node.task_pid("calm"), await node.task_pid("busy")

    async def short() -> bool:
        return slice_us(calm) < usual

    await node.until(short, "the calm one's turns are short")
    assert slice_us(busy) == usual
