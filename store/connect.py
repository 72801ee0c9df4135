"""Where a process gets its store and bus from: the real ones."""

from process.identity import Identity
from process.settings import Common
from store.backend import Store
from store.bus import Bus


def identity_of(settings: Common) -> Identity | None:
    """Who this process is to the others; None: nobody, and nothing is encrypted. Raises BadIdentity."""
    return Identity(settings.identity) if settings.identity else None


async def open_both(settings: Common, name: str) -> tuple[Store, Bus]:
    """Store and bus of `settings`, as whom its identity says. Raises BadIdentity."""
    identity = identity_of(settings)
    return await open_store(settings.etcd, identity), await open_bus(settings.nats, name, identity)


async def open_store(etcd: str, identity: Identity | None = None) -> Store:
    """A client of etcd at `etcd` (comma-separated host:port). Returns at once, also while etcd is away. Raises BadIdentity."""
    from store.etcd import EtcdStore

    return EtcdStore(etcd, identity=identity)


async def open_bus(nats_url: str, name: str, identity: Identity | None = None) -> Bus:
    """A client of NATS that calls itself `name` there. Waits a second for the server and then returns without; it goes on trying."""
    from store.nats import NatsBus

    bus = NatsBus(nats_url, name, identity)
    await bus.start()
    return bus
