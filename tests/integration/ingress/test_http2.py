"""HTTP/2 without gRPC: both protocols on both sides, abuse, windows, draining. The client is the h2 library, driven by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.events
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
)

from ingress.gate import Bounds
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door, Recorder, instance, open_door, read_head

REVISION = "default/r1"
Fields = list[tuple[str, str]]


def rss_mb() -> float:
    """Memory of this process, where the front door runs too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


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


async def test_a_client_of_http2_reaches_an_instance_of_http1() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        get = client.request(
            "/a?b=c", fields=[("cookie", "a=1"), ("cookie", "b=2"), ("x-ebb-reason", "me"), ("te", "trailers")]
        )
        head, body = await client.answer(get)
        assert (head[":status"], body) == ("200", b"ok 1")
        assert "date" in head
        post = client.request("/", method="POST", end=False)
        client.h2.send_data(post, bytes(5000))
        client.h2.send_data(post, b"end", end_stream=True)
        client.flush()
        assert (await client.answer(post))[1] == b"ok 2"
        counted = client.request("/", method="POST", fields=[("content-length", "3")], end=False)
        client.h2.send_data(counted, b"abc", end_stream=True)
        client.flush()
        assert (await client.answer(counted))[1] == b"ok 3"
    first, second, third = recorder.heads
    assert first.startswith(f"GET /a?b=c HTTP/1.1\r\nHost: {HOST}\r\n".encode())
    assert b"\r\ncookie: a=1; b=2\r\n" in first
    assert b"x-ebb-reason" not in first
    assert b"\r\nte:" not in first.lower()
    assert b"Transfer-Encoding: chunked\r\n" in second
    assert b"Content-Length: 3\r\n" in third
    assert recorder.bodies[2] == b"abc"
    assert recorder.connections == 1


async def test_a_request_that_comes_again_is_the_same_but_for_its_ids() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        for _ in range(4):
            assert (await client.answer(client.request("/again", fields=[("x-a", "1")])))[0][":status"] == "200"
        open_ended = client.request("/again", fields=[("x-a", "1")], end=False)
        client.h2.send_data(open_ended, b"abc", end_stream=True)
        client.flush()
        assert (await client.answer(open_ended))[0][":status"] == "200"

    def said(head: bytes, own: bool) -> list[bytes]:
        ids = (b"X-Request-Id: ", b"traceparent: ")
        return [line for line in head.split(b"\r\n") if line.startswith(ids) is own]

    first, *others, last = recorder.heads
    assert [said(head, False) for head in others] == [said(first, False)] * 3
    assert len({line for head in recorder.heads for line in said(head, True)}) == 10
    assert b"Transfer-Encoding: chunked" in last
    assert b"abc" in recorder.bodies[-1]


async def test_an_interim_answer_is_passed_on_when_it_comes_not_with_the_last() -> None:
    heard = asyncio.Event()

    async def hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n")
        await heard.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with open_door() as door, instance(hints) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        id = client.request()
        await eventually(lambda: client.of(h2.events.InformationalResponseReceived, id), "the hints come")
        heard.set()
        assert (await client.answer(id))[1] == b"ok"


async def test_a_client_of_http1_reaches_an_instance_of_http2() -> None:
    async with open_door() as door, h2c_instance(hello) as (peers, port):
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        answer = await door.get("/x", "Connection: x-mine", "x-mine: 1", "X-Yours: 2")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"x-from: instance\r\n" in answer
        assert answer.endswith(b"5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")
        (request,) = peers[0].of(h2.events.RequestReceived)
        head = dict(request.headers)
        assert (head[":path"], head[":authority"], head[":scheme"]) == ("/x", HOST, "http")
        assert head["x-yours"] == "2"
        assert not {"connection", "x-mine", "transfer-encoding", "host"} & head.keys()
        chunked = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        chunked += "3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"
        assert b"hello" in await door.send(chunked.encode())
        assert dict(peers[0].of(h2.events.TrailersReceived)[0].headers) == {"x-t": "1"}
        assert b"content-length: 0" not in answer.lower()
        assert len(peers) == 1


async def test_an_instance_that_has_no_body_to_send_ends_the_answer_for_http1_too() -> None:
    def empty(server: Peer, event: Any) -> None:
        if isinstance(event, h2.events.StreamEnded):
            server.h2.send_headers(event.stream_id, [(":status", "200")], end_stream=True)

    async with open_door() as door, h2c_instance(empty) as (_, port):
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            assert b"content-length: 0\r\n" in await asyncio.wait_for(read_head(reader), 5)
        writer.close()


async def test_an_instance_that_is_named_h2c_and_is_not_is_unreachable() -> None:
    async with open_door() as door, instance(Recorder()) as port:
        await door.route(protocol="h2c", timeout_s=0.5)
        await door.ready("i1", port)
        answer = await door.get()
    assert answer.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 504 "))


async def test_a_websocket_is_refused_where_there_is_only_http2() -> None:
    async with open_door() as door, h2c_instance(hello) as (_, port):
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        answer = await door.get("/", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==")
        assert b" 502 " in answer
        assert b"WebSockets need http1" in answer
        assert door.ingress.admitter.throttler(REVISION).in_flight == 0


async def test_resets_go_both_ways_with_their_code() -> None:
    def begins(server: Peer, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            server.h2.send_headers(event.stream_id, [(":status", "200")])
            server.h2.send_data(event.stream_id, b"some")

    async with open_door() as door, h2c_instance(begins) as (peers, port), peer(door) as client:
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        one, two = client.request("/1"), client.request("/2")
        await eventually(lambda: client.bodies.get(one) and client.bodies.get(two))
        server = peers[0]
        server.h2.reset_stream(1, ErrorCodes.ENHANCE_YOUR_CALM)
        server.flush()
        await eventually(lambda: client.of(h2.events.StreamReset, one))
        assert client.of(h2.events.StreamReset, one)[0].error_code == ErrorCodes.ENHANCE_YOUR_CALM
        client.h2.reset_stream(two, ErrorCodes.CANCEL)
        client.flush()
        await eventually(lambda: server.of(h2.events.StreamReset, 3))
        assert server.of(h2.events.StreamReset, 3)[0].error_code == ErrorCodes.CANCEL
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 0)


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_an_answer_of_http1_that_breaks_off_is_a_reset_and_never_an_end(framing: bytes) -> None:
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    async with open_door() as door, instance(dies) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        stream = client.request("/")
        await eventually(lambda: client.of(h2.events.StreamReset, stream) or client.of(h2.events.StreamEnded, stream))
        assert client.of(h2.events.ResponseReceived, stream)
        assert not client.of(h2.events.StreamEnded, stream)


async def test_an_instance_that_says_goaway_finishes_and_gets_no_more() -> None:
    async with open_door() as door, h2c_instance(lambda *_: None) as (peers, port), peer(door) as client:
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        first = client.request("/1")
        await eventually(lambda: peers and peers[0].of(h2.events.RequestReceived))
        peers[0].frame(GoAwayFrame(0, last_stream_id=1, error_code=0, additional_data=b"max age"))
        second = client.request("/2")
        await eventually(lambda: len(peers) == 2 and peers[1].of(h2.events.RequestReceived))
        for server in peers:
            hello(server, server.of(h2.events.StreamEnded)[0])
            server.flush()
        assert (await client.answer(first))[1] == b"hello"
        assert (await client.answer(second))[1] == b"hello"
        await eventually(lambda: peers[0].closed, "the old connection is closed")


MALFORMED: list[Fields] = [
    [("connection", "close")],
    [("transfer-encoding", "chunked")],
    [("upgrade", "h2c")],
    [("keep-alive", "1")],
    [("te", "gzip")],
    [("x-a", "b\r\nx-c: d")],
    [("x-a", "b\nc")],
    [("x-a", "b\0c")],
    [("x-a", " b")],
    [("x a", "b")],
    [("x-a\r\nb", "c")],
    [("X-Upper", "b")],
    [("x:a", "b")],
    [("host", "other.example")],
    [("content-length", "1"), ("content-length", "2")],
    [("content-length", "-1")],
    [("content-length", "5")],
    [(":path", "/again")],
    [(":status", "200")],
    [("x-a", "b"), (":late", "c")],
]


@pytest.mark.parametrize("fields", MALFORMED, ids=str)
async def test_malformed_requests_are_reset_and_reach_nobody(fields: Fields) -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        bad = client.request("/", fields=fields)
        await eventually(lambda: client.of(h2.events.StreamReset, bad) or client.closed)
        assert recorder.heads == []
        if not client.closed:
            assert (await client.answer(client.request("/good")))[0][":status"] == "200"


@pytest.mark.parametrize("path", ["", "x", "/a b", "/a\r\nb", "/a#b", "http://other/", "*", "/\x80"])
async def test_paths_that_are_none_reach_nobody(path: str) -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        bad = client.request(path)
        await eventually(lambda: client.of(h2.events.StreamReset, bad) or client.closed)
        assert recorder.heads == []


async def test_an_error_of_ours_has_its_status_and_reason() -> None:
    async with open_door() as door, peer(door) as client:
        head, body = await client.answer(client.request(host="nobody.example"))
        assert (head[":status"], head["x-ebb-reason"]) == ("404", "no-route")
        assert body.startswith(b"no-route: ")
        head, _ = await client.answer(client.request("/" + "x" * 9000))
        assert head[":status"] == "414"
        head, _ = await client.answer(client.request(fields=[(f"x-{n}", "1") for n in range(101)]))
        assert head[":status"] == "431"
        head, _ = await client.answer(client.request(method="CONNECT"))
        assert head[":status"] == "405"


def resets(client: Peer) -> None:
    for _ in range(700):
        id = client.request("/")
        client.h2.reset_stream(id)
    client.flush()


def pings(client: Peer) -> None:
    client.frame(*[PingFrame(0, b"12345678") for _ in range(1200)])


def settings(client: Peer) -> None:
    client.frame(*[SettingsFrame(0) for _ in range(1200)])


def empties(client: Peer) -> None:
    id = client.request("/", method="POST", end=False)
    client.frame(*[DataFrame(id) for _ in range(1200)])


def priorities(client: Peer) -> None:
    client.frame(*[PriorityFrame(1, depends_on=3) for _ in range(1200)])


def continuations(client: Peer) -> None:
    client.frame(HeadersFrame(1, b"\0" * 100), *[ContinuationFrame(1, b"\0" * 16000) for _ in range(5)])


def short_continuations(client: Peer) -> None:
    client.frame(HeadersFrame(1, b"\0" * 100), *[ContinuationFrame(1, b"") for _ in range(1200)])


def bomb(client: Peer) -> None:
    """One large field, then named again and again: 1 byte each."""
    client.h2.encoder.header_table_size = 4096
    block = client.h2.encoder.encode([("x-large", "x" * 4000)]) + b"\xbe" * 15000
    client.frame(HeadersFrame(1, block, flags=["END_HEADERS"]))


def too_large(client: Peer) -> None:
    client.frame(DataFrame(1, bytes(20000)))


def too_many_streams(client: Peer) -> None:
    client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000
    client.h2.remote_settings.acknowledge()
    for _ in range(101):
        client.request("/", method="POST", end=False)


@pytest.mark.parametrize(
    "flood",
    [resets, pings, settings, empties, priorities, continuations, short_continuations, bomb, too_large, too_many_streams],
)
async def test_a_flood_ends_its_connection_and_nothing_else(flood: Callable[[Peer], None]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with open_door() as door, instance(silent) as port, peer(door) as client, peer(door) as other:
        await door.route()
        await door.ready("i1", port)
        await eventually(lambda: client.of(h2.events.RemoteSettingsChanged))
        flood(client)
        await eventually(lambda: client.closed, "the connection is cut")
        assert client.goaways[0] != ErrorCodes.NO_ERROR
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 0)
        assert (await other.answer(other.request(host="nobody.example")))[0][":status"] == "404"


async def test_ordinary_cancels_and_pings_are_no_flood() -> None:
    async with open_door() as door, instance(Recorder()) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        for _ in range(3):
            for _ in range(60):
                client.h2.reset_stream(client.request("/"))
            client.frame(*[PingFrame(0, b"12345678") for _ in range(20)])
            answer = await client.answer(client.request("/"))
            assert answer[0][":status"] == "200", answer


async def test_a_slow_client_holds_its_own_stream_and_memory_stays_flat() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/small" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with (
        open_door() as door,
        instance(endless) as port,
        peer(door, settings={SettingCodes.INITIAL_WINDOW_SIZE: 20_000}) as client,
    ):
        await door.route()
        await door.ready("i1", port)
        client.eager = False
        before = rss_mb()
        large = client.request("/large")
        await eventually(lambda: client.bodies.get(large) == 20_000, "its window is full")
        assert (await client.answer(client.request("/small")))[1] == b"ok"
        assert client.bodies[large] == 20_000
        assert rss_mb() - before < 10


async def test_an_instance_that_does_not_read_stops_the_client() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with open_door() as door, instance(deaf) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        id = client.request("/", method="POST", end=False)
        sent = 0
        for _ in range(5000):
            room = min(client.h2.local_flow_control_window(id), 16384)
            if room <= 0:
                await asyncio.sleep(0.002)
                continue
            client.h2.send_data(id, bytes(room))
            client.flush()
            sent += room
            await asyncio.sleep(0)
        assert sent < 12 * 2**20  # the kernel's buffers and ours


async def test_draining_finishes_streams_turns_new_ones_away_and_closes() -> None:
    recorder = Recorder(delay_s=0.3)
    async with instance(recorder) as port, open_door() as door, peer(door) as busy, peer(door) as idle:
        await door.route()
        await door.ready("i1", port)
        await eventually(lambda: idle.of(h2.events.RemoteSettingsChanged))
        id = busy.request("/")
        await eventually(lambda: recorder.now == 1)
        await door.ingress.drain(5)
        await eventually(lambda: idle.closed and busy.closed)
        assert set(idle.goaways) == set(busy.goaways) == {ErrorCodes.NO_ERROR}
        assert busy.of(h2.events.StreamEnded, id)


async def test_a_preface_that_comes_a_byte_at_a_time_is_one() -> None:
    async with open_door() as door:
        reader, writer = await door.connect()
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize():
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        head = await asyncio.wait_for(reader.readexactly(9), 5)
        assert head[3] == 4
        writer.close()
        assert (await door.send(b"PRI * HTTP/2.0\r\n\r\nXX")).startswith(b"HTTP/1.1 ")


async def test_who_began_with_http1_cannot_change_to_http2() -> None:
    async with open_door() as door:
        one = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        answer = await door.send(one + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
    assert answer.count(b"x-ebb-reason: ") == 2
    assert answer.split(b"\r\n\r\n")[1].count(b"HTTP/1.1 4") + answer.count(b"HTTP/1.1 505 ") == 1


async def test_idle_connections_are_closed() -> None:
    async with open_door(bounds=Bounds(header_time_s=0.2, idle_time_s=0.2)) as door, peer(door) as client:
        await eventually(lambda: client.closed, timeout_s=3)
