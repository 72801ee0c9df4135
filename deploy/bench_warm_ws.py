"""The two ends of `bench warm`'s WebSocket runs: an echo server, and a client that keeps one message in flight a connection.

    python -m deploy.bench_warm_ws serve PORT
    python -m deploy.bench_warm_ws load PORT HOST CONNECTIONS SECONDS RATE      prints one line of JSON

Every message is 64 bytes of text. Only the door between them is measured, so both ends do the least that can be done: frames of
one fixed length are counted, not parsed.
"""

import asyncio
import base64
import hashlib
import json
import random
import sys
import time
from typing import cast

import uvloop

TEXT = b"x" * 64
PLAIN = b"\x81" + bytes([len(TEXT)]) + TEXT
MASKED = b"\x81" + bytes([0x80 | len(TEXT)]) + b"\0\0\0\0" + TEXT
"""Masked with zeros, which RFC 6455 allows and which leaves the text as it is."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HELLO = (
    "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Echo(asyncio.Protocol):
    """Answers the handshake, then every frame with its text."""

    def __init__(self) -> None:
        self._head = b""
        self._open = False
        self._owed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._open:
            frames, self._owed = divmod(self._owed + len(data), len(MASKED))
            self._transport.write(PLAIN * frames)
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._open = True
            fields = dict(line.lower().split(b": ", 1) for line in self._head.split(b"\r\n")[1:-2])
            key = next(line for line in self._head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))[19:]
            accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
            assert fields[b"upgrade"] == b"websocket"
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )


class Talker(asyncio.Protocol):
    """One connection: sends, waits for the echo, notes the time, pauses when there is a rate."""

    def __init__(self, host: str, pause_s: float, took_s: list[float]) -> None:
        self._host, self._pause_s, self._took_s = host, pause_s, took_s
        self._loop = asyncio.get_running_loop()
        self._head: bytes | None = b""
        self._got = 0
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_HELLO.format(host=self._host).encode())

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            if b"\r\n\r\n" in self._head:
                self.errors += not self._head.startswith(b"HTTP/1.1 101 ")
                self._head = None
                self._again()
            return
        self._got += len(data)
        if self._got >= len(PLAIN):
            self._got -= len(PLAIN)
            self._took_s.append(time.perf_counter() - self._sent_at)
            self._again()

    def _again(self) -> None:
        if self._pause_s:
            self._loop.call_later(random.random() * 2 * self._pause_s, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(MASKED)

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += error is not None


async def serve(port: int) -> None:
    """Echo on loopback until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def load(port: int, host: str, connections: int, seconds: float, rate: float) -> None:
    """Talk for `seconds`; `rate` is messages a second over all connections, 0: as many as go through."""
    loop = asyncio.get_running_loop()
    took_s: list[float] = []
    pause_s = connections / rate if rate else 0.0
    talkers = [
        (await loop.create_connection(lambda: Talker(host, pause_s, took_s), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    took_s.sort()
    count = len(took_s)
    errors = sum(talker.errors for talker in talkers) + (0 if count else 1)
    at = [took_s[min(count - 1, int(count * share))] * 1000 if count else 0.0 for share in (0.5, 0.99)]
    print(json.dumps({"requests": count, "rps": count / seconds, "p50_ms": at[0], "p99_ms": at[1], "errors": errors}))


def main() -> None:
    """See the module."""
    what, port, *rest = sys.argv[1:]
    if what == "serve":
        uvloop.run(serve(int(port)))
    else:
        host, connections, seconds, rate = rest
        uvloop.run(load(int(port), host, int(connections), float(seconds), float(rate)))


if __name__ == "__main__":
    main()
