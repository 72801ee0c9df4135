"""What every connection of one front door shares: tables, admission, parsers, counters, the moment it began to close."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from activator.admitter import Admitter
from ingress.access_log import AccessLog, line_of
from ingress.answers1 import ResponseParser
from ingress.guard import Guards
from ingress.http1 import Request, RequestParser
from ingress.identity import Identities
from ingress.metrics import Metrics, Stats
from ingress.proxies import Proxies
from ingress.routes import Routes
from ingress.strangers import Strangers
from ingress.traffic import UNBOUNDED, Split
from process.clock import Clock, SystemClock
from store.model import RevisionKey

if TYPE_CHECKING:
    from activator.balance import Target
    from ingress.forward import Exchange
    from ingress.tracing import Tracer
    from ingress.traffic import Choice


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set for all services."""

    max_body_bytes: int = 0
    """0: no limit."""
    max_connections: int = 50_000
    max_connections_per_address: int = 20_000
    """Of one client's address; 0: no limit of its own."""
    trusted_proxies: str = ""
    """Addresses and networks whose X-Forwarded-For and -Proto are believed."""
    max_timeout_s: float = 3600
    header_time_s: float = 10
    body_rate_bytes_s: float = 100
    """What a body of HTTP/1 must bring at least; 0: it may rest."""
    body_look_s: float = 20
    """How often that is looked at."""
    idle_time_s: float = 60


class Gate:
    """Made once by `__main__` (or a test) and handed to the listener."""

    def __init__(
        self,
        admitter: Admitter,
        clock: Clock,
        bounds: Bounds,
        access: AccessLog,
        metrics: Metrics,
        tell: Callable[..., None],
        follow: Callable[[Any, Any, Split], bool],
    ) -> None:
        self.routes = Routes()
        self.identities = Identities()
        self.strangers = Strangers(self.routes)
        self.admitter = admitter
        self.clock = clock
        # The system's own clock is asked several times a request: without the method around it.
        self.now: Callable[[], float] = time.monotonic if isinstance(clock, SystemClock) else clock.now
        self.routes.guards = Guards(self._waiting, self.now)
        self.bounds = bounds
        self.proxies = Proxies(bounds.trusted_proxies)
        self.access = access
        self.metrics = metrics
        self.tell = tell
        self.follow = follow
        """`ruled.follow`, for hosts with rules."""
        self.copies: set[Any] = set()
        """Requests for mirrors that are on their way."""
        self.tracer: Tracer | None = None
        self.recording = access.mode != "off"
        """Requests that are over are told to `record`."""
        self.requests = RequestParser()
        self.responses = ResponseParser()
        self.chance = random.random
        self.addresses: dict[str, int] = {}
        """How many connections each client's address has."""
        self.upstreams: set[Any] = set()
        """All open connections to instances."""
        self.dials: set[asyncio.Task[Any]] = set()
        """All that are being made."""
        self.closing = False
        """Draining: answers carry `Connection: close`."""
        self._id_head = secrets.token_hex(8).encode()
        self._id_next = secrets.randbits(48)

    def _waiting(self, revision: RevisionKey) -> int:
        throttler = self.admitter.throttlers.get(revision)
        return len(throttler.line) if throttler is not None else 0

    def identify(self) -> bytes:
        """A request id that no other request has: 32 hex digits, 64 random bits and a count; also fit as a trace id."""
        self._id_next += 1
        return b"%b%016x" % (self._id_head, self._id_next)

    def marked(self, request: Request, about: bytes) -> bytes:
        """`about`, with the ids of `request`: those it brought, else new ones."""
        if not request.request_id:
            self._id_next += 1
            tail = b"%016x" % self._id_next
            made = request.request_id = self._id_head + tail
            if not request.trace:
                return b"%bX-Request-Id: %b\r\ntraceparent: 00-%b-%b-01\r\n" % (about, made, made, tail)
        trace = request.trace
        if not trace:
            made = self.identify()
            trace = b"00-%b-%b-01" % (made, made[16:])
        return b"%bX-Request-Id: %b\r\ntraceparent: %b\r\n" % (about, request.request_id, trace)

    def meet(self, choice: "Choice") -> Stats:
        """The first request of `choice`: its metrics, and what the front door's own settings make of it."""
        stats: Stats = self.metrics.stats(choice.revision)
        choice.stats = stats
        choice.special = choice.special or self.tracer is not None
        choice.body_most_bytes = min(choice.body_most_bytes, self.bounds.max_body_bytes or UNBOUNDED)
        return stats

    def trace(self, tracer: "Tracer") -> None:
        """From the first request on, requests have spans."""
        self.tracer, self.recording = tracer, True

    def record(self, exchange: "Exchange", choice: "Choice | None", target: "Target | None", now: float) -> None:
        """Log and trace an exchange that is over."""
        if self.access.wants(exchange.status):
            self.access.write(line_of(exchange, choice, target, now, self.clock.wall()))
        if self.tracer is not None:
            self.tracer.end(self, exchange, choice, target, now)

    def present(self) -> list[tuple[str, int, int]]:
        """(revision, in flight, queued) of those that have any."""
        throttlers: Any = self.admitter.throttlers.values()
        return [(each.revision, each.in_flight, len(each.line)) for each in throttlers if each.in_flight or len(each.line)]
