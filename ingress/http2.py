"""Clients that speak HTTP/2: a connection with up to a hundred streams, each of them one request with an exchange of its own."""

from typing import TYPE_CHECKING, Any

from ingress import limits
from ingress.chunked import Trailers
from ingress.forward import Exchange
from ingress.frames2 import (
    CANCEL,
    HEADER_TABLE_SIZE,
    INTERNAL_ERROR,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    BadStream,
)
from ingress.gate import Gate
from ingress.heads2 import Malformed, answer_head, is_grpc, request_of, says_no_more
from ingress.hpack2 import Field
from ingress.http1 import CHUNKED, Fields, Request, Response, begin
from ingress.link2 import LAST_STREAM, Lane, Link
from ingress.refusals import TABLE, Refused, body_of, printable, retry_after
from ingress.speaker2 import NO_LENGTH

if TYPE_CHECKING:
    from ingress.listener import Listener

_GRPC_STATUS = {401: 16, 403: 7, 404: 12, 405: 12, 413: 8, 429: 8, 431: 8, 502: 14, 503: 14, 504: 4}
"""What gRPC calls our refusals; others are 13, internal."""


class Stream(Lane):
    """The `Front` of one stream's exchange."""

    __slots__ = ("_whole", "due", "exchange")

    protocol = "HTTP/2"
    link: "Http2"

    def __init__(self, link: "Http2", id: int) -> None:
        super().__init__(link, id)
        self.exchange: Exchange | None = None
        self.due = float("inf")
        self._whole = False
        """The request has ended."""

    @property
    def client(self) -> str:
        return self.link.client

    @property
    def secure(self) -> bool:
        return self.link.secure

    @property
    def inner(self) -> bool:
        return self.link.inner

    def begin(self, request: Request) -> None:
        self.left = NO_LENGTH if request.length == CHUNKED else request.length
        self.exchange = Exchange(self.link.gate, self, request, self.link.gate.now())
        self.exchange.begin()

    def body(self, data: bytes, size: int, ended: bool) -> None:
        """Data of the request; `size`: what it counts for in flow control."""
        exchange = self.exchange
        if exchange is not None and data:
            if self.left == 0 or (ended and exchange.request.length > 0):
                exchange.body_done = True
            exchange.body(data)
        self.read(size)

    # -- Front ----------------------------------------------------------------------------------------------------------------

    def forwarded(self, request: Request) -> bytes:
        return self.link.gate.marked(request, self.link.about(request))

    def inform(self, response: Response) -> None:
        self._head(answer_head(response), last=False)
        self.link.flush()

    def answer(self, exchange: Exchange, response: Response, body: bytes, whole: bool) -> None:
        head = answer_head(response)
        if exchange.cause_id:
            head = [*head, (b"x-ebb-cause", exchange.cause_id.encode("ascii"))]
        if not response.dated:
            head = [*head, self.link.date()]
        self._head(head, last=whole and not body)
        if body:
            self.push(body, last=whole)
        self.link.flush()

    def piece(self, data: bytes) -> None:
        self.push(data)
        self.link.flush()

    def end(self, trailers: Trailers) -> None:
        self.finish(trailers)
        self.link.flush()

    def refuse(self, exchange: Exchange, reason: str, message: str, retry_after_s: float) -> None:
        method = exchange.request.method
        self.refused(reason, message, retry_after_s, cause=exchange.cause_id, bodiless=method == b"HEAD")

    def refused(self, reason: str, message: str, retry_after_s: float, *, cause: str = "", bodiless: bool = False) -> None:
        """An answer of our own; a gRPC client gets it as a status."""
        text = body_of(reason, message).encode("ascii")
        extra: Fields = [(b"x-ebb-reason", reason.encode("ascii")), self.link.date()]
        wait_s = retry_after(reason, retry_after_s)
        if wait_s:
            extra.append((b"retry-after", b"%d" % wait_s))
        if cause:
            extra.append((b"x-ebb-cause", cause.encode("ascii")))
        if TABLE[reason].challenge:
            extra.append((b"www-authenticate", TABLE[reason].challenge.encode("ascii")))
        status = TABLE[reason].status
        if self.exchange is not None and is_grpc(self.exchange.request):
            said = printable(f"{reason}: {message or TABLE[reason].text}").replace("%", "%25").encode("ascii")
            head = [(b":status", b"200"), (b"content-type", b"application/grpc")]
            head += [(b"grpc-status", b"%d" % _GRPC_STATUS.get(status, 13)), (b"grpc-message", said)]
            self._head(head + extra, last=True)
        else:
            head = [(b":status", b"%d" % status), (b"content-type", b"text/plain; charset=utf-8")]
            self._head([*head, (b"content-length", b"%d" % len(text)), *extra], last=bodiless)
            if not bodiless:
                self.push(text, last=True)
        self.link.flush()

    def tunnel(self, exchange: Exchange, response: Response, data: bytes) -> None:
        raise AssertionError("no request of HTTP/2 asks for a tunnel")

    def go_away(self) -> bool:
        return False

    def cut(self) -> None:
        """The answer cannot be whole: the stream is reset, with the instance's own code when it gave one."""
        exchange = self.exchange
        self.link.lanes.pop(self.id, None)
        self.reset(exchange.reset_code if exchange is not None else INTERNAL_ERROR)

    def over(self, exchange: Exchange, now: float) -> None:
        self.settle(exchange.body_done, now)

    def settle(self, whole: bool, now: float) -> None:
        """What is left is to send what waits. `whole`: the request has ended."""
        self.exchange = None
        self._whole = whole
        self.due = now + self.link.gate.bounds.idle_time_s
        self.unhold()
        if not self.open_out:
            self._forget()

    def ended(self) -> None:
        """The request has ended."""
        self._whole = True
        if self.exchange is not None and not self.exchange.trailed:
            self.exchange.body_end(())

    def pause(self) -> None:
        self.hold()

    def resume(self) -> None:
        self.unhold()

    # -- Lane -----------------------------------------------------------------------------------------------------------------

    def full(self) -> None:
        if self.exchange is not None and self.exchange.back is not None:
            self.exchange.back.pause()

    def roomy(self) -> None:
        if self.exchange is not None and self.exchange.back is not None:
            self.exchange.back.resume()

    def sent_all(self) -> None:
        if self.exchange is None:
            self._forget()

    def _forget(self) -> None:
        """Both are done with each other; a request whose body goes on is told that nobody reads it."""
        if self.link.lanes.pop(self.id, None) is not None and not self._whole:
            self.reset(NO_ERROR)
        self.link.rested()

    def _head(self, head: Fields, *, last: bool) -> None:
        if not self.open_out:
            return
        self.open_out = not last
        self.link.send_head(self, head, last)


class Http2(Link):
    """One client's connection, as the listener keeps it."""

    secure = inner = False
    due = 0.0
    """Always due: the streams have their own."""
    request_of = staticmethod(request_of)

    def __init__(self, listener: "Listener", gate: Gate) -> None:
        super().__init__(gate, client_side=False)
        self._listener = listener
        self._idle_until = gate.now() + gate.bounds.header_time_s
        self._about: dict[bytes, bytes] = {}
        self._last: list[Field] | None = None
        """The head of a request that may be asked again, and what it means."""
        self._last_ended = self._last_trailers_wanted = False
        self._last_means: tuple[bytes, bytes, bytes, Fields, int, bytes] = b"", b"", b"", [], 0, b""
        self._leaving = 0
        """0: stays; 1: GOAWAY was said; 2: and no new streams are taken."""
        self._highest = LAST_STREAM

    def take_over(self, transport: Any, data: bytes) -> None:
        """The connection was found to speak HTTP/2; `data` is its beginning."""
        transport.set_protocol(self)
        settings = {
            MAX_CONCURRENT_STREAMS: limits.STREAMS_MOST,
            MAX_HEADER_LIST_SIZE: limits.HEAD_BYTES,
            HEADER_TABLE_SIZE: limits.HEADER_TABLE_BYTES,
        }
        self.hello(transport, limits.STREAM_WINDOW_BYTES, limits.CLIENT_WINDOW_BYTES, settings)
        self.data_received(data)

    @property
    def client(self) -> str:
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def about(self, request: Request) -> bytes:
        """The front door's fields for `request`; the same for all of a host, unless a proxy speaks for many clients."""
        found = self._about.get(request.host)
        if found is None:
            if len(self._about) >= 16:
                self._about.clear()
            found, host = self._listener.about(self, request)
            if host:
                self._about[host] = found
        return found

    def date(self) -> tuple[bytes, bytes]:
        return b"date", self._listener.date()[6:-2]

    def eof_received(self) -> None:
        """The client has gone."""

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._listener.farewell(self)
        lanes, self.lanes = self.lanes, {}
        for stream in lanes.values():
            if stream.exchange is not None:
                stream.exchange.client_gone()

    # -- frames ---------------------------------------------------------------------------------------------------------------

    def on_data(self, lane: Stream, data: bytes, size: int, ended: bool) -> None:
        lane.body(data, size, ended)
        if ended:
            lane.ended()

    def on_reset(self, lane: Stream, code: int) -> None:
        self._drop(lane)

    def on_fault(self, lane: Stream, fault: BadStream) -> None:
        self.gate.metrics.refused("bad-request")
        self.reset(lane, fault.code)
        self._drop(lane)

    def _drop(self, stream: Stream) -> None:
        """The client wants, or gets, nothing more on `stream`."""
        self.lanes.pop(stream.id, None)
        stream.unhold()
        if stream.exchange is not None:
            stream.exchange.client_gone()
        self.rested()

    def on_request(self, id: int, head: list[Field], ended: bool) -> None:
        stream = Stream(self, id)
        if id > self._highest:
            stream.reset(REFUSED_STREAM)
            return
        self.enter(stream)
        stream.open_in = not ended
        try:
            stream.begin(self._request(head, ended))
        except Malformed:
            self.gate.metrics.refused("bad-request")
            self.reset(stream, PROTOCOL_ERROR)
        except Refused as refused:
            self.gate.metrics.refused(refused.reason)
            stream.refused(refused.reason, refused.message, refused.retry_after_s)
            stream.settle(ended, self.gate.now())
        else:
            if ended:
                stream.ended()

    def _request(self, head: list[Field], ended: bool) -> Request:
        """The request of `head`. The decoder gives a block that comes again as the same list, and then it means the same."""
        if head is self._last and ended == self._last_ended:
            request = Request(*self._last_means)
            request.trailers_wanted = self._last_trailers_wanted
            return request
        request = self.request_of(head, ended)
        if says_no_more(request):
            self._last, self._last_ended, self._last_trailers_wanted = head, ended, request.trailers_wanted
            begun = request.begun = begin(request)
            self._last_means = request.method, request.target, request.host, request.fields, request.length, begun
        return request

    def on_trailers(self, lane: Stream, head: list[Field]) -> None:
        exchange = lane.exchange
        if exchange is None:
            return
        try:
            trailers = self.trailers(head)
        except Malformed as error:
            self.on_fault(lane, BadStream(PROTOCOL_ERROR, str(error)))
            return
        exchange.trailed = True
        exchange.body_end(trailers)
        lane.ended()

    def on_goaway(self, last: int, code: int) -> None:
        self._leaving = 2
        self.rested()

    def broken(self, what: str) -> None:
        """Written is what is to be said; the streams end with the connection."""
        if self.open:
            self.connection_lost(None)
            self.transport.close()

    # -- for the listener -----------------------------------------------------------------------------------------------------

    def expired(self, now: float) -> None:
        """Look at the clocks of all streams, or at our own when there are none."""
        if not self.lanes and now >= self._idle_until and self.open:
            self.goodbye(NO_ERROR, "idle")
            return
        for stream in [stream for stream in self.lanes.values() if stream.due <= now]:
            if stream.exchange is not None:
                stream.exchange.expired(now)
            else:
                self.lanes.pop(stream.id, None)
                stream.reset(CANCEL)

    def wind_up(self, *, close_idle: bool) -> None:
        """Draining: first the client is told, later new streams are turned away, and when the last one is over it is the end."""
        if not self.open:
            return
        if not self._leaving:
            self._leaving = 1
            self.say_goaway(LAST_STREAM)
        if close_idle and self._highest == LAST_STREAM:
            self._leaving = 2
            self._highest = self.highest
            self.say_goaway(self._highest)
        self.rested()

    def rested(self) -> None:
        """A stream ended."""
        if not self.lanes and self.open:
            self._idle_until = self.gate.now() + self.gate.bounds.idle_time_s
            if self._leaving == 2:
                self.flush_now()
                self.transport.close()
