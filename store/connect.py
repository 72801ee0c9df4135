"""Where a process gets its store and bus from: the real ones."""

from store.backend import Store
from store.bus import Bus


async def open_store(etcd: str) -> Store:
    """A client of etcd at `etcd` (comma-separated host:port). Returns at once, also while etcd is away."""
    from store.etcd import EtcdStore

    return EtcdStore(etcd)


async def open_bus(nats_url: str, name: str) -> Bus:
    """A client of NATS that calls itself `name` there. Waits a second for the server and then returns without; it goes on trying."""
    from store.nats import NatsBus

    bus = NatsBus(nats_url, name)
    await bus.start()
    return bus
