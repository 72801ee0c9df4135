"""Bodies of any length with flat memory, whoever is slow; WebSockets; clients and instances that go away in the middle."""

import asyncio
import base64
import hashlib
from typing import Any

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from store import messages
from store.lifecycle import Phase
from store.messages import Drained
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, REVISION, Door, instance, open_door, read_head

BLOCK = b"x" * 65_536
MOST_KEPT = 8 * 2**20
"""Bytes that sockets and buffers between two ends may hold: Linux lets a pair of sockets grow to 10 MB. Far below what is sent."""


def in_flight(door: Door) -> int:
    return door.ingress.admitter.throttler(REVISION).in_flight


async def settled(count) -> int:
    """`count()` once it no longer grows."""
    before, same = -1, 0
    while same < 10:
        await asyncio.sleep(0.02)
        now = count()
        same = same + 1 if now == before else 0
        before = now
    return before


@pytest.mark.parametrize("framing", ["Content-Length: 67108864", "Transfer-Encoding: chunked"])
async def test_a_client_that_does_not_read_stops_the_instance(framing: str) -> None:
    sent = 0

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        for _ in range(1024):
            writer.write(b"10000\r\n" + BLOCK + b"\r\n" if "chunked" in framing else BLOCK)
            await writer.drain()
            sent += len(BLOCK)
        if "chunked" in framing:
            writer.write(b"0\r\n\r\n")

    async with open_door() as door, instance(pours) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.transport.pause_reading()
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        await eventually(lambda: sent > 0)
        assert await settled(lambda: sent) < 3 * MOST_KEPT
        (client,) = door.ingress.listener._clients
        assert client.transport.get_write_buffer_size() < 2**20
        writer.transport.resume_reading()
        received = len(await reader.read())
        writer.close()
        assert received >= 67_108_864
        assert in_flight(door) == 0


async def test_a_client_that_does_not_read_what_came_whole_is_asked_nothing_more_and_stops_nobody_else() -> None:
    """Each answer ends at the instance before the client has read it, and its connection serves others next."""
    body, served = b"x" * 20_000, 0

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while await read_head(reader):
            served += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

    async with open_door() as door, instance(app) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        asked = stuck = 0
        while not stuck:
            before = served
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            asked += 1
            for _ in range(50):
                await asyncio.sleep(0.002 if served == before else 0)
            stuck = served == before
            assert len(await asyncio.wait_for(door.get(), 5)) > len(body)
            assert asked * len(body) < MOST_KEPT
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() * 100)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            for _ in range(asked + 100):
                await read_head(reader)
                assert await reader.readexactly(len(body)) == body
        writer.close()


async def test_an_instance_that_does_not_read_stops_the_client() -> None:
    go = asyncio.Event()
    received = 0

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await read_head(reader)
        await go.wait()
        while received < 64 * 2**20:
            received += len(await reader.read(2**20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with open_door() as door, instance(stalls) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {64 * 2**20}\r\nConnection: close\r\n\r\n".encode())
        sent = 0

        async def pour() -> None:
            nonlocal sent
            for _ in range(1024):
                writer.write(BLOCK)
                await writer.drain()
                sent += len(BLOCK)

        pouring = asyncio.create_task(pour())
        await eventually(lambda: sent > 0)
        assert await settled(lambda: sent) < 3 * MOST_KEPT
        go.set()
        await pouring
        assert (await reader.read()).endswith(b"ok")
        writer.close()


async def test_a_body_that_waits_for_an_instance_is_held_within_bounds_and_arrives_whole() -> None:
    digest = hashlib.sha256()

    async def hashes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        left = 8 * 2**20
        while left:
            data = await reader.read(2**16)
            digest.update(data)
            left -= len(data)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with open_door() as door, instance(hashes) as port:
        await door.route()
        reader, writer = await door.connect()
        body = bytes(range(256)) * (8 * 2**12)
        writer.write(
            f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        )
        await eventually(lambda: len(door.ingress.admitter.throttler(REVISION).line) == 1)
        (client,) = door.ingress.listener._clients
        await eventually(lambda: client._paused)
        await door.ready("i1", port)
        assert (await reader.read()).endswith(b"ok")
        assert digest.digest() == hashlib.sha256(body).digest()
        writer.close()


async def test_events_arrive_as_they_are_sent() -> None:
    go = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await go.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with open_door() as door, instance(events) as port, aiohttp.ClientSession() as session:
        await door.route()
        await door.ready("i1", port)
        async with session.get(f"http://127.0.0.1:{door.port}/", headers={"Host": HOST}) as answer:
            assert await answer.content.readany() == b"data: 1\n\n"
            go.set()
            assert await answer.content.readany() == b"data: 2\n\n"


# -- WebSocket ----------------------------------------------------------------------------------------------------------------


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)
        if message == "bye":
            await socket.close(4001, "as asked")


def dial(door: Door, **options: Any) -> connect:
    """A WebSocket to the service, through the door."""
    return connect(f"ws://{HOST}/ws", host="127.0.0.1", port=door.port, proxy=None, **options)


async def test_a_websocket_passes_whole_compressed_and_large_messages_and_close_codes() -> None:
    async with open_door() as door, serve(echo, "127.0.0.1", 0, max_size=2**22) as server:
        await door.route(container_concurrency=1)
        await door.ready("i1", server.sockets[0].getsockname()[1])
        async with dial(door, max_size=2**22) as socket:
            assert in_flight(door) == 1
            for message in ("hello", b"\x00\x01" * 500_000, ["frag", "ment", "ed"], "ä" * 1000):
                await socket.send(message)
                expected = "".join(message) if isinstance(message, list) else message
                assert await socket.recv() == expected
            await socket.send("bye")
            assert await socket.recv() == "bye"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
        await eventually(lambda: in_flight(door) == 0)


async def test_a_websocket_over_its_time_is_ended() -> None:
    async with open_door() as door, serve(echo, "127.0.0.1", 0) as server:
        await door.route(timeout_s=0.5)
        await door.ready("i1", server.sockets[0].getsockname()[1])
        async with dial(door) as socket:
            await socket.send("hi")
            assert await socket.recv() == "hi"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        await eventually(lambda: in_flight(door) == 0)


async def test_draining_tells_websockets_to_go_elsewhere() -> None:
    async with open_door() as door, serve(echo, "127.0.0.1", 0) as server:
        await door.route()
        await door.ready("i1", server.sockets[0].getsockname()[1])
        async with dial(door) as socket:
            await socket.send("hi")
            assert await socket.recv() == "hi"
            drained = asyncio.create_task(door.ingress.drain(5))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            await drained


async def test_a_client_that_drops_its_websocket_ends_it_at_the_instance() -> None:
    ended = asyncio.Event()

    async def waits(socket: ServerConnection) -> None:
        await socket.wait_closed()
        ended.set()

    async with open_door() as door, serve(waits, "127.0.0.1", 0) as server:
        await door.route()
        await door.ready("i1", server.sockets[0].getsockname()[1])
        socket = await dial(door)
        socket.transport.abort()
        await ended.wait()
        await eventually(lambda: in_flight(door) == 0)
        door.tell(door.news("i1", Phase.DRAINING))
        await eventually(lambda: door.said(Drained, messages.drained("n1")))


UPGRADE = (
    f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
            b"502",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"502"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            b"502",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nUpgrade: websocket\r\n\r\n", b"200"),
    ],
)
async def test_only_a_valid_101_opens_a_tunnel(given: bytes, status: bytes) -> None:
    smuggled: list[bytes] = []

    async def fake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(given)
        await writer.drain()
        smuggled.append(await reader.read())

    async with open_door() as door, instance(fake) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(UPGRADE)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 " + status)
        writer.write(b"GET /smuggled HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        await door.ingress.drain(1)
        await eventually(lambda: smuggled)
        assert not any(b"smuggled" in each for each in smuggled)


KEYLESS = base64.b64encode(hashlib.sha1(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
"""What accepts a handshake without a key."""


@pytest.mark.parametrize("accept", [b"", b"Sec-WebSocket-Accept: " + KEYLESS + b"\r\n"], ids=["plain", "with an accept"])
async def test_a_101_nobody_asked_for_is_a_502(accept: bytes) -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + accept + b"\r\n")
        await reader.read()

    async with open_door() as door, instance(eager) as port:
        await door.route()
        await door.ready("i1", port)
        assert (await door.get()).startswith(b"HTTP/1.1 502 ")
