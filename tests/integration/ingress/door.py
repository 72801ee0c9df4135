"""A front door on loopback for tests: a real ingress on the stores' twins, and instances that the tests write themselves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from ingress.service import Ingress
from process.clock import SystemClock
from store import keys, messages
from store.lifecycle import Phase
from store.memory import MemoryStore
from store.memory_bus import MemoryBus, MemoryHub
from store.model import Instance, Limits, RouteEntry, TrafficTarget, decode, encode
from tests.eventually import eventually

HOST = "hello.default.localhost"
REVISION = "default/r1"
"""Where a door's routes go unless told otherwise."""
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Door:
    """One ingress, its cluster, and what was said on the bus."""

    def __init__(self, beside: "Door | None" = None, **settings: Any) -> None:
        """`beside`: another worker of the same cluster."""
        self.store = beside.store if beside else MemoryStore()
        self.hub = beside.hub if beside else MemoryHub()
        self.bus = self.hub.client()
        self.heard: list[tuple[str, bytes]] = []
        self.ingress_bus: MemoryBus = self.hub.client()
        self.ingress = Ingress(self.store, self.ingress_bus, SystemClock(), member="door-2" if beside else "door", **settings)
        self._seqs: dict[str, int] = {}

    @property
    def port(self) -> int:
        return self.ingress.listener.port

    def said(self, kind: Any, subject: str) -> list[Any]:
        """Decoded messages on `subject` so far."""
        return [decode(kind, data) for where, data in self.heard if where == subject]

    async def start(self) -> None:
        await self.bus.handle("ebb.>", lambda subject, data: self.heard.append((subject, data)))
        await self.ingress.start("127.0.0.1:0")

    async def route(self, shares: dict[str, int] | None = None, host: str = HOST, **limits: Any) -> None:
        """`host` goes to revisions by percent (default: all to r1), each with `limits`."""
        shares = shares or {"r1": 100}
        entry = RouteEntry(
            project="default",
            route=host,
            hosts={host: [TrafficTarget(revision=name, percent=percent) for name, percent in shares.items()]},
            limits={name: Limits(**limits) for name in shares},
        )
        await self.store.put(keys.route("default", host), encode(entry))
        await eventually(lambda: self.ingress.gate.routes.find(host.encode()), "the route is seen")

    async def route_port(self, port: int, name: str = "db", shares: dict[str, int] | None = None, **limits: Any) -> None:
        """Route `name` has `port` for revisions that speak raw TCP."""
        shares = shares or {"r1": 100}
        targets = [TrafficTarget(revision=revision, percent=percent) for revision, percent in shares.items()]
        kept = {revision: Limits(protocol="tcp", **limits) for revision in shares}
        entry = RouteEntry(project="default", route=name, hosts={}, ports={port: targets}, limits=kept)
        await self.store.put(keys.route("default", name), encode(entry))

    def news(self, name: str, phase: Phase, address: str = "", revision: str = "r1") -> Instance:
        seq = self._seqs[name] = self._seqs.get(name, 0) + 1
        return Instance(instance=name, project="default", revision=revision, node="n1", phase=phase, address=address, seq=seq)

    async def ready(self, name: str, port: int, revision: str = "r1") -> None:
        """Instance `name` is Ready at a loopback port: in the store, and seen by the ingress."""
        await self.store.put(keys.instance("n1", name), encode(self.news(name, Phase.READY, f"127.0.0.1:{port}", revision)))
        key = f"default/{revision}"
        await eventually(lambda: name in self.ingress.admitter.throttler(key).targets, "the instance is seen")

    def tell(self, news: Instance) -> None:
        """Say `news` on the bus, as an agent does."""
        self.bus.publish(messages.instance(news.node), encode(news))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)

    async def send(self, data: bytes, *, timeout_s: float = 10) -> bytes:
        """What comes back for `data` on a new connection until the door closes it."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.read()
        except ConnectionResetError:
            return b"<reset>"
        finally:
            writer.close()

    async def get(self, path: str = "/", *fields: str, method: str = "GET", host: str = HOST) -> bytes:
        """The whole answer to one request on a connection of its own."""
        lines = "".join(f"{field}\r\n" for field in fields)
        return await self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n".encode())


@asynccontextmanager
async def open_door(**settings: Any) -> AsyncIterator[Door]:
    """A front door that listens, closed at the end."""
    door = Door(**settings)
    await door.start()
    try:
        yield door
    finally:
        await door.ingress.drain(0.5)


@asynccontextmanager
async def instance(handler: Handler) -> AsyncIterator[int]:
    """A loopback port whose every connection is given to `handler`."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, limit=2**20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """One head, or b"" at the end of the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial


class Recorder:
    """An instance that answers 200 `ok <n>` to everything and keeps the heads and bodies it got."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.now = 0
        self.most = 0
        self.delay_s = delay_s

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await read_head(reader):
            self.heads.append(head)
            self.now += 1
            self.most = max(self.most, self.now)
            self.bodies.append(await self._body(head.lower(), reader))
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            body = self.answer()
            self.now -= 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def answer(self) -> bytes:
        return b"ok %d" % len(self.heads)

    async def _body(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        if b"transfer-encoding: chunked" in head:
            return await reader.readuntil(b"\r\n0\r\n\r\n") if b"\r\nx-t:" not in head else await reader.readuntil(b"\r\n\r\n")
        if b"content-length: " in head:
            return await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        return b""
