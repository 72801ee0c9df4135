"""HTTP/1.1 through the front door, byte by byte, between real sockets."""

import asyncio

import pytest

from ingress.gate import Bounds
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Recorder, instance, open_door, read_head


def answering(*answers: bytes, seen: list[bytes] | None = None):
    """An instance that answers each request on a connection with the next of `answers`, then closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await read_head(reader)
            if not head:
                return
            if seen is not None:
                seen.append(head)
            writer.write(answer)
            await writer.drain()

    return handler


async def test_a_request_is_passed_on_with_its_host_and_where_it_came_from() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.get("/a?b=c", "X-Forwarded-For: 1.2.3.4", "x-ebb-anything: 1", "X-Mine: 2", "X-Request-Id: abc")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nok 1")
    (head,) = recorder.heads
    assert head.startswith(f"GET /a?b=c HTTP/1.1\r\nHost: {HOST}\r\n".encode())
    lines = head.decode().split("\r\n")
    assert "X-Mine: 2" in lines
    assert "X-Forwarded-For: 127.0.0.1" in lines
    assert "X-Forwarded-Proto: http" in lines
    assert f"X-Forwarded-Host: {HOST}" in lines
    assert f"Forwarded: for=127.0.0.1;host={HOST};proto=http" in lines
    assert "X-Request-Id: abc" in lines
    assert sum(line.lower().startswith("traceparent: 00-") for line in lines) == 1
    assert "x-ebb" not in head.decode().lower()
    assert "connection" not in head.decode().lower()


async def test_connections_are_kept_on_both_sides() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        for turn in range(1, 6):
            writer.write(f"GET /{turn} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await read_head(reader)
            assert await reader.readexactly(4) == b"ok %d" % turn
        writer.close()
        assert recorder.connections == 1


async def test_pipelined_requests_are_answered_in_order_and_sent_one_at_a_time() -> None:
    recorder = Recorder(delay_s=0.01)
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        one = f"POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc"
        chunked = f"POST /y HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n"
        last = f"GET /z HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        answer = await door.send((one + chunked + one + last).encode())
    assert [answer.index(b"ok %d" % turn) for turn in (1, 2, 3, 4)] == sorted(answer.index(b"ok %d" % t) for t in (1, 2, 3, 4))
    assert recorder.bodies[0] == b"abc"
    assert recorder.bodies[1] == b"3\r\ndef\r\n0\r\n\r\n"
    assert recorder.most == 1


async def test_a_flood_of_pipelined_bytes_is_not_kept_in_memory() -> None:
    started = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        started.set()
        await reader.read()

    async with open_door() as door, instance(never) as port:
        await door.route()
        await door.ready("i1", port)
        _, writer = await door.connect()
        request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        writer.write(request)
        await started.wait()
        writer.write(request * 200_000)
        (client,) = door.ingress.listener._clients
        await eventually(lambda: client._paused)
        assert len(client._buffer) < 2**20
        writer.transport.abort()


async def test_trailers_pass_both_ways() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        seen.append(await reader.readuntil(b"X-Check: 7\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 9\r\n\r\n")

    async with open_door() as door, instance(handler) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.send(
            f"POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            "3;ext=1\r\nabc\r\n0\r\nX-Check: 7\r\n\r\n".encode()
        )
    assert seen[1] == b"3\r\nabc\r\n0\r\nX-Check: 7\r\n\r\n"
    assert answer.endswith(b"\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 9\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "given", "ends"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"Content-Length: 99\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"204 No Content\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 7\r\n\r\n", b"ETag: x\r\n"),
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(method: str, given: bytes, ends: bytes) -> None:
    async with open_door() as door, instance(answering(given, given)) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(f"{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            head = await read_head(reader)
            assert ends in head
            assert b"Transfer-Encoding" not in head
        writer.close()


async def test_an_answer_that_ends_with_its_connection_becomes_chunked() -> None:
    async with open_door() as door, instance(answering(b"HTTP/1.1 200 OK\r\n\r\nhello")) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.get()
        old = await door.send(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
    assert answer.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert old.endswith(b"\r\n\r\nhello")
    assert b"Transfer-Encoding" not in old


async def test_an_old_client_gets_no_chunks_and_may_keep_its_connection() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    counted = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    async with open_door() as door, instance(answering(counted, chunked)) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(f"GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n".encode())
        assert b"Connection: keep-alive" in await read_head(reader)
        assert await reader.readexactly(2) == b"hi"
        writer.write(f"GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n".encode())
        rest = await reader.read()
        assert rest.endswith(b"\r\n\r\nhello")
        writer.close()


async def test_100_continue_and_103_are_passed_on() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert b"Expect: 100-continue" in head
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

    async with open_door() as door, instance(handler) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode())
        assert await read_head(reader) == b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
        assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_an_answer_before_the_whole_body_ends_the_connection_but_arrives() -> None:
    async with open_door() as door, instance(answering(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n".encode() + b"a" * 1000)
        head = await read_head(reader)
        assert head.startswith(b"HTTP/1.1 403")
        assert b"Connection: close" in head
        writer.write(b"a" * 1000)
        assert await reader.read() == b"no"
        writer.close()


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_the_rest_of_a_body_is_no_request_when_a_streamed_answer_ends_before_it(framing: str) -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with open_door() as door, instance(handler) as port:
        await door.route()
        await door.ready("i1", port)
        reader, writer = await door.connect()
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        writer.write(f"GET /hidden HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert await reader.read() == b""
        writer.close()
        assert len(heads) == 1


async def test_an_instance_that_never_stops_saying_1xx_is_a_502() -> None:
    flood = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n" * 1000
    async with open_door() as door, instance(answering(flood)) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.get()
        assert answer.count(b"HTTP/1.1 103 Early Hints") <= 100
        assert b"HTTP/1.1 502 Bad Gateway" in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\nHost: a\n\n", b"400"),
        (b"\0\0\0\0", b"400"),
        (b"\n\nGET / HTTP/1.1\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", b"400"),
        (b"GET / HTTP/1.1\r\nHost: %b\r\n folded\r\n\r\n", b"400"),
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 9000), b"414"),
        (b"GET /" + b"a" * 9000, b"414"),
        (b"GET / HTTP/1.1\r\nHost: %b\r\n" + b"X: y\r\n" * 101 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: %b\r\nX: " + b"y" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 101\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n%b", b"413"),
    ],
)
async def test_bad_input_is_answered_and_the_connection_closed(data: bytes, status: bytes) -> None:
    data = data.replace(b"Host: %b", b"Host: " + HOST.encode()).replace(b"%b", b"64\r\n" + b"a" * 100 + b"\r\n1\r\na\r\n")
    seen: list[bytes] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())

    async with open_door(bounds=Bounds(max_body_bytes=100)) as door, instance(slow) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.send(data)
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert b"x-ebb-reason: " in answer
        assert b"Connection: close" in answer
        await eventually(lambda: door.ingress.admitter.throttler("default/r1").in_flight == 0)
    assert not any(head.endswith(b"0\r\n\r\n") for head in seen)


async def test_a_slow_head_times_out_and_an_idle_connection_is_closed() -> None:
    async with open_door(bounds=Bounds(header_time_s=0.2, idle_time_s=0.2)) as door:
        slow = await door.send(b"GET / HTTP/1.1\r\nHos")
        assert slow.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert await door.send(b"") == b""


async def test_too_many_connections_are_turned_away() -> None:
    async with open_door(bounds=Bounds(max_connections=1)) as door:
        _, writer = await door.connect()
        await eventually(lambda: len(door.ingress.listener) == 1)
        assert (await door.send(b"")).startswith(b"HTTP/1.1 503 ")
        writer.close()


async def test_a_body_above_what_its_service_or_the_operator_takes_is_refused() -> None:
    recorder = Recorder()
    async with open_door(bounds=Bounds(max_body_bytes=8)) as door, instance(recorder) as port:
        await door.route(max_body_bytes=4)
        await door.route({"r2": 100}, host="other.default.localhost", max_body_bytes=100)
        await door.ready("i1", port)
        await door.ready("i2", port, "r2")
        for host, size, status in (
            (HOST, 4, 200),
            (HOST, 5, 413),
            ("other.default.localhost", 8, 200),
            ("other.default.localhost", 9, 413),
        ):
            ask = f"POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            counted = await door.send(f"{ask}Content-Length: {size}\r\n\r\n{'x' * size}".encode())
            chunked = await door.send(f"{ask}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{'x' * size}\r\n0\r\n\r\n".encode())
            assert counted.startswith(b"HTTP/1.1 %d " % status), counted
            assert chunked.startswith(b"HTTP/1.1 %d " % status), chunked


async def test_trailers_above_their_limit_are_431() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        for trailers in ("X: " + "y" * 9000, "\r\n".join(f"X-{n}: " + "y" * 400 for n in range(30))):
            assert (await door.send(f"{head}{trailers}\r\n\r\n".encode())).startswith(b"HTTP/1.1 431 ")


async def test_one_address_may_not_have_all_connections() -> None:
    async with open_door(bounds=Bounds(max_connections_per_address=2)) as door:
        one, two = await door.connect(), await door.connect()
        await eventually(lambda: len(door.ingress.listener) == 2)
        third = await door.send(b"")
        assert b"x-ebb-reason: address-full\r\n" in third
        assert third.startswith(b"HTTP/1.1 429 ")
        one[1].close()
        await eventually(lambda: len(door.ingress.listener) == 1)
        four = await door.connect()
        await eventually(lambda: len(door.ingress.listener) == 2)
        for _, writer in (two, four):
            writer.close()
        await eventually(lambda: not door.ingress.gate.addresses, "nothing is counted any more")


async def test_an_answer_that_is_no_http_is_a_502() -> None:
    async with open_door() as door, instance(answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.get()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"x-ebb-reason: bad-response" in answer


async def test_bytes_beyond_an_answer_are_not_given_to_the_next_request() -> None:
    given = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
    async with open_door() as door, instance(answering(given)) as port:
        await door.route()
        await door.ready("i1", port)
        for _ in range(2):
            assert (await door.get()).endswith(b"\r\n\r\nhi")
