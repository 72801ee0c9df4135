"""What certificates on both sides and the gate cost a wake, on and off: part of `deploy/bench security`.

A parked start is one assignment that the node agent's watch hears of, and one message on NATS that it is Ready. etcd and NATS are
there twice: as the all-in-one runs them, and in plain text without the gate. Samples take turns.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy import components
from deploy.bench_warm_rivals import BIN, Started
from deploy.issued import Issued
from deploy.ports import free_port, free_ports
from deploy.settings import PORTS, Engine
from process.identity import Identity
from store import keys, messages
from store.backend import Store
from store.connect import open_bus, open_store

WAIT_S = 10.0
STEPS = ("an assignment reaches the agent", "Ready reaches the front door")


@dataclass(frozen=True)
class Wire:
    """Where etcd (for the agent: perhaps a gate before it) and NATS are, and who connects; none: in plain text."""

    etcd: str
    agents_etcd: str
    nats: str
    node: str
    identities: Path | None = None

    def identity(self, role: str) -> Identity | None:
        return Identity(self.identities / role) if self.identities is not None else None


def measure(home: Path, samples: int) -> dict[str, tuple[float, float]]:
    """By step: median milliseconds with all on, and in plain text."""
    with ExitStack() as stack:
        started = Started(stack, home)
        wires = secured(started, home), plain(started, home)
        return asyncio.run(_measure(wires, samples))


def secured(started: Started, home: Path) -> Wire:
    """As `ebb up` runs them."""
    engine = Engine(root=str(home / "root"), run=str(home / "run"), port_base=free_ports(len(PORTS)))
    Issued(engine).renew()
    specs = {spec.name: spec for spec in components.specs(engine, home / "unused.toml")}
    for name, port in (("etcd", "etcd"), ("nats", "nats"), ("gate", "gate")):
        started.start(name, list(specs[name].argv), engine.port(port))
    etcd, gate, nats = (f"127.0.0.1:{engine.port(name)}" for name in ("etcd", "gate", "nats"))
    return Wire(etcd, gate, f"nats://{nats}", engine.machine, engine.identity("x").parent)


def plain(started: Started, home: Path) -> Wire:
    """Without certificates, and without the gate."""
    etcd, peer, nats = free_port(), free_port(), free_port()
    client, peers = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    argv = ["etcd", "--data-dir", str(home / "plain-etcd"), "--log-level", "error", "--listen-client-urls", client]
    argv += ["--advertise-client-urls", client, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    started.start("plain-etcd", [*argv, "--initial-cluster", f"default={peers}"], etcd)
    started.start("plain-nats", [str(BIN / "nats-server"), "--addr", "127.0.0.1", "--port", str(nats)], nats)
    return Wire(f"127.0.0.1:{etcd}", f"127.0.0.1:{etcd}", f"nats://127.0.0.1:{nats}", "node")


async def _measure(wires: tuple[Wire, ...], samples: int) -> dict[str, tuple[float, float]]:
    async with contextlib.AsyncExitStack() as stack:
        steps = [await stack.enter_async_context(connected(wire)) for wire in wires]
        took: dict[tuple[int, int], list[float]] = {}
        for _ in range(samples):
            for side, own in enumerate(steps):
                for step, run in enumerate(own):
                    begun = time.perf_counter()
                    async with asyncio.timeout(WAIT_S):
                        await run()
                    took.setdefault((step, side), []).append((time.perf_counter() - begun) * 1e3)
    return {name: (statistics.median(took[at, 0]), statistics.median(took[at, 1])) for at, name in enumerate(STEPS)}


@contextlib.asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[tuple[Callable[[], Awaitable[None]], ...]]:
    """The two steps of a wake over `wire`, each until the other end has heard."""
    scaler = await open_store(wire.etcd, wire.identity("autoscaler"))
    agents = await open_store(wire.agents_etcd, wire.identity("nodeagent"))
    agent, door = [await open_bus(wire.nats, role, wire.identity(role)) for role in ("nodeagent", "ingress")]
    heard = asyncio.Event()
    subject = messages.instance(wire.node)
    told = await door.handle(subject, lambda *_: heard.set())
    watching = asyncio.ensure_future(_watch(agents, keys.assignments(wire.node), heard))

    async def assigned() -> None:
        heard.clear()
        await scaler.put(keys.assignment(wire.node, "i-1"), b"{}")
        await heard.wait()

    async def said() -> None:
        heard.clear()
        agent.publish(subject, b"{}")
        await heard.wait()

    try:
        await _until(assigned, said)
        yield assigned, said
    finally:
        watching.cancel()
        await told.close()
        for each in (agent, door):
            await each.close()
        for store in (scaler, agents):
            await store.close()


async def _until(*steps: Callable[[], Awaitable[None]]) -> None:
    """Connections and the watch are there once a step arrives. Raises TimeoutError."""
    async with asyncio.timeout(WAIT_S):
        for step in steps:
            arrived = False
            while not arrived:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await step()
                        arrived = True


async def _watch(store: Store, prefix: str, heard: asyncio.Event) -> None:
    snapshot = await store.list(prefix)
    async for _ in store.watch(prefix, after=snapshot.store_rev):
        heard.set()


def show(found: dict[str, tuple[float, float]]) -> None:
    """A table."""
    table = Table(title="what certificates and the gate cost a wake, ms", box=None)
    for column in ("step", "on", "off", "costs"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, (on, off) in found.items():
        table.add_row(name, f"{on:.2f}", f"{off:.2f}", f"{on - off:+.2f}")
    Console(width=100).print(table)
