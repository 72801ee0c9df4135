"""Connections to instances: HTTP/1.1, one request at a time, kept for the next one.

An instance's idle connections are on its Target, so none is ever shared between instances, revisions or projects.
"""

import asyncio
import base64
import hashlib
import socket
from typing import TYPE_CHECKING, Any, cast

from activator.balance import Target
from ingress import limits
from ingress.chunked import BadChunk, ChunkDecoder, Trailers, encode_chunk, encode_end
from ingress.http1 import CHUNKED, END, UNTIL_CLOSE, BadResponse, Response, begin
from ingress.pool import Pool

if TYPE_CHECKING:
    from ingress.forward import Exchange
    from ingress.gate import Gate

_HEAD, _COUNTED, _CHUNKS, _CLOSE, _TUNNEL = range(5)
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PROBE_AFTER_S = 0.05
"""A connection idle for longer is asked whether the instance has closed it, before a request is trusted to it."""


class Upstream(asyncio.Protocol):
    """One connection to an instance."""

    __slots__ = (
        "_buffer",
        "_decoder",
        "_left",
        "_paused",
        "_state",
        "exchange",
        "gate",
        "idle_until",
        "pool",
        "since",
        "sock",
        "target",
        "transport",
    )

    def __init__(self, gate: "Gate", target: Target, pool: Pool, sock: socket.socket) -> None:
        self.gate = gate
        self.target = target
        self.pool = pool
        self.sock = sock
        self.transport: Any = None
        self.exchange: Exchange | None = None
        self.since = 0.0
        self.idle_until = float("inf")
        """Until `connect` hands it over it is nobody's to sweep away."""
        self._state = _HEAD
        self._buffer = b""
        self._left = 0
        self._paused = False
        self._decoder: ChunkDecoder | None = None

    # -- what the exchange asks -----------------------------------------------------------------------------------------------

    def start(self, exchange: "Exchange", forwarded: bytes, body: list[bytes] | None) -> None:
        """Send the head of `exchange`'s request, with `body` when that has come already."""
        self.exchange = exchange
        self._state = _HEAD
        request = exchange.request
        head = (request.begun or begin(request)) + forwarded + b"\r\n"
        if body:
            chunks = request.length == CHUNKED
            head += b"".join([encode_chunk(piece) for piece in body] if chunks else body)
        self.transport.write(head)

    def send(self, data: bytes) -> None:
        """A piece of the request's body."""
        exchange = self.exchange
        if exchange is not None:
            self.transport.write(encode_chunk(data) if exchange.request.length == CHUNKED else data)

    def send_end(self, trailers: Trailers) -> None:
        """The end of a chunked body."""
        self.transport.write(encode_end(trailers))

    def send_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def asking(self) -> "list[Exchange]":
        """What is asked here and not answered yet."""
        return [self.exchange] if self.exchange is not None and not self.exchange.answering else []

    def pause(self) -> None:
        """The client reads too slowly: the instance waits; but for one whose answer is whole, which may be another request's next."""
        if not self._paused and self.exchange is not None and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def leave(self, last: bytes) -> None:
        """Send `last` and close."""
        self.exchange = None
        if last:
            self.transport.write(last)
        self.transport.close()

    def drop(self) -> None:
        """This connection is of no use any more, whatever is on it."""
        self.exchange = None
        self.transport.abort()

    def usable(self, now: float) -> bool:
        """Whether a request may be trusted to this idle connection."""
        if self.transport.is_closing() or now > self.idle_until:
            self.transport.abort()
            return False
        if now - self.since > PROBE_AFTER_S:
            try:
                self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError:
                pass
            self.transport.abort()
            return False
        return True

    # -- asyncio --------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        # At once: who sweeps must not take for too old what is only not yet given to its request.
        self.since = self.gate.now()
        self.idle_until = self.since + limits.UPSTREAM_IDLE_S
        self.gate.upstreams.add(self)
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.transport.abort()
            return
        if exchange.idle_s:
            exchange.active_at = self.gate.now()
        state = self._state
        if state == _HEAD:
            self._head(exchange, self._buffer + data if self._buffer else data)
        elif state in (_TUNNEL, _CLOSE):
            exchange.piece(data)
        elif state == _COUNTED:
            self._counted(exchange, data)
        else:
            self._chunks(exchange, data)

    def eof_received(self) -> None:
        """The instance is done: the end of an answer that has no other, else a failure, told by `connection_lost`."""
        exchange = self.exchange
        if exchange is not None and self._state == _CLOSE:
            self.exchange = None
            exchange.whole(())

    def connection_lost(self, error: Exception | None) -> None:
        self.gate.upstreams.discard(self)
        if self.exchange is None and self in self.pool.idle:
            self.pool.idle.remove(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            if self._state == _TUNNEL:
                exchange.tunnel_ended()
            else:
                what = "closed the connection" if error is None else f"dropped the connection ({error})"
                exchange.failed("instance-failed", f"instance {self.target.instance} {what} before its answer was whole")

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.front.pause()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.front.resume()

    # -- the answer -----------------------------------------------------------------------------------------------------------

    def _head(self, exchange: "Exchange", data: bytes) -> None:
        while True:
            end = data.find(END)
            if end < 0:
                self._buffer = data
                if len(data) > limits.HEAD_BYTES:
                    self._bad(exchange, f"its head is above {limits.HEAD_BYTES} bytes")
                return
            try:
                response = self.gate.responses.parse(data[: end + 4], exchange.request.method)
            except BadResponse as error:
                self._bad(exchange, str(error))
                return
            rest = data[end + 4 :]
            self._buffer = b""
            if response.status >= 200:
                self._answer(exchange, response, rest)
                return
            if response.status == 101:
                self._upgraded(exchange, response, rest)
                return
            exchange.informed(response)
            if not rest or self.exchange is not exchange:
                return
            data = rest

    def _answer(self, exchange: "Exchange", response: Response, body: bytes) -> None:
        length = response.length
        now = self.gate.now()
        if not response.keep_alive or length == UNTIL_CLOSE:
            self.idle_until = 0.0
        else:
            keep_for_s = limits.UPSTREAM_IDLE_S
            if response.keep_for_s:
                keep_for_s = min(keep_for_s, response.keep_for_s - 0.5)
            self.idle_until = keep_for_s  # made absolute in `_done`
        if length >= 0:
            over = len(body) - length
            if over >= 0:
                if over:
                    self.idle_until = 0.0
                    body = body[:length]
                self._done(now)
                exchange.answered(response, body, True, now)
                return
            self._state = _COUNTED
            self._left = -over
            self.pool.alive_at = now
            exchange.answered(response, body, False, now)
        elif length == CHUNKED:
            self._state = _CHUNKS
            self._decoder = ChunkDecoder()
            self.pool.alive_at = now
            exchange.answered(response, b"", False, now)
            if body and self.exchange is exchange:
                self._chunks(exchange, body)
        else:
            self._state = _CLOSE
            self.pool.alive_at = now
            exchange.answered(response, body, False, now)

    def _counted(self, exchange: "Exchange", data: bytes) -> None:
        self._left -= len(data)
        if self._left > 0:
            exchange.piece(data)
            return
        if self._left < 0:
            self.idle_until = 0.0
            data = data[: self._left]
        exchange.piece(data)
        self._done(self.gate.now())
        exchange.whole(())

    def _chunks(self, exchange: "Exchange", data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            pieces, rest = decoder.feed(data)
        except BadChunk as error:
            self._bad(exchange, f"its body: {error}")
            return
        if pieces:
            exchange.piece(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.done:
            if rest:
                self.idle_until = 0.0
            self._decoder = None
            self._done(self.gate.now())
            exchange.whole(decoder.trailers)

    def _done(self, now: float) -> None:
        """The answer is whole: keep the connection for the next request, or not. Before the slot is released."""
        exchange, self.exchange = self.exchange, None
        self._state = _HEAD
        pool = self.pool
        pool.alive_at = now
        if exchange is None or not exchange.body_done or self.idle_until <= 0 or len(pool.idle) >= limits.UPSTREAM_IDLE_MOST:
            self.transport.close()
            return
        if self._paused:
            self.resume()
        self.since = now
        self.idle_until += now
        if pool.dialling:
            pool.give(self)
        else:
            pool.idle.append(self)

    def _upgraded(self, exchange: "Exchange", response: Response, rest: bytes) -> None:
        key = exchange.request.websocket_key
        accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID).digest())
        given = [value for name, value in response.fields if name.lower() == b"sec-websocket-accept"]
        if not key or response.upgrade != b"websocket" or given != [accept]:
            self._bad(exchange, "a 101 that was not asked for, or not a WebSocket's")
            return
        self._state = _TUNNEL
        exchange.upgraded(response, rest)

    def _bad(self, exchange: "Exchange", what: str) -> None:
        self.exchange = None
        self.transport.abort()
        exchange.failed("bad-response", f"the answer of instance {self.target.instance} is malformed: {what}")


def close_idle(gate: "Gate", now: float) -> None:
    """Close connections that are too old to be used again, or whose instance is gone."""
    for upstream in list(gate.upstreams):
        if upstream.exchange is None and now > upstream.idle_until:
            upstream.transport.abort()


async def dial(target: Target) -> socket.socket:
    """A connected socket to `target`. Raises OSError or TimeoutError."""
    host, _, port = target.address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(limits.CONNECT_TIME_S):
            await asyncio.get_running_loop().sock_connect(sock, (host.strip("[]"), int(port)))
    except BaseException:
        sock.close()
        raise
    return sock


async def connect(gate: "Gate", target: Target, pool: Pool) -> Upstream:
    """A new connection to `target`. Raises OSError or TimeoutError."""
    sock = await dial(target)
    try:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: Upstream(gate, target, pool, sock), sock=sock)
    except BaseException:
        sock.close()
        raise
    return protocol
