"""WebSockets through the front door: the `websockets` library at both ends, and handshakes that are none."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import CloseCode

from tests.eventually import eventually
from tests.integration.ingress.door import HOST, REVISION, Door, instance, open_door, read_head

MEGABYTE = os.urandom(2**19) + bytes(2**19)


async def scripted(socket: ServerConnection) -> None:
    """Echoes; `close CODE REASON` closes, `pieces` answers in fragments, `ping` pings and tells when the pong is there."""
    async for message in socket:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            await socket.close(int(code), reason)
            return
        if message == "pieces":
            await socket.send(["a", "b" * 70_000, "c"])
        elif message == "ping":
            await (await socket.ping(b"are you there?"))
            await socket.send("pong")
        else:
            await socket.send(message)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[tuple[Door, Server]]:
    async with open_door() as door, serve(scripted, "127.0.0.1", 0, max_size=2**22, **options) as server:
        await door.route()
        await door.ready("i1", server.sockets[0].getsockname()[1])
        yield door, server


def dial(door: Door, **options: Any) -> connect:
    return connect(f"ws://{HOST}/ws", host="127.0.0.1", port=door.port, proxy=None, max_size=2**22, **options)


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_pass_whole_fragmented_and_compressed_both_ways(compression: str | None) -> None:
    async with world(compression=compression) as (door, _), dial(door, compression=compression) as socket:
        assert [each.name for each in socket.protocol.extensions] == (["permessage-deflate"] if compression else [])
        for message in ("", "ä", b"", MEGABYTE, "x" * 2**20):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send([MEGABYTE[:100_000], b"", MEGABYTE[100_000:]])
        assert await socket.recv() == MEGABYTE
        await socket.send("pieces")
        assert [piece async for piece in socket.recv_streaming()] == ["a", "b" * 70_000, "c", ""], (
            "the fragments are the instance's"
        )


async def test_pings_are_answered_by_the_other_end() -> None:
    async with world() as (door, _), dial(door) as socket:
        assert await (await socket.ping(b"x" * 125)) >= 0
        await socket.send("ping")
        assert await socket.recv() == "pong"


async def test_the_subprotocol_is_agreed_end_to_end() -> None:
    async with world(subprotocols=["chat.v2", "chat.v1"]) as (door, _), dial(door, subprotocols=["chat.v1"]) as socket:
        assert socket.subprotocol == "chat.v1"


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4999])
async def test_close_codes_and_reasons_pass_both_ways(code: int) -> None:
    async with world() as (door, server):
        async with dial(door) as socket:
            await socket.send(f"close {code} because ä")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd == websockets.frames.Close(code, "because ä")
        other = await dial(door)
        (theirs,) = server.connections
        await other.close(code, "my own reason")
        await eventually(lambda: theirs.close_code == code)
        assert theirs.close_reason == "my own reason"


async def test_a_broken_connection_is_no_close_for_either_end() -> None:
    async with world() as (door, server), dial(door) as socket:
        (theirs,) = server.connections
        theirs.transport.abort()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is None
        assert socket.close_code == CloseCode.ABNORMAL_CLOSURE


async def test_a_socket_is_one_request_in_flight_for_as_long_as_it_is_open() -> None:
    async with world() as (door, _):
        throttler = door.ingress.admitter.throttler(REVISION)
        sockets = [await dial(door) for _ in range(5)]
        assert throttler.in_flight == 5
        for each in sockets:
            await each.close()
        await eventually(lambda: throttler.in_flight == 0)


# -- handshakes that are none -------------------------------------------------------------------------------------------------

GOOD = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
SMUGGLED = f"GET /inner HTTP/1.1\r\nHost: {HOST}\r\nX-Ebb-Secret: 1\r\n\r\n".encode()


class Plain:
    """An instance that answers every request alike and keeps the heads it got."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> None:
        self.answer = answer
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            self.heads.append(head)
            writer.write(self.answer)


async def said(asked: dict[str, str], answer: bytes, *, method: str = "GET", body: bytes = b"") -> tuple[bytes, list[bytes]]:
    """(all that comes back for a handshake with another request right behind it, the heads that the instance saw)."""
    plain = Plain(answer)
    fields = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
    async with open_door() as door, instance(plain) as port:
        await door.route()
        await door.ready("i1", port)
        last = f"GET /last HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
        data = f"{method} /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode() + body + SMUGGLED + last
        return await door.send(data), plain.heads


@pytest.mark.parametrize(
    ("changed", "method"),
    [
        ({"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}, "GET"),
        ({"Upgrade": "websocket, h2c"}, "GET"),
        ({"Upgrade": "websockets"}, "GET"),
        ({"Connection": "keep-alive"}, "GET"),
        ({}, "POST"),
    ],
)
async def test_what_asks_for_no_websocket_is_an_ordinary_request_without_an_upgrade(
    changed: dict[str, str], method: str
) -> None:
    answer, heads = await said({**GOOD, **changed}, Plain().answer, method=method)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert [head.split()[1] for head in heads] == [b"/ws", b"/inner", b"/last"]
    for head in heads:
        assert b"upgrade" not in head.lower()
        assert b"http2-settings" not in head.lower()
        assert b"X-Ebb-Secret" not in head, "what came behind it is a request like any other"


@pytest.mark.parametrize("status", [b"200 OK", b"426 Upgrade Required", b"403 Forbidden"])
async def test_a_handshake_that_is_not_accepted_opens_nothing(status: bytes) -> None:
    answer = b"HTTP/1.1 %b\r\nContent-Length: 2\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nno" % status
    given, heads = await said(GOOD, answer)
    assert given.count(b"HTTP/1.1 " + status) == 3
    assert b"\r\nUpgrade" not in given
    assert len(heads) == 3
    assert all(b"X-Ebb-Secret" not in head for head in heads)


async def test_a_handshake_without_one_key_is_refused() -> None:
    for key in ({}, {"Sec-WebSocket-Key": "a", "sec-websocket-key": "b"}):
        asked = {name: value for name, value in GOOD.items() if name != "Sec-WebSocket-Key"} | key
        given, heads = await said(asked, Plain().answer)
        assert given.startswith(b"HTTP/1.1 400 ")
        assert heads == []


async def test_what_a_client_says_before_the_101_waits_for_it() -> None:
    accepted = asyncio.Event()
    heard: list[bytes] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await accepted.wait()
        heard.append(bytes(reader._buffer))  # type: ignore[attr-defined]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        heard.append(await reader.readexactly(11))

    fields = "".join(f"{name}: {value}\r\n" for name, value in GOOD.items())
    async with open_door() as door, instance(late) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode() + b"\x81\x85\0\0\0\0early")
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 1)
        accepted.set()
        assert b" 101 " in await read_head(reader)
        await eventually(lambda: len(heard) == 2)
        assert heard == [b"", b"\x81\x85\0\0\0\0early"]
        writer.close()
