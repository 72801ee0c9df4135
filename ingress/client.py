"""One client connection speaking HTTP/1: heads in, one exchange at a time, answers out.

    fresh ─▶ (HTTP/2: handed over to `http2`)
      ▼
    idle ─▶ head ─▶ busy (an exchange; its body first) ─▶ idle │ linger │ closed
                      └─▶ tunnel

What comes after the current request waits unparsed in `_buffer`, up to a bound, for its turn.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from ingress import limits
from ingress.answers1 import begin
from ingress.chunked import BadChunk, ChunkDecoder, Trailers, encode_chunk, encode_end
from ingress.forward import Exchange
from ingress.gate import Gate
from ingress.http1 import CHUNKED, END, Request, Response, check_partial
from ingress.refusals import TABLE, Refused, answer_of
from ingress.speaker2 import PREFACE
from ingress.websocket import GOING_AWAY, GOING_AWAY_MASKED, Frames

if TYPE_CHECKING:
    from ingress.listener import Listener

_IDLE, _BUSY, _TUNNEL, _LINGER, _CLOSED, _FRESH = range(6)


class Client(asyncio.Protocol):
    """The `Front` of HTTP/1 exchanges."""

    protocol = "HTTP/1.1"
    secure = inner = False
    __slots__ = (
        "_about", "_about_host", "_body_left", "_buffer", "_chunked", "_close", "_decoder", "_exchange", "_frames_in",
        "_frames_out", "_gate", "_idle_time_s", "_listener", "_paused", "_state", "_stuck", "_working", "due", "transport",
    )  # fmt: skip

    def __init__(self, listener: "Listener", gate: Gate) -> None:
        self._listener = listener
        self._gate = gate
        self._idle_time_s = gate.bounds.idle_time_s
        self.transport: Any = None
        self.due = 0.0
        """When the listener's sweep calls `expired`, monotonic seconds."""
        self._state = _FRESH
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._body_left = 0
        self._decoder: ChunkDecoder | None = None
        self._chunked = False
        self._close = False
        self._paused = False
        self._stuck = False  # The client does not read what it is sent: until it does, nothing more is asked for it.
        self._working = False
        self._frames_in: Frames | None = None
        self._frames_out: Frames | None = None
        self._about_host = b""
        self._about = b""

    # -- asyncio --------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.due = self._gate.now() + self._gate.bounds.header_time_s
        if full := self._listener.welcome(self):
            self._refuse_head(Refused(full), lingering=False)
            return
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == _IDLE:
            if self._buffer:
                data = self._buffer + data
            elif not self._stuck and (request := self._gate.requests.known(data)) is not None:
                self._start(request)
                return
            self._heads(data)
        elif state == _BUSY:
            exchange = self._exchange
            if exchange is not None and not exchange.body_done:
                self._body(exchange, data)
            else:
                self._hold(data)
        elif state == _TUNNEL and self._exchange is not None and self._exchange.back is not None:
            self._exchange.received_bytes += len(data)
            if self._frames_in is not None:
                self._frames_in.feed(data)
            self._exchange.back.send_raw(data)
        elif state == _FRESH:
            self._first(self._buffer + data)

    def _first(self, data: bytes) -> None:
        """The connection's first bytes say which protocol it speaks."""
        if data.startswith(PREFACE):
            self._state = _CLOSED
            self._listener.speaks_http2(self, data)
        elif PREFACE.startswith(data):
            self._buffer = data
        else:
            self._buffer, self._state = b"", _IDLE
            self._heads(data)

    def eof_received(self) -> None:
        """The client has closed its half: it has gone, as far as HTTP/1 can tell."""

    def connection_lost(self, error: Exception | None) -> None:
        self._state = _CLOSED
        self._buffer = b""
        self._listener.farewell(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self._stuck = True
        if self._exchange is not None and self._exchange.back is not None:
            self._exchange.back.pause()

    def resume_writing(self) -> None:
        self._stuck = False
        if self._exchange is None and self._state == _IDLE:
            self._go_on()
        elif self._exchange is not None and self._exchange.back is not None:
            self._exchange.back.resume()

    @property
    def client(self) -> str:
        """The peer's address."""
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    # -- heads ----------------------------------------------------------------------------------------------------------------

    def _heads(self, data: bytes) -> None:
        """Take requests from `data` until one is busy or a head is incomplete."""
        self._working = True
        while data and self._state == _IDLE:
            if self._stuck:
                self._buffer = data
                self.pause()
                break
            if data[0] in b"\r\n":
                # RFC 9112 §2.2: at least one empty line before a request line is ignored; here CRLF ones only.
                if data == b"\r":
                    self._buffer = data
                    break
                if not data.startswith(b"\r\n"):
                    self._refuse_head(Refused("bad-request", "bare CR or LF before the request line"))
                    break
                data = data[2:]
                continue
            end = data.find(END)
            if end < 0 or end > limits.HEAD_BYTES:
                self._partial(data)
                break
            end += 4
            try:
                request = self._gate.requests.parse(data[:end])
            except Refused as refused:
                self._refuse_head(refused)
                break
            self._buffer = b""
            rest = self._start(request, data[end:])
            if self._state == _BUSY:
                if rest:
                    self._hold(rest)
                break
            data = rest
        self._working = False

    def _start(self, request: Request, rest: bytes = b"") -> bytes:
        """Begin the exchange of `request`; `rest` came with its head. What of it remains."""
        now = self._gate.now()
        self._exchange = exchange = Exchange(self._gate, self, request, now)
        self._state = _BUSY
        self._close = not request.keep_alive
        if request.length:
            self._body_left = request.length
            self._decoder = ChunkDecoder() if request.length == CHUNKED else None
            if rest and self._decoder is None:
                rest = self._body(exchange, rest)  # First, so that it goes to the instance in one piece with the head.
        exchange.begin()
        return self._body(exchange, rest) if rest and self._exchange is exchange and not exchange.body_done else rest

    def _partial(self, data: bytes) -> None:
        """The head is not whole yet: keep it, within bounds. A bare LF or NUL will not get better."""
        try:
            check_partial(data)
        except Refused as refused:
            self._refuse_head(refused)
            return
        if not self._buffer:
            self.due = self._gate.now() + self._gate.bounds.header_time_s
        self._buffer = data

    # -- bodies ---------------------------------------------------------------------------------------------------------------

    @property
    def sending(self) -> Exchange | None:
        """The request that is being read."""
        return None if self._paused else self._exchange

    def _body(self, exchange: Exchange, data: bytes) -> bytes:
        """Pass on what belongs to the body; what follows it."""
        decoder = self._decoder
        if decoder is None:
            piece = data[: self._body_left]
            self._body_left -= len(piece)
            rest = data[len(piece) :]
            if not self._body_left:
                exchange.body_done = True
            exchange.body(piece)
            if exchange.body_done:
                exchange.body_end(())
        else:
            try:
                pieces, rest = decoder.feed(data)
            except BadChunk as error:
                self._close = True
                exchange.failed(error.reason, f"the chunked body: {error}")
                return b""
            if pieces:
                exchange.body(b"".join(pieces))
            if decoder.done:
                self._decoder = None
                exchange.body_end(decoder.trailers)
        if exchange.body_done and rest and not self._working and self._state == _BUSY:
            self._hold(rest)
            return b""
        return rest

    def _hold(self, data: bytes) -> None:
        """Bytes after the current request wait for their turn."""
        self._buffer += data
        if len(self._buffer) > limits.BUFFERED_BYTES:
            self.pause()

    def pause(self) -> None:
        """Read no more of this client for now."""
        if not self._paused and self._state != _CLOSED and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._state != _CLOSED and not self.transport.is_closing():
            self._paused = False
            if self._exchange is not None:
                self._exchange.brought = -1
            self.transport.resume_reading()

    # -- Front: what an exchange asks -----------------------------------------------------------------------------------------

    def forwarded(self, request: Request) -> bytes:
        """The fields that say where the request came from, and its ids; the same for each request of a host but for the ids."""
        if self._about_host != request.host:
            self._about, self._about_host = self._listener.about(self, request)
        return self._gate.marked(request, self._about)

    def inform(self, response: Response) -> None:
        self.transport.write((response.head or begin(response)) + b"\r\n")

    def answer(self, exchange: Exchange, response: Response, body: bytes, whole: bool) -> None:
        length, request = response.length, exchange.request
        framing, self._chunked = b"", False
        if length < 0:
            if request.http10:
                self._close = True
            else:
                self._chunked = True
                framing = b"Transfer-Encoding: chunked\r\n"
                if body:
                    body = encode_chunk(body)
        if self._close or self._gate.closing or (whole and not exchange.body_done):
            self._close = True
            framing += b"Connection: close\r\n"
        elif request.http10:
            framing += b"Connection: keep-alive\r\n"
        if exchange.cause_id:
            framing += b"x-ebb-cause: %b\r\n" % exchange.cause_id.encode("ascii")
        if not response.dated:
            framing += self._listener.date()
        self.transport.write(b"%b%b\r\n%b" % (response.head or begin(response), framing, body))

    def piece(self, data: bytes) -> None:
        if self._frames_out is not None:
            self._frames_out.feed(data)
        self.transport.write(encode_chunk(data) if self._chunked else data)

    def end(self, trailers: Trailers) -> None:
        if self._state == _TUNNEL:
            self._close = True
        elif self._chunked:
            self.transport.write(encode_end(trailers))

    def tunnel(self, exchange: Exchange, response: Response, data: bytes) -> None:
        self._state = _TUNNEL
        head = response.head or begin(response)
        self.transport.write(b"%bConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%b" % (head, data))
        self._chunked = False
        self._frames_in, self._frames_out = Frames(), Frames()
        self._frames_out.feed(data)
        early, self._buffer = self._buffer, b""
        self.resume()
        if early:
            self.data_received(early)

    def refuse(self, exchange: Exchange, reason: str, message: str, retry_after_s: float) -> None:
        if not exchange.body_done or self._gate.closing or TABLE[reason].status == 400:
            self._close = True
        self._write_refusal(exchange.request.method, reason, message, retry_after_s, exchange.cause_id)

    def go_away(self) -> bool:
        """End a WebSocket with code 1001 on both sides; False while the instance is in the middle of a frame."""
        exchange, to_client, to_instance = self._exchange, self._frames_out, self._frames_in
        if exchange is None or to_client is None or to_instance is None or not to_client.between:
            return False
        self.transport.write(GOING_AWAY)
        self._close = True
        exchange.leave(GOING_AWAY_MASKED if to_instance.between else b"")
        return True

    def cut(self) -> None:
        """The answer cannot be whole: the client must see that."""
        if self._chunked or self._state == _TUNNEL:
            self._close = True
        else:
            self._state = _CLOSED
            self.transport.abort()

    def over(self, exchange: Exchange, now: float) -> None:
        """The exchange has ended: what is next on this connection."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if self._state == _CLOSED:
            return
        if self._close or not exchange.body_done:
            self.resume()
            # Of a body that nobody waits for, the rest would be taken for the next request.
            self._end(lingering=not exchange.body_done)
            return
        self._state = _IDLE
        self.due = now + self._idle_time_s
        if self._buffer or self._paused or self._stuck:
            self._go_on()

    def _go_on(self) -> None:
        """With what came in the meantime, unless the answers so far are not read."""
        if self._stuck:
            self.pause()
            return
        self.resume()
        if self._buffer and not self._working:
            data, self._buffer = self._buffer, b""
            self._heads(data)

    # -- refusals and endings -------------------------------------------------------------------------------------------------

    def expired(self, now: float) -> None:
        """`due` has come."""
        if self._exchange is not None:
            self._exchange.expired(now)
        elif self._state in (_IDLE, _FRESH) and self._buffer:
            self._refuse_head(Refused("header-timeout"))
        else:
            self.transport.abort() if self._state == _LINGER else self.transport.close()

    def wind_up(self, *, close_idle: bool) -> None:
        """Draining: a busy connection ends after its answer, an idle one on `close_idle`, a WebSocket between two frames."""
        if self._state in (_IDLE, _FRESH) and not self._buffer:
            if close_idle:
                self.transport.close()
        elif self._state == _TUNNEL:
            self.go_away()

    def _refuse_head(self, refused: Refused, *, lingering: bool = True) -> None:
        """There is no request to speak of: answer and close."""
        self._buffer, self._close = b"", True
        self._gate.metrics.refused(refused.reason)
        self._write_refusal(b"", refused.reason, refused.message, refused.retry_after_s, "")
        self._end(lingering=lingering)

    def _write_refusal(self, method: bytes, reason: str, message: str, retry_after_s: float, cause: str) -> None:
        tail = (b"Connection: close\r\n" if self._close else b"") + self._listener.date()
        self.transport.write(answer_of(reason, message, retry_after_s, cause, tail, bodiless=method == b"HEAD"))

    def _end(self, *, lingering: bool) -> None:
        """Close once everything is written; `lingering`: read on a little, or the client's kernel drops our answer."""
        if not lingering or not self.transport.can_write_eof():
            self._state = _CLOSED
            self.transport.close()
            return
        self._state = _LINGER
        self.due = self._gate.now() + limits.LINGER_S
        self.transport.write_eof()
