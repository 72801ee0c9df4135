"""Instances that speak HTTP/2 without TLS (`h2c`): a few connections, each carrying up to a hundred requests at once."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from activator.balance import Target
from ingress import limits
from ingress.chunked import Trailers
from ingress.frames2 import (
    CANCEL,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INTERNAL_ERROR,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PROTOCOL_ERROR,
    BadStream,
)
from ingress.gate import Gate
from ingress.heads2 import Malformed, head_of, response_of
from ingress.hpack2 import Field
from ingress.http1 import Response
from ingress.link2 import Lane, Link
from ingress.pool import Pool
from ingress.upstream import dial

if TYPE_CHECKING:
    from ingress.forward import Exchange

PROBE_AFTER_S = 0.05
"""A connection without streams for longer is asked whether the instance has closed it."""


class Back2(Lane):
    """One request at an instance."""

    __slots__ = ("_left", "exchange")

    link: "Upstream2"

    def __init__(self, link: "Upstream2", id: int) -> None:
        super().__init__(link, id)
        self.exchange: Exchange | None = None
        self._left = 0

    # -- what the exchange asks -----------------------------------------------------------------------------------------------

    def usable(self, now: float) -> bool:
        if self.link.trusted(now):
            return True
        self.link.leaving = True
        self.link.rested()
        return False

    def start(self, exchange: "Exchange", forwarded: bytes, body: list[bytes] | None) -> None:
        """Send the head of `exchange`'s request, with `body` when that has come already."""
        self.exchange = exchange
        request = exchange.request
        if request.websocket_key:
            exchange.failed(
                "bad-response", "this service's instances speak HTTP/2, which has no Upgrade: WebSockets need http1"
            )
            return
        if not self.link.open:
            exchange.failed("instance-failed", f"instance {self.link.target.instance} closed the connection")
            return
        self.link.enter(self)
        self._left = request.length
        self.open_out = request.length != 0
        self.link.send_head(self, head_of(request, forwarded), not self.open_out)
        for piece in body or ():
            self.send(piece)
        self.link.flush()

    def send(self, data: bytes) -> None:
        self._left -= len(data)
        self.push(data, last=self._left == 0)
        self.link.flush()

    def send_end(self, trailers: Trailers) -> None:
        self.finish(trailers)
        self.link.flush()

    def send_raw(self, data: bytes) -> None:
        """Only for tunnels, which there are none of here."""

    def pause(self) -> None:
        self.hold()

    def resume(self) -> None:
        self.unhold()

    def leave(self, last: bytes) -> None:
        self.drop()

    def drop(self) -> None:
        """The instance hears that nobody waits for its answer any more."""
        self.exchange = None
        if self.link.lanes.pop(self.id, None) is not None:
            self.reset(CANCEL)
        self.link.rested()

    # -- Lane -----------------------------------------------------------------------------------------------------------------

    def full(self) -> None:
        if self.exchange is not None:
            self.exchange.front.pause()

    def roomy(self) -> None:
        if self.exchange is not None:
            self.exchange.front.resume()

    # -- the answer -----------------------------------------------------------------------------------------------------------

    def detach(self) -> "Exchange | None":
        """The answer is whole: the exchange goes on without this stream, before its slot is released."""
        exchange, self.exchange = self.exchange, None
        self.link.lanes.pop(self.id, None)
        self.unhold()
        if self.open_out:
            self.reset(NO_ERROR)  # It wanted no more of the request's body.
        self.link.pool.alive_at = self.link.gate.now()
        self.link.rested()
        return exchange

    def answered(self, headers: Any, ended: bool) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        response = self.link.response(headers, exchange.request.method, ended)
        if response.status < 200:
            exchange.informed(response)
            return
        if response.length > 0 and exchange.request.method != b"HEAD":
            self.left = response.length
        if exchange.idle_s:
            exchange.active_at = self.link.gate.now()
        now = self.link.gate.now()
        if ended:
            self.detach()
        else:
            self.link.pool.alive_at = now
        exchange.answered(response, b"", ended, now)

    def ended(self, trailers: Trailers) -> None:
        exchange = self.detach()
        if exchange is not None:
            exchange.whole(trailers)


class Upstream2(Link):
    """One connection to an instance."""

    def __init__(self, gate: Gate, target: Target, pool: "Pool2", sock: socket.socket) -> None:
        super().__init__(gate, client_side=True)
        self.target = target
        self.pool = pool
        self.sock = sock
        self.since = gate.now()
        self.idle_until = self.since + limits.HELLO_TIME_S + limits.UPSTREAM2_IDLE_S
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the instance's first SETTINGS are in."""
        self.leaving = False
        """It takes no new streams."""
        self._answer: tuple[list[Field], bytes, bool, Response] | None = None
        """The last head of an answer, and what it means: the decoder gives a block that comes again as the same list."""

    @property
    def exchange(self) -> object:
        """Not None while it is in use."""
        return self.lanes or None

    def asking(self) -> "list[Exchange]":
        """What is asked here and not answered yet."""
        asked = [lane.exchange for lane in self.lanes.values()]
        return [exchange for exchange in asked if exchange is not None and not exchange.answering]

    @property
    def room(self) -> int:
        """How many more requests it can carry."""
        if self.leaving or not self.open or self.transport.is_closing():
            return 0
        return min(limits.STREAMS_MOST, self.streams_most) - len(self.lanes)

    def trusted(self, now: float) -> bool:
        """Whether a request may be given to it; an idle one may have been closed by the instance unnoticed."""
        if self.room <= 0:
            return False
        if self.lanes or now - self.since <= PROBE_AFTER_S:
            return True
        try:
            self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def rested(self) -> None:
        """A stream ended."""
        if not self.lanes:
            self.since = self.gate.now()
            self.idle_until = self.since + limits.UPSTREAM2_IDLE_S
            if self.leaving and self.open:
                self.flush_now()
                self.transport.close()

    # -- asyncio --------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.gate.upstreams.add(self)
        settings = {
            ENABLE_PUSH: 0,
            MAX_HEADER_LIST_SIZE: limits.HEAD_BYTES,
            HEADER_TABLE_SIZE: limits.HEADER_TABLE_BYTES,
        }
        self.hello(transport, limits.INSTANCE_STREAM_WINDOW_BYTES, limits.INSTANCE_WINDOW_BYTES, settings)

    def eof_received(self) -> None:
        """The instance is done."""

    def connection_lost(self, error: Exception | None) -> None:
        self._gone("closed the connection" if error is None else f"dropped the connection ({error})", "instance-failed")

    def broken(self, what: str) -> None:
        self._gone(f"does not speak HTTP/2 as it should: {what}", "bad-response")
        self.transport.abort()

    def _gone(self, what: str, reason: str) -> None:
        self.open = False
        self.gate.upstreams.discard(self)
        self.pool.forget(self)
        said = f"instance {self.target.instance} {what}"
        if not self.ready.done():
            self.ready.set_exception(OSError(said))
        lanes, self.lanes = self.lanes, {}
        for lane in lanes.values():
            exchange, lane.exchange = lane.exchange, None
            if exchange is not None:
                exchange.failed(reason, f"{said} before its answer was whole")

    # -- frames ---------------------------------------------------------------------------------------------------------------

    def on_settings(self) -> None:
        super().on_settings()
        if not self.ready.done():
            self.ready.set_result(None)

    def on_goaway(self, last: int, code: int) -> None:
        self.leaving = True
        for lane in [lane for lane in self.lanes.values() if lane.id > last]:
            del self.lanes[lane.id]
            exchange, lane.exchange = lane.exchange, None
            if exchange is not None:
                exchange.failed("instance-failed", f"instance {self.target.instance} went away (code {code})")
        self.rested()

    def on_data(self, lane: Back2, data: bytes, size: int, ended: bool) -> None:
        exchange = lane.exchange
        if exchange is not None:
            if exchange.idle_s:
                exchange.active_at = self.gate.now()
            if data:
                exchange.piece(data)
        lane.read(size)
        if ended:
            lane.ended(())

    def on_head(self, lane: Back2, head: list[Field], ended: bool) -> None:
        try:
            lane.answered(head, ended)
        except Malformed as error:
            self.on_fault(lane, BadStream(PROTOCOL_ERROR, str(error)))

    def response(self, head: list[Field], method: bytes, ended: bool) -> Response:
        """The answer that begins with `head`; the same one when that comes again. Raises Malformed."""
        last = self._answer
        if last is not None and last[0] is head and last[1] == method and last[2] == ended:
            return last[3]
        made = response_of(head, method, ended)
        self._answer = head, method, ended, made
        return made

    def on_trailers(self, lane: Back2, head: list[Field]) -> None:
        try:
            lane.ended(self.trailers(head))
        except Malformed as error:
            self.on_fault(lane, BadStream(PROTOCOL_ERROR, str(error)))

    def on_fault(self, lane: Back2, fault: BadStream) -> None:
        exchange, lane.exchange = lane.exchange, None
        self.reset(lane, fault.code)
        if exchange is not None:
            exchange.failed("bad-response", f"the answer of instance {self.target.instance} is malformed: {fault}")
        self.rested()

    def on_reset(self, lane: Back2, code: int) -> None:
        self._reset(lane, code)

    def _reset(self, lane: Back2, code: int) -> None:
        del self.lanes[lane.id]
        exchange, lane.exchange = lane.exchange, None
        if exchange is not None:
            exchange.reset_code = code or INTERNAL_ERROR
            exchange.failed("instance-failed", f"instance {self.target.instance} reset the stream (code {code})")
        self.rested()


class _Room:
    """A pool's connections, as if each free stream of theirs were an idle connection."""

    def __init__(self, pool: "Pool2") -> None:
        self._pool = pool

    def __len__(self) -> int:
        return sum(max(0, each.room) for each in self._pool.connections)

    def pop(self) -> Back2:
        """A stream on the connection that has most to do: the others may become idle."""
        return Back2(max((each for each in self._pool.connections if each.room > 0), key=lambda each: len(each.lanes)), 0)


class Pool2(Pool):
    """The HTTP/2 connections to one instance. A new one is made when the others are full, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[Upstream2] = []
        self.making: asyncio.Task[Upstream2] | None = None
        self.idle = _Room(self)

    def give(self, back: Any) -> None:
        """A stream that was not begun costs nothing."""

    def forget(self, connection: Upstream2) -> None:
        if connection in self.connections:
            self.connections.remove(connection)


async def connect2(gate: Gate, target: Target, pool: Pool2) -> Back2:
    """A stream to `target`, on a new connection if need be. Raises OSError or TimeoutError."""
    while True:
        for each in pool.connections:
            if each.trusted(gate.now()):
                return Back2(each, 0)
        if pool.making is None:
            pool.making = asyncio.get_running_loop().create_task(_make(gate, target, pool))
            gate.dials.add(pool.making)
            pool.making.add_done_callback(gate.dials.discard)
        made = await asyncio.shield(pool.making)
        if made.room > 0:
            return Back2(made, 0)
        if not made.lanes:
            raise OSError(f"instance {target.instance} takes no streams")


async def _make(gate: Gate, target: Target, pool: Pool2) -> Upstream2:
    """A new connection that has been greeted."""
    try:
        sock = await dial(target)
        try:
            loop = asyncio.get_running_loop()
            transport, made = await loop.create_connection(lambda: Upstream2(gate, target, pool, sock), sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            async with asyncio.timeout(limits.HELLO_TIME_S):
                await made.ready
        except BaseException:
            transport.abort()
            raise
        pool.connections.append(made)
        return made
    finally:
        pool.making = None
