"""Either end of an HTTP/2 connection for tests: the h2 library, driven by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
)

from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door

Fields = list[tuple[str, str]]


class Goaways:
    """Takes GOAWAY out of what a peer hears: the library would end with the first, and streams that were open with it."""

    def __init__(self, preface: int) -> None:
        self.codes: list[int] = []
        self._preface = preface
        self._partial = b""

    def feed(self, data: bytes) -> bytes:
        """What of `data` is the library's."""
        passed, data = data[: self._preface], self._partial + data[self._preface :]
        self._preface -= len(passed)
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
            if data[3] == GoAwayFrame.type:
                self.codes.append(int.from_bytes(data[13:17], "big"))
            else:
                passed += data[:end]
            data = data[end:]
        self._partial = data
        return passed


class Peer(asyncio.Protocol):
    """One end of an HTTP/2 connection that keeps everything it hears. It reads no more than `window` allows while `eager` is off."""

    def __init__(self, *, client: bool = True, settings: dict[SettingCodes, int] | None = None) -> None:
        config = H2Configuration(
            client_side=client, header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = H2Connection(config)
        self.events: list[h2.events.Event] = []
        self.bodies: dict[int, int] = {}
        self.eager = True
        self.closed = False
        self._heard = Goaways(0 if client else 24)
        self.goaways = self._heard.codes
        self.transport: Any = None
        self.on_request: Callable[[Peer, h2.events.Event], None] | None = None
        if settings:
            self.h2.local_settings.update(settings)
            self.h2.local_settings.acknowledge()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(self._heard.feed(data)):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, 0) + len(event.data)
                if self.eager:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if self.on_request is not None:
                self.on_request(self, event)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    def flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send())

    def of(self, kind: type, stream: int = 0) -> list[Any]:
        return [each for each in self.events if isinstance(each, kind) and (not stream or each.stream_id == stream)]

    def request(
        self, path: str = "/", *, method: str = "GET", host: str = HOST, fields: Fields | None = None, end: bool = True
    ) -> int:
        id = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", host), *(fields or [])]
        self.h2.send_headers(id, head, end_stream=end)
        self.flush()
        return id

    async def answer(self, id: int) -> tuple[dict[str, str], bytes]:
        """(head, body) of the answer on stream `id`."""
        await eventually(lambda: self.of(h2.events.StreamEnded, id) or self.of(h2.events.StreamReset, id), "the stream ends")
        assert self.of(h2.events.StreamEnded, id), self.events
        (head,) = self.of(h2.events.ResponseReceived, id)
        return dict(head.headers), b"".join(each.data for each in self.of(h2.events.DataReceived, id))

    def frame(self, *frames: Frame) -> None:
        self.flush()
        self.transport.write(b"".join(each.serialize() for each in frames))


@asynccontextmanager
async def peer(door: Door, **settings: Any) -> AsyncIterator[Peer]:
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_connection(lambda: Peer(**settings), "127.0.0.1", door.port)
    try:
        yield made
    finally:
        transport.abort()


@asynccontextmanager
async def h2c_instance(on_event: Callable[[Peer, Any], None], **settings: Any) -> AsyncIterator[tuple[list[Peer], int]]:
    """An instance that speaks HTTP/2; (its connections, its port)."""
    peers: list[Peer] = []

    def make() -> Peer:
        made = Peer(client=False, **settings)
        made.on_request = on_event
        peers.append(made)
        return made

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield peers, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in peers:
            each.transport.abort()


def hello(server: Peer, event: Any) -> None:
    """Answers `hello` with a trailer once the request is whole."""
    if isinstance(event, h2.events.StreamEnded):
        server.h2.send_headers(event.stream_id, [(":status", "200"), ("x-from", "instance")])
        server.h2.send_data(event.stream_id, b"hello")
        server.h2.send_headers(event.stream_id, [("x-sum", "42")], end_stream=True)
