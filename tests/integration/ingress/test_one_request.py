"""Whatever the front door takes, the instance sees as exactly that many requests, and two other parsers agree on each."""

import asyncio

import h11
import httptools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.ingress.door import HOST, Door, instance, open_door, read_head

_PIECES = st.sampled_from(
    [
        b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3 \r\n", b"content-length:3\r\n", b"Content-Length: 03\r\n",
        b"Content-Length : 3\r\n", b"Content_Length: 9\r\n", b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Content-Length: 3,3\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: x\r\n", b"Transfer-Encoding\r\n: chunked\r\n", b"TE: trailers\r\n",
        b"Connection: close\r\n", b"Connection: Content-Length\r\n", b"Connection: Transfer-Encoding, Host\r\n", b"X: a\r\n b\r\n",
        b"X: a\nY: b\r\n", b"X: \xff\r\n", b"X:\r\n", b"Host: other\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"X: a\rb\r\n",
        b"X-Forwarded-For: 9.9.9.9\r\n", b"Trailer: X\r\n", b"Cookie: a=b\r\n",
    ]
)  # fmt: skip
_BODIES = st.sampled_from(
    [
        b"",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"03\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"abcGET /next HTTP/1.1\r\nHost: %b\r\n\r\n",
    ]
)
_LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"POST /p?q HTTP/1.1",
        b"POST / HTTP/1.0",
        b"HEAD / HTTP/1.1",
        b"GET http://%b/x HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
    ]
)


class Log:
    """An instance that keeps every byte it gets and answers each head that it can read."""

    def __init__(self) -> None:
        self.connections: list[bytearray] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = bytearray()
        self.connections.append(raw)
        head = await read_head(reader)
        raw += head
        lower = head.lower()
        if b"\r\ntransfer-encoding:" in lower:
            while not raw.endswith((b"\r\n0\r\n\r\n", b"\r\nX: y\r\n\r\n")):
                raw += (await reader.readexactly(1)) if len(raw) < 10_000 else b"\r\n0\r\n\r\n"
        elif b"\r\ncontent-length:" in lower:
            raw += await reader.readexactly(int(lower.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0]))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n" + (b"" if head.startswith(b"HEAD") else b"ok")
        )
        await writer.drain()
        raw += await reader.read()


def by_h11(raw: bytes) -> tuple[bytes, bytes, bytes]:
    """(method, target, body) of the one request in `raw`."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), (event, raw)
        body += bytes(event.data)
    assert connection.trailing_data[0] == b"", raw
    return request.method, request.target, body


def by_httptools(raw: bytes) -> tuple[bytes, bytes, bytes]:
    class Sink:
        url, body, whole = b"", b"", 0

        def on_url(self, url: bytes) -> None:
            self.url += url

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            self.whole += 1

    sink = Sink()
    parser = httptools.HttpRequestParser(sink)
    parser.feed_data(raw)
    assert sink.whole == 1, raw
    return parser.get_method(), sink.url, sink.body


async def exchange(door: Door, data: bytes) -> bytes:
    """What comes back for `data` until the door closes or says nothing for a moment."""
    reader, writer = await door.connect()
    writer.write(data)
    answer = b""
    try:
        while more := await asyncio.wait_for(reader.read(65_536), 0.08):
            answer += more
    except (TimeoutError, ConnectionResetError):
        pass
    writer.close()
    return answer


async def check(door: Door, log: Log, data: bytes) -> int:
    """How many requests were answered 200; each reached the instance whole, alone, and means the same to both parsers."""
    answer = await exchange(door, data)
    good = answer.count(b"HTTP/1.1 200 OK\r\n")
    for raw in log.connections[:good]:
        assert by_h11(bytes(raw)) == by_httptools(bytes(raw))
        assert b"/smuggled" not in raw or data.rstrip(b"\r\n").endswith(b"Host: a")
        assert raw.lower().count(b"\r\nhost:") == 1
        assert raw.lower().count(b"\r\ncontent-length:") + raw.lower().count(b"\r\ntransfer-encoding:") <= 1
    assert len(log.connections) <= good + 1
    return good


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(line=_LINES, fields=st.lists(_PIECES, max_size=3), body=_BODIES)
def test_what_is_taken_reaches_the_instance_as_one_request_that_all_read_alike(
    line: bytes, fields: list[bytes], body: bytes
) -> None:
    host = HOST.encode()
    head = b"%b\r\nHost: %b\r\n%b\r\n" % (line.replace(b"%b", host), host, b"".join(fields))
    asyncio.run(run(head + body.replace(b"%b", host)))


def test_good_requests_are_taken_by_the_checks_above() -> None:
    """So that the property is not true for nothing."""
    host = HOST.encode()
    plain = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\n\r\nabc" % host
    chunked = b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % host
    assert asyncio.run(run(plain)) == 1
    assert asyncio.run(run(plain + chunked + plain)) == 3


async def run(data: bytes) -> int:
    log = Log()
    async with open_door() as door, instance(log) as port:
        await door.route()
        await door.ready("i1", port)
        return await check(door, log, data)
