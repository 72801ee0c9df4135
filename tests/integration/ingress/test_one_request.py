"""Whatever the front door takes, by HTTP/1.1 or HTTP/2, an instance sees as exactly that many requests, and other parsers agree on each.

Three readers are compared: h11 on what the client sent, h11 and httptools on what the instance got.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import h11
import httptools
import pytest
import uvloop
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingress.client import Client
from ingress.speaker2 import PREFACE
from tests.integration.ingress.door import HOST, Door, open_door

HOST_BYTES = HOST.encode()
LAST = b"GET /last HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % HOST_BYTES
Seen = tuple[bytes, bytes, bytes]
"""(method, target, body)."""
MANY = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))

# -- what is sent ---------------------------------------------------------------------------------------------------------------

_FIELDS = st.sampled_from(
    [
        b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3 \r\n", b"content-length:3\r\n", b"Content-Length: 03\r\n",
        b"Content-Length : 3\r\n", b"Content_Length: 9\r\n", b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Content-Length: 3,3\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: x\r\n", b"Transfer-Encoding\r\n: chunked\r\n", b"TE: trailers\r\n",
        b"Connection: close\r\n", b"Connection: Content-Length\r\n", b"Connection: Transfer-Encoding, Host\r\n", b"X: a\r\n b\r\n",
        b"X: a\nY: b\r\n", b"X: \xff\r\n", b"X:\r\n", b"Host: other\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"X: a\rb\r\n",
        b"X-Forwarded-For: 9.9.9.9\r\n", b"Trailer: X\r\n", b"Cookie: a=b\r\n", b"Transfer_Encoding: chunked\r\n",
    ]
)  # fmt: skip
_BODIES = st.sampled_from(
    [
        b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n",
        b"03\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3\nabc\n0\n\n", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"abcGET /next HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST_BYTES,
    ]
)  # fmt: skip
_LINES = st.sampled_from(
    [b"GET / HTTP/1.1", b"POST /p?q HTTP/1.1", b"POST / HTTP/1.0", b"HEAD / HTTP/1.1", b"OPTIONS * HTTP/1.1",
     b"GET http://%b/x HTTP/1.1" % HOST_BYTES]
)  # fmt: skip
_BITS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"a", b"f", b"/", b"*", b"#", b"\x0b", b"\x7f", b"\xa0",
     b"\r\n\r\n", b"chunked", b"HTTP/1.1", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b" HTTP/1.0", b"\r\n "]
)  # fmt: skip


@st.composite
def valid(draw: st.DrawFn) -> bytes:
    """A request that is as it should be: by length, chunked with extensions and trailers, or without a body."""
    target = draw(st.sampled_from([b"/", b"/a/b?c=d&e", b"/%41;x=1", b"//two", b"/?", b"/\x7e!$&'()*+,;=:@"]))
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    fields = draw(
        st.lists(st.sampled_from([b"X-A: b\r\n", b"Accept: */*\r\n", b"X-Empty:\r\n", b"Cookie: a; b\r\n"]), max_size=2)
    )
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (
        b"GET" if kind == "none" else draw(st.sampled_from([b"POST", b"PUT", b"DELETE"])),
        target,
        HOST_BYTES,
        b"".join(fields),
    )
    body = draw(st.binary(max_size=40)) if kind != "none" else b""
    if kind == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if kind == "none":
        return head + b"\r\n"
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if b > a]
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailer = draw(st.sampled_from([b"", b"X-T: 1\r\n"]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One to three requests of which bytes were put in, taken out, doubled or changed."""
    data = b"".join(draw(st.lists(valid(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        bit = draw(_BITS)
        how = draw(st.sampled_from(["put", "cut", "double", "change"]))
        if how == "put":
            data = data[:at] + bit + data[at:]
        elif how == "cut":
            data = data[:at] + data[at + draw(st.integers(1, 4)) :]
        elif how == "double":
            end = data.find(b"\r\n", at) + 2
            data = data[:end] + data[at:end] + data[end:] if end > 1 else data
        else:
            data = data[:at] + bit + data[at + len(bit) :]
    return data


# -- what is seen ---------------------------------------------------------------------------------------------------------------


class Log:
    """An instance that keeps the bytes of every whole request it gets, each on a connection of its own."""

    def __init__(self) -> None:
        self.whole: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            raw = bytearray(await reader.readuntil(b"\r\n\r\n"))
            lower = bytes(raw).lower()
            if b"\r\ntransfer-encoding:" in lower:
                await self._chunks(raw, reader)
            elif b"\r\ncontent-length:" in lower:
                raw += await reader.readexactly(int(lower.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]))
            if b"\r\nexpect:" in lower:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.whole.append(bytes(raw))
            ok = b"" if raw.startswith(b"HEAD ") else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" + ok)
            await writer.drain()
            more = await reader.read()
            if more:
                self.whole[-1] += more
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # A body that went bad on the way: nothing of it counts.
        finally:
            writer.close()

    async def _chunks(self, raw: bytearray, reader: asyncio.StreamReader) -> None:
        while True:
            line = await reader.readuntil(b"\r\n")
            raw += line
            if not int(line, 16):
                break
            raw += await reader.readexactly(int(line, 16) + 2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            raw += line
        raw += line


def by_h11(raw: bytes) -> list[Seen]:
    """The whole requests at the beginning of `raw`, until one that h11 does not take."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    found: list[Seen] = []
    try:
        while isinstance(request := connection.next_event(), h11.Request):
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                return found
            found.append((request.method, request.target, body))
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    except h11.ProtocolError:
        pass
    return found


def by_httptools(raw: bytes) -> list[Seen]:
    class Sink:
        url, body = b"", b""

        def __init__(self) -> None:
            self.found: list[Seen] = []

        def on_url(self, url: bytes) -> None:
            self.url += url

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.found.append((parser.get_method(), self.url, self.body))
            self.url, self.body = b"", b""

    sink = Sink()
    parser = httptools.HttpRequestParser(sink)
    parser.feed_data(raw)
    return sink.found


def origin_form(seen: Seen) -> Seen:
    method, target, body = seen
    if target.lower().startswith(b"http://"):
        target = b"/" + target.split(b"://", 1)[1].partition(b"/")[2]
    return method, target, body


class Bench:
    """One front door and one instance for all examples of a test, on a loop of their own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door, log: Log) -> None:
        self._loop, self._door, self._log = loop, door, log
        self._escaped: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self._escaped.append(context))

    def play(self, data: bytes) -> tuple[bytes, list[Seen]]:
        """(what comes back for `data`, the requests that the instance saw: each checked to be one, and read alike)."""
        self._log.whole.clear()
        answer = self._loop.run_until_complete(self._exchange(data))
        escaped, self._escaped = self._escaped, []
        assert not escaped, (data, escaped)
        seen = []
        for raw in self._log.whole:
            (one,) = by_h11(raw)
            assert [one] == by_httptools(raw), raw
            lower = raw.partition(b"\r\n\r\n")[0].lower()
            assert lower.count(b"\r\nhost:") == 1, raw
            assert lower.count(b"\r\ncontent-length:") + lower.count(b"\r\ntransfer-encoding:") <= 1, raw
            seen.append(one)
        return answer, seen

    async def _exchange(self, data: bytes) -> bytes:
        """Until the door closes, or waits for the client. All of it runs on one loop: what is under way shows in a few turns."""
        reader, writer = await self._door.connect()
        writer.write(data)
        answer = bytearray()

        async def read() -> None:
            while more := await reader.read(65_536):
                answer.extend(more)

        reading = asyncio.create_task(read())
        quiet = 0
        while not reading.done() and quiet < 3:
            await asyncio.sleep(0.002)
            quiet = quiet + 1 if self._waits_for_client() else 0
        reading.cancel()
        writer.transport.abort()
        await asyncio.gather(reading, return_exceptions=True)
        return bytes(answer)

    def _waits_for_client(self) -> bool:
        """Whether every request is answered, is without its end, or is for a host that nobody knows."""
        gate = self._door.ingress.gate
        busy = [client._exchange for client in self._door.ingress.listener._clients if isinstance(client, Client)]
        busy += [lane.exchange for link in self._door.ingress.listener._clients for lane in getattr(link, "lanes", {}).values()]
        return not gate.dials and all(each is None or each.held or not each.body_done for each in busy)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    loop: Any = uvloop.new_event_loop()
    log = Log()

    async def start() -> tuple[Any, Door, asyncio.Server]:
        opening = open_door()
        door = await opening.__aenter__()
        server = await asyncio.start_server(log, "127.0.0.1", 0)
        await door.route()
        await door.ready("i1", server.sockets[0].getsockname()[1])
        return opening, door, server

    async def stop() -> None:
        await opening.__aexit__(None, None, None)
        server.close()
        for _ in range(10):
            await asyncio.sleep(0.01)

    opening, door, server = loop.run_until_complete(start())
    yield Bench(loop, door, log)
    loop.run_until_complete(stop())
    loop.close()


def check_http1(bench: Bench, data: bytes) -> list[Seen]:
    answer, seen = bench.play(data)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == len(seen), (data, answer, seen)
    sent = [origin_form(each) for each in by_h11(data)]
    assert seen[: len(sent)] == sent[: len(seen)], "the front door and h11 read what was sent alike"
    return seen


# -- the claims -----------------------------------------------------------------------------------------------------------------


@MANY
@given(line=_LINES, fields=st.lists(_FIELDS, max_size=3), body=_BODIES)
def test_what_is_taken_of_odd_requests_is_one_request_that_all_read_alike(
    bench: Bench, line: bytes, fields: list[bytes], body: bytes
) -> None:
    check_http1(bench, b"%b\r\nHost: %b\r\n%b\r\n" % (line, HOST_BYTES, b"".join(fields)) + body)


@MANY
@given(requests=st.lists(valid(), min_size=1, max_size=4))
def test_good_requests_in_a_row_are_all_taken_as_they_are(bench: Bench, requests: list[bytes]) -> None:
    seen = check_http1(bench, b"".join(requests) + LAST)
    assert seen == by_h11(b"".join(requests) + LAST)
    assert len(seen) == len(requests) + 1


@settings(MANY, max_examples=150)
@given(data=mutated())
def test_what_is_taken_of_damaged_requests_in_a_row_is_read_alike(bench: Bench, data: bytes) -> None:
    check_http1(bench, data + LAST)


_NAMES = st.sampled_from(
    [
        "x-a",
        "content-length",
        "transfer-encoding",
        "te",
        "host",
        "cookie",
        "connection",
        "x_a",
        "expect",
        ":path",
        "X-A",
        "x a",
        "x\n",
    ]
)
_VALUES = st.sampled_from(
    [
        "",
        "a",
        "3",
        "0",
        "3, 3",
        "chunked",
        "trailers",
        HOST,
        "a\r\nHost: b",
        "a\nb",
        "a\0",
        " a",
        "\xff",
        "100-continue",
        "close",
    ]
)


@st.composite
def http2(draw: st.DrawFn) -> bytes:
    """One stream of HTTP/2, well framed, with fields, data and trailers that may be anything."""
    method = draw(st.sampled_from(["GET", "POST", "POST", "PO ST", "GET / HTTP/1.1\r\nX:"]))
    path = draw(st.sampled_from(["/", "/a?b", "/a b", "/a\r\nX: y", "*", "/#", "", "http://x/"]))
    pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", draw(st.sampled_from([HOST, HOST, "a b"]))),
    ]
    fields = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=3))
    pieces = draw(st.lists(st.binary(max_size=4), max_size=3))
    trailers = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=2))
    encoder = Encoder()
    data = PREFACE + _frame(4, 0, 0, b"")
    data += _frame(1, 4 | (not pieces and not trailers), 1, _block(encoder, pseudo + fields))
    for place, piece in enumerate(pieces):
        data += _frame(0, int(not trailers and place == len(pieces) - 1), 1, piece)
    return data + (_frame(1, 5, 1, _block(encoder, trailers)) if trailers else b"")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _block(encoder: Encoder, pairs: list[tuple[str, str]]) -> bytes:
    return encoder.encode([(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs])


@settings(MANY, max_examples=120)
@given(data=http2())
def test_what_is_taken_of_http2_is_one_request_of_http1_that_all_read_alike(bench: Bench, data: bytes) -> None:
    _, seen = bench.play(data)
    assert len(seen) <= 1
    for method, target, _ in seen:
        assert method in (b"GET", b"POST")
        assert target in (b"/", b"/a?b", b"*")


@st.composite
def frames2(draw: st.DrawFn) -> bytes:
    """Frames of any kind, some of them right, in any order."""
    encoder = Encoder()
    good = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", HOST)]
    data = PREFACE + _frame(4, 0, 0, b"")
    for _ in range(draw(st.integers(1, 6))):
        stream = draw(st.sampled_from([0, 1, 1, 1, 2, 3, 5, 2**31 - 1]))
        if draw(st.booleans()):
            data += _frame(1, draw(st.sampled_from([0, 4, 5, 5])), stream, _block(encoder, good))
        else:
            payload = draw(
                st.one_of(st.binary(max_size=12), st.sampled_from([bytes(4), bytes(8), b"\xff" * 6, b"\0\4\0\0\0\1"]))
            )
            data += _frame(draw(st.integers(0, 11)), draw(st.sampled_from([0, 1, 4, 5, 8, 0x2C, 0xFF])), stream, payload)
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=3)) + data[at:] if draw(st.booleans()) else data


@settings(MANY, max_examples=120)
@given(data=frames2())
def test_no_frames_of_http2_make_the_front_door_fail(bench: Bench, data: bytes) -> None:
    bench.play(data)


def test_good_requests_are_taken_by_the_checks_above(bench: Bench) -> None:
    """So that the properties are not true for nothing."""
    plain = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\n\r\nabc" % HOST_BYTES
    chunked = b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % HOST_BYTES
    assert check_http1(bench, plain + chunked + LAST) == [(b"POST", b"/", b"abc")] * 2 + [(b"GET", b"/last", b"")]
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/a?b"), (":authority", HOST)]
    good = PREFACE + _frame(4, 0, 0, b"") + _frame(1, 4, 1, _block(Encoder(), pseudo)) + _frame(0, 1, 1, b"abc")
    assert bench.play(good)[1] == [(b"POST", b"/a?b", b"abc")]
