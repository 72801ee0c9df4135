"""Fixtures that any test may take: one real etcd and one real NATS a run, and clients of them for one test."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from process.identity import Who
from store.backend import Store
from store.bus import Bus
from store.connect import open_bus, open_store
from tests import real

# Without it, looptime's plugin makes an event loop for the first test that is not async, and nobody closes it.
asyncio.set_event_loop(None)

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("ebb", deadline=None)
settings.load_profile("ebb")


@pytest.fixture(scope="session")
def _etcd_of_the_run() -> Iterator[real.Server]:
    with real.blocking(real.make_etcd) as server:
        yield server


@pytest.fixture(scope="session")
def _nats_of_the_run() -> Iterator[real.Server]:
    with real.blocking(real.make_nats) as server:
        yield server


@pytest.fixture
def etcd(_etcd_of_the_run: real.Server) -> real.Server:
    """A real etcd that holds no key. Shared by the run: a test that stops it takes `real.etcd()` instead."""
    real.wipe(_etcd_of_the_run)
    return _etcd_of_the_run


@pytest.fixture
def nats(_nats_of_the_run: real.Server) -> real.Server:
    """A real nats-server. Shared by the run: a test that stops it takes `real.nats()` instead."""
    return _nats_of_the_run


@pytest.fixture(scope="session")
def _secure_of_the_run() -> Iterator[real.Secure]:
    with real.secure() as made:
        yield made


@pytest.fixture(scope="session")
def _secure_bus_of_the_run(_secure_of_the_run: real.Secure) -> Iterator[real.Server]:
    known = [Who("registry", "one"), Who("registry", "two")]
    cluster = _secure_of_the_run.cluster
    with real.blocking(lambda home: real.make_secure_nats(home, cluster, *known, free=True)) as server:
        yield server


@pytest.fixture
def secure_nats(_secure_bus_of_the_run: real.Server) -> real.Server:
    """A real NATS that speaks TLS with the registries called `one` and `two`, who may say all. Shared by the run."""
    return _secure_bus_of_the_run


@pytest.fixture
def secure(_secure_of_the_run: real.Secure) -> real.Secure:
    """A real etcd that speaks TLS, and a gate before it: `await secure.wiped()`. Shared by the run."""
    return _secure_of_the_run


@pytest.fixture
async def store(etcd: real.Server) -> AsyncIterator[Store]:
    """A client of the empty real etcd."""
    client = await open_store(etcd.address)
    yield client
    await client.close()


@pytest.fixture
async def bus(nats: real.Server) -> AsyncIterator[Bus]:
    """A client of the real NATS."""
    client = await open_bus(nats.url, "test")
    yield client
    await client.close()
