"""HTTP/2 with instances: what they answer, how they break off, whichever protocol the client speaks."""

import asyncio
from typing import Any

import h2.events
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from tests.eventually import eventually
from tests.integration.ingress.door import HOST, REVISION, Recorder, instance, open_door, read_head
from tests.integration.ingress.http2_peer import Peer, h2c_instance, hello, peer


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
