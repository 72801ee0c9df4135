"""HTTP/2 with clients: what they may ask, what is refused, how they are drained."""

import asyncio

import h2.events
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import SettingsFrame

from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Recorder, instance, open_door
from tests.integration.ingress.http2_peer import Fields, peer


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
