"""Every contract test runs on the twin in memory and on the real server: in clear, over TLS, and etcd through the gate."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from store.backend import Change, Store
from store.bus import Bus
from store.connect import open_bus, open_store
from store.memory import MemoryStore
from store.memory_bus import MemoryHub


@pytest.fixture(params=["twin", "etcd", "gate"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A store without keys: the twin, or real etcd, or one that speaks TLS behind a gate, to somebody who may do all."""
    if request.param == "twin":
        made: Store = MemoryStore()
    elif request.param == "gate":
        secure = await request.getfixturevalue("secure").wiped()
        made = await open_store(secure.gate.address, secure.identity("registry"))
    else:
        made = await open_store(request.getfixturevalue("etcd").address)
    yield made
    await made.close()


@pytest.fixture(params=["twin", "nats", "tls"])
async def buses(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Bus, Bus]]:
    """Two clients of one bus: the twin's hub, or a real NATS."""
    if request.param == "twin":
        hub = MemoryHub()
        pair: tuple[Bus, Bus] = (hub.client(), hub.client())
    elif request.param == "tls":
        url, secure = request.getfixturevalue("secure_nats").url, request.getfixturevalue("secure")
        identities = [secure.identity("registry", name) for name in ("one", "two")]
        pair = (await open_bus(url, "one", identities[0]), await open_bus(url, "two", identities[1]))
    else:
        url = request.getfixturevalue("nats").url
        pair = (await open_bus(url, "one"), await open_bus(url, "two"))
    yield pair
    for bus in pair:
        await bus.close()


class Watched:
    """What a watch gave out so far, gathered in the background."""

    def __init__(self, store: Store, prefix: str, after: int, *, previous: bool = True) -> None:
        self.batches: list[tuple[Change, ...]] = []
        self._arrived = asyncio.Condition()
        self._task = asyncio.create_task(self._gather(store, prefix, after, previous))

    @property
    def changes(self) -> list[Change]:
        return [change for batch in self.batches for change in batch]

    async def until(self, holds: Callable[["Watched"], bool], timeout_s: float = 20) -> None:
        """Wait until `holds` of this."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: holds(self) or self._task.done())
        if not holds(self):
            self._task.result()
            raise AssertionError("the watch ended")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _gather(self, store: Store, prefix: str, after: int, previous: bool) -> None:
        try:
            async for batch in store.watch(prefix, after=after, previous=previous):
                async with self._arrived:
                    self.batches.append(batch)
                    self._arrived.notify_all()
        finally:
            async with self._arrived:
                self._arrived.notify_all()


@pytest.fixture
async def watched() -> AsyncIterator[Callable[..., Watched]]:
    """`watched(store, prefix, after)` begins a watch that ends with the test."""
    open_ones: list[Watched] = []

    def begin(store: Store, prefix: str, after: int, *, previous: bool = True) -> Watched:
        open_ones.append(Watched(store, prefix, after, previous=previous))
        return open_ones[-1]

    yield begin
    for one in open_ones:
        await one.close()
