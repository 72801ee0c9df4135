"""These tests run on the loop that the processes run on; and clients of a real etcd and gate, each with a certificate."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from process.identity import Identity
from store.etcd import EtcdStore
from tests import real

Opening = Callable[..., EtcdStore]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def opening() -> AsyncIterator[Opening]:
    """Makes clients that are closed after the test."""
    made: list[EtcdStore] = []

    def open_(address: str, identity: Identity | None = None, deadline_s: float = 5) -> EtcdStore:
        made.append(EtcdStore(address, identity=identity, deadline_s=deadline_s))
        return made[-1]

    yield open_
    for client in made:
        await client.close()


@pytest.fixture
async def truth(secure: real.Secure, opening: Opening) -> EtcdStore:
    """What really stands in etcd, without any key at first."""
    await secure.wiped()
    return opening(secure.etcd.address, secure.identity("registry"))


@pytest.fixture
async def node_1(secure: real.Secure, truth: EtcdStore, opening: Opening) -> EtcdStore:
    """The gate, as the node agent of node-1."""
    return opening(secure.gate.address, secure.identity("nodeagent", "node-1"))
