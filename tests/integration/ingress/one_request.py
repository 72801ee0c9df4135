"""Whatever the front door takes, an instance sees as exactly that many requests, and other parsers agree on each: what finds that out.

Three readers are compared: h11 on what the client sent, h11 and httptools on what the instance got.
"""

import asyncio
from typing import Any

import h11
import httptools
from hypothesis import HealthCheck, settings

from ingress.client import Client
from tests.integration.ingress.door import HOST, Door

HOST_BYTES = HOST.encode()
LAST = b"GET /last HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % HOST_BYTES
Seen = tuple[bytes, bytes, bytes]
"""(method, target, body)."""
MANY = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


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


def check_http1(bench: Bench, data: bytes) -> list[Seen]:
    answer, seen = bench.play(data)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == len(seen), (data, answer, seen)
    sent = [origin_form(each) for each in by_h11(data)]
    assert seen[: len(sent)] == sent[: len(seen)], "the front door and h11 read what was sent alike"
    return seen
