"""Exchanges at hosts with rules (`rules`): sessions that find their instance again, and copies for a mirror.

A request that falls under a rule becomes a `RuledExchange` on its way; no other request pays for that.
"""

from activator.balance import Target
from ingress import limits
from ingress.chunked import Trailers
from ingress.detour import Detour
from ingress.forward import Exchange
from ingress.gate import Gate
from ingress.guard import Guard
from ingress.http1 import Request, Response
from ingress.rules import Affinity, Paths, Ruled
from ingress.traffic import Choice, Split

_BEFORE = (Detour, Guard, Paths)
"""What stands before the split that names revisions. A tuple: a union would be made anew for each request."""


class RuledExchange(Exchange):
    """An exchange whose split had rules."""

    _affinity: Affinity | None = None
    _wish = b""
    """Token of the instance that its session was at."""
    _copy: "Copy | None" = None

    def _send(self, target: Target, now: float) -> None:
        affinity, throttler = self._affinity, self.throttler
        if affinity is not None and self._wish and throttler is not None:
            name = affinity.instance(self._wish, throttler.targets)
            target = self._gate.admitter.prefer(throttler, target, name, now)
        super()._send(target, now)

    def answered(self, response: Response, body: bytes, whole: bool, now: float) -> None:
        super().answered(self._keeping_session(response), body, whole, now)

    def upgraded(self, response: Response, data: bytes) -> None:
        super().upgraded(self._keeping_session(response), data)

    def body(self, data: bytes) -> None:
        super().body(data)
        if self._copy is not None:
            self._copy.add(data)

    def body_end(self, trailers: Trailers) -> None:
        super().body_end(trailers)
        if self._copy is not None:
            self._copy.send()

    def follow(self, split: Ruled, choice: Choice, affinity: Affinity | None, wish: bytes) -> None:
        """Go to `choice`, with a copy for the mirror when chance says so."""
        gate = self._gate
        self._affinity, self._wish = affinity, wish
        mirror = split.mirror
        if mirror is not None and mirror is not choice and gate.chance() * 100 < split.mirror_percent:
            self._copy = Copy.of(gate, self, mirror)
        copy = self._copy
        if copy is not None:
            for piece in self._pending or ():  # Came before the rules were asked: while the host was held, or with the head.
                copy.add(piece)
        self.begin(choice)
        if copy is not None and self.body_done:
            copy.send()

    def _keeping_session(self, response: Response) -> Response:
        affinity, target, choice = self._affinity, self._target, self._choice
        if (
            affinity is not None
            and target is not None
            and choice is not None
            and not affinity.names(self._wish, target.instance)
        ):
            return response.adding(*affinity.field(choice, target.instance, secure=by_tls(self._gate, self)))
        return response


class Copy:
    """The `Front` of a request's copy: it is sent once the request's body is whole, and nobody reads its answer."""

    protocol = "mirror"
    secure = inner = False

    def __init__(self, gate: Gate, request: Request, forwarded: bytes, client: str, choice: Choice) -> None:
        self._gate = gate
        self._request = request
        self._forwarded = forwarded
        self._choice = choice
        self._body: list[bytes] = []
        self._size = 0
        self._exchange: Exchange | None = None
        self.client = client
        self.due = float("inf")

    @classmethod
    def of(cls, gate: Gate, exchange: Exchange, choice: Choice) -> "Copy | None":
        """A copy of the request of `exchange`, for `choice`; None, and counted, when it cannot have one."""
        request, front = exchange.request, exchange.front
        if request.websocket_key:
            return None
        if request.length > limits.MIRROR_BODY_BYTES:
            gate.metrics.mirrored("too-large")
            return None
        if len(gate.copies) >= limits.MIRROR_MOST:
            gate.metrics.mirrored("busy")
            return None
        forwarded = front.forwarded(request) + b"X-Ebb-Mirror: true\r\n"
        copy = Request(request.method, request.target, request.host, request.fields)
        copy.request_id, copy.trace = request.request_id, request.trace
        return cls(gate, copy, forwarded, front.client, choice)

    def add(self, data: bytes) -> None:
        """A piece of the body, kept up to a bound."""
        self._size += len(data)
        if self._size <= limits.MIRROR_BODY_BYTES:
            self._body.append(data)
        else:
            self._body.clear()

    def send(self) -> None:
        """The request is whole: its copy goes the way of any request to that revision."""
        gate = self._gate
        if self._size > limits.MIRROR_BODY_BYTES:
            gate.metrics.mirrored("too-large")
            return
        if self._exchange is not None:
            return
        body = b"".join(self._body)
        self._request.length = len(body)
        exchange = self._exchange = Exchange(gate, self, self._request, gate.now())
        gate.copies.add(self)
        exchange.begin(self._choice)
        if body and not exchange.ended:
            exchange.body_done = True
            exchange.body(body)
            exchange.body_end(())

    def expired(self, now: float) -> None:
        """`due` has come."""
        if self._exchange is not None:
            self._exchange.expired(now)

    # -- Front ----------------------------------------------------------------------------------------------------------------

    def forwarded(self, request: Request) -> bytes:
        return self._forwarded

    def over(self, exchange: Exchange, now: float) -> None:
        self._gate.copies.discard(self)
        self._gate.metrics.mirrored("refused" if exchange.reason else "answered")

    def go_away(self) -> bool:
        return True

    def inform(self, response: Response) -> None: ...
    def answer(self, exchange: Exchange, response: Response, body: bytes, whole: bool) -> None: ...
    def piece(self, data: bytes) -> None: ...
    def end(self, trailers: Trailers) -> None: ...
    def refuse(self, exchange: Exchange, reason: str, message: str, retry_after_s: float) -> None: ...
    def tunnel(self, exchange: Exchange, response: Response, data: bytes) -> None: ...
    def cut(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def by_tls(gate: Gate, exchange: Exchange) -> bool:
    """Whether the client speaks TLS, be it to a trusted proxy before us: who did must not be sent to TLS again."""
    front = exchange.front
    own = "https" if front.secure else "http"
    return gate.proxies.scheme(front.client, exchange.request.forwarded_proto, own) == "https"


def follow(gate: Gate, exchange: Exchange, split: Split) -> bool:
    """Begin `exchange` by the rules of `split`, or answer it here; False when they name no revision."""
    while isinstance(split, _BEFORE):
        if isinstance(split, Guard):
            if not split.lets(gate, exchange):
                return True
            if split.plain is not None:
                exchange.begin(split.plain)
                return True
            found: Split | None = split.behind
        elif isinstance(split, Paths):
            found = split.at(exchange.request)
        else:
            if split.took(exchange, exchange.front.inner or by_tls(gate, exchange)):
                return True
            found = split.behind
        if found is None:
            return False
        split = found
    if not isinstance(split, Ruled):
        plain = split.only or split.pick(gate.chance())
        if plain is not None:
            exchange.begin(plain)
        return plain is not None
    choice, affinity, wish = split.choose(exchange.request, gate.chance())
    if choice is None:
        return False
    exchange.__class__ = RuledExchange
    assert isinstance(exchange, RuledExchange)
    exchange.follow(split, choice, affinity, wish)
    return True
