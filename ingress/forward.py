"""The journey of one request, on one screen:

    begin ─▶ route by host ─▶ revision by weight ─▶ reserve ──────────────▶ _send ─▶ answered ─▶ piece… ─▶ whole ─▶ _finish
                 │                                    └▶ wait ─▶ dispatched ──┘ ▲        │
                 ▼                                          │      unreachable ─┘        ▼
              refused ◀── queue-full, cannot-start, timeout ┘    (no byte sent yet)    failed: cut, visibly

Each arrow is a call on the event loop; there is no task per request. A slot reserved is given back exactly once, in `_finish`.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from activator.balance import SCAN, Target
from activator.breaker import Waiter
from activator.throttler import Throttler
from ingress import limits
from ingress.access_log import server_timing
from ingress.chunked import Trailers
from ingress.front import Back, Front
from ingress.gate import Gate
from ingress.http1 import CHUNKED, Request, Response
from ingress.pool import Pool
from ingress.refusals import TABLE, UNANSWERED
from ingress.traffic import Choice
from ingress.upstream import connect
from ingress.upstream2 import Pool2, connect2
from process.ids import cause_id

if TYPE_CHECKING:
    from ingress.spans import Context


class Exchange:
    """One request and its answer."""

    # No slots: what most requests leave at its default is kept once, on the class.
    ended = held = answering = cut = _tunnelled = trailed = marked = False
    status = sent_bytes = received_bytes = 0
    brought = -1
    """Bytes of the body when `slow` last looked; below 0: it has not, or the client was not read since."""
    reset_code = 2
    """How HTTP/2 says that the answer was cut: internal error, unless the instance said it in its own way."""
    reason = cause_id = ""
    idle_s = active_at = sent_at = asked_at = waited_s = connect_s = 0.0
    back: Back | None = None
    span: "Context | None" = None
    _stats: Any = None
    _choice: Choice | None = None
    throttler: Throttler[Any] | None = None
    crowd: Any = None  # Where it was counted in, at a host with limits.
    _target: Target | None = None
    _waiter: Waiter[Any] | None = None
    _pending: list[bytes] | None = None
    _pending_bytes = _attempts = _informed = 0
    _trailers: Trailers = ()

    def __init__(self, gate: Gate, front: Front, request: Request, now: float) -> None:
        self._gate = gate
        self.front = front
        self.request = request
        self.started = now
        self.body_done = request.length == 0

    # -- in -------------------------------------------------------------------------------------------------------------------

    def begin(self, choice: Choice | None = None) -> None:
        """Find where the request goes (to `choice`, when a rule said so), and go there or stand in line."""
        gate, request = self._gate, self.request
        if choice is None:
            split = gate.routes.memo.get(request.host) or gate.routes.find(request.host)
            choice = None if split is None else split.only or split.open(gate, self)
        if choice is None:
            if not (self.ended or (split is not None and gate.follow(gate, self, split)) or gate.strangers.hold(self)):
                self.refused("no-route", f"no service answers to host {request.host.decode('latin-1')}")
            return
        self._choice = choice
        self._stats = choice.stats or gate.meet(choice)
        if request.length and max(request.length, self.received_bytes) > choice.body_most_bytes:
            self.refused("body-too-large", f"the body is above {choice.body_most_bytes} bytes")
            return
        admitter = gate.admitter
        throttler = admitter.throttlers.get(choice.revision)
        if throttler is None or throttler.limit != choice.concurrency:
            throttler = admitter.throttler(choice.revision, choice.concurrency)
        self.throttler = throttler
        now = self.started
        self.front.due = now + choice.timeout_s
        target = throttler.reserve(now, gate.chance() if len(throttler.balance.open) > SCAN else 0.0)
        if target is None:
            self._wait(throttler, now)
            return
        if throttler.quiet:
            admitter.awake(throttler)
        self._send(target, now)

    def _wait(self, throttler: Throttler[Any], now: float, *, first: bool = False) -> None:
        assert self._choice is not None
        if not self.cause_id:
            self.cause_id = (self.request.request_id or b"").decode("ascii") or cause_id()
            self._tell("request waiting", host=self.request.host.decode("latin-1"), waiting=len(throttler.line))
        due = self.started + self._choice.timeout_s
        self._waiter = self._gate.admitter.arrive(throttler, self, now, due, self.cause_id, first=first)

    def dispatched(self, target: Target, waited_s: float) -> None:
        """There is a slot at `target` for this request, after having waited."""
        self._waiter = None
        self.waited_s += waited_s
        self._tell("dispatched", instance=target.instance, waited_ms=round(waited_s * 1000, 2))
        self._send(target, self._gate.now())

    def _send(self, target: Target, now: float) -> None:
        self._target = target
        self.sent_at = now
        pool: Pool | None = target.connections
        if pool is None:
            h2c = self._choice is not None and self._choice.h2c
            pool = target.connections = Pool2() if h2c else Pool()
        idle = pool.idle
        while idle:
            back = idle.pop()
            if back.usable(now):
                self._attach(back)
                return
        pool.dialling[self] = None
        dialling = asyncio.get_running_loop().create_task(self._dial(target, pool))
        self._gate.dials.add(dialling)
        dialling.add_done_callback(self._gate.dials.discard)

    async def _dial(self, target: Target, pool: Pool) -> None:
        """Make a connection to `target`; by then another may have become free for this request."""
        metrics, clock = self._gate.metrics, self._gate
        while True:
            begun = clock.now()
            metrics.upstream_connects += 1
            try:
                back = await self._connect(target, pool)
                break
            except (OSError, TimeoutError) as error:
                metrics.upstream_failures += 1
                if self not in pool.dialling:
                    return
                if isinstance(error, TimeoutError) and max(pool.alive_at, pool.accepted_at) >= begun:
                    continue  # It serves others: its backlog is full, which is no reason to call it dead.
                del pool.dialling[self]
                self._unreachable(target, str(error) or f"no connection within {limits.CONNECT_TIME_S:g} s")
                return
        pool.accepted_at = clock.now()
        if target.doubted and self.throttler is not None:
            self._gate.admitter.reached(self.throttler, target)
        if self in pool.dialling:
            del pool.dialling[self]
            self.handed(back)
        else:
            pool.give(back)

    async def _connect(self, target: Target, pool: Pool) -> Back:
        if isinstance(pool, Pool2):
            return await connect2(self._gate, target, pool)
        return await connect(self._gate, target, pool)

    def handed(self, back: Back) -> None:
        """A connection to the instance of this request."""
        self.connect_s = self._gate.now() - self.sent_at
        self._stats.connect.add(self.connect_s)
        self._attach(back)

    def _unreachable(self, target: Target, error: str) -> None:
        """No byte was sent: another instance may have it, before all who wait."""
        admitter, throttler = self._gate.admitter, self.throttler
        assert throttler is not None
        self._attempts += 1
        now = self._gate.now()
        self._target = None
        admitter.unreachable(throttler, target)
        admitter.release(throttler, target, now)
        if self._attempts >= limits.CONNECT_ATTEMPTS:
            self.refused("unreachable", f"no instance of {throttler.revision} can be reached: {error}")
            return
        other = throttler.reserve(now, self._gate.chance())
        if other is not None:
            self._send(other, now)
        else:
            self._wait(throttler, now, first=True)

    def _attach(self, back: Back) -> None:
        self.back = back
        choice = self._choice
        assert choice is not None
        if choice.special:
            self.marked = choice.server_timing
            self.idle_s = choice.idle_s
            self.active_at = self.sent_at
            self._set_due(choice)
            if self._gate.tracer is not None:
                self._gate.tracer.begin(self._gate, self)
        pending, self._pending = self._pending, None
        back.start(self, self.front.forwarded(self.request), pending)
        if self.body_done and self.request.length == CHUNKED:
            back.send_end(self._trailers)
        if pending:
            self.front.resume()

    # -- the request's body ---------------------------------------------------------------------------------------------------

    @property
    def owed(self) -> bool:
        """Whether the client owes more of the body: it was asked for, and no answer has begun."""
        return not (self.body_done or self.answering or (self.request.expects and not self.received_bytes))

    def body(self, data: bytes) -> None:
        """A piece of the request's body came."""
        self.received_bytes += len(data)
        if self._choice is not None and self.received_bytes > self._choice.body_most_bytes:
            self.failed("body-too-large", f"the body is above {self._choice.body_most_bytes} bytes")
        elif self.back is not None:
            self.back.send(data)
        elif not self.ended:
            if self._pending is None:
                self._pending = []
            self._pending.append(data)
            self._pending_bytes += len(data)
            if self._pending_bytes > limits.BUFFERED_BYTES:
                self.front.pause()

    def body_end(self, trailers: Trailers) -> None:
        """The request's body is whole."""
        self.body_done = True
        self._trailers = trailers
        if self.back is not None and self.request.length == CHUNKED:
            self.back.send_end(trailers)

    # -- out ------------------------------------------------------------------------------------------------------------------

    def informed(self, response: Response) -> None:
        """The instance said 1xx: passed on to clients that understand it, up to a number."""
        self._informed += 1
        if self._informed > limits.INTERIM_MOST:
            self.failed("bad-response", f"the instance said more than {limits.INTERIM_MOST} interim answers (1xx)")
        elif not self.request.http10:
            self.front.inform(response)

    def answered(self, response: Response, body: bytes, whole: bool, now: float) -> None:
        """The head of the answer, with what came of its body; `whole`: that is all of it. Without a target it is our own."""
        if not whole:
            self._stats.first_byte.add(now - self.started)
        target = self._target
        if target is not None:
            if target.doubted and self.throttler is not None:
                self._gate.admitter.answered(self.throttler, target)
            if self.cause_id:
                self._tell("first byte", instance=target.instance, status=response.status)
        if self.marked:
            response = response.adding(b"Server-Timing", server_timing(self, now))
        self.answering = True
        self.status = response.status
        self.sent_bytes = len(body)
        self.front.answer(self, response, body, whole)
        if whole:
            self._finish(now, at_once=True)
        elif self._choice is not None and self._choice.start_s:
            self._set_due(self._choice)

    def piece(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        self.front.piece(data)

    def whole(self, trailers: Trailers) -> None:
        """The answer is whole."""
        self.front.end(trailers)
        self._finish(self._gate.now())

    def upgraded(self, response: Response, data: bytes) -> None:
        """A WebSocket stands: bytes go both ways until one side ends it or its time is over."""
        now = self._gate.now()
        self._stats.first_byte.add(now - self.started)
        self.answering = self._tunnelled = True
        self.status = 101
        self.sent_bytes = len(data)
        assert self._choice is not None
        self.front.due = self.started + self._choice.timeout_s
        self.front.tunnel(self, response, data)

    def tunnel_ended(self) -> None:
        """The instance ended the WebSocket."""
        self.back = None
        self.front.end(())
        self._finish(self._gate.now())

    def leave(self, last: bytes) -> None:
        """End the WebSocket from here; `last` is still sent to the instance."""
        if self.back is not None:
            self.back.leave(last)
        self._finish(self._gate.now())

    # -- endings --------------------------------------------------------------------------------------------------------------

    def refused(self, reason: str, message: str = "", retry_after_s: float = 0) -> None:
        """Answer with an error of our own; nothing of an answer was sent."""
        if self.ended:
            return
        self.reason = reason
        self.status = TABLE[reason].status
        self._gate.metrics.refused(reason, self._stats)
        if self.cause_id:
            self._tell("request refused", reason=reason, message=message)
        self.front.refuse(self, reason, message, retry_after_s)
        self._finish(self._gate.now())

    def failed(self, reason: str, message: str) -> None:
        """Something broke on the way: an error while that is possible, a visible cut after the first byte."""
        if self.ended:
            return
        unanswered = self.back is not None and not self.answering
        self._drop()
        if unanswered and self._target is not None and reason in UNANSWERED and self.throttler is not None:
            self._gate.admitter.unanswered(self.throttler, self._target)
        if not self.answering:
            self.refused(reason, message)
            return
        self.reason = reason
        self.cut = True
        self._gate.metrics.refused(reason, self._stats)
        self.front.cut()
        self._finish(self._gate.now())

    def client_gone(self) -> None:
        """The client went away: out of the line, and the instance hears of it by a closed connection."""
        if self.ended:
            return
        now = self._gate.now()
        self._drop()
        if not self._tunnelled:
            self.cut = True
            self.reason = "client-gone"
            if not self.answering:
                self.status = 499
        self._finish(now)

    def expired(self, now: float) -> None:
        """`front.due` has come: look which of the three clocks it was."""
        choice = self._choice
        if choice is None or self.ended:
            return
        if now >= self.started + choice.timeout_s:
            if self._tunnelled and self.front.go_away():
                return
            self.failed("timeout", f"the request took longer than {choice.timeout_s:g} s")
        elif self.back is not None and choice.start_s and not self.answering and now >= self.sent_at + choice.start_s:
            self.failed("timeout", f"the answer did not start within {choice.start_s:g} s")
        elif self.back is not None and self.idle_s and not self._tunnelled and now >= self.active_at + self.idle_s:
            self.failed("timeout", f"the instance sent nothing for {self.idle_s:g} s")
        else:
            self._set_due(choice)

    def _set_due(self, choice: Choice) -> None:
        due = self.started + choice.timeout_s
        if self.back is not None:
            if choice.start_s and not self.answering:
                due = min(due, self.sent_at + choice.start_s)
            if self.idle_s and not self._tunnelled:
                due = min(due, self.active_at + self.idle_s)
        self.front.due = due

    def _drop(self) -> None:
        if self.back is not None:
            self.back.drop()
            self.back = None

    def _finish(self, now: float, *, at_once: bool = False) -> None:
        """Once: give the slot back, count, log, and let the connection go on. `at_once`: the answer came whole with its head."""
        self.ended = True
        self.back = None
        target, throttler = self._target, self.throttler
        if throttler is not None:
            if self._waiter is not None:
                self._gate.admitter.leave(throttler, self._waiter, now)
                self._waiter = None
            if target is not None:
                if not self.answering and target.connections is not None:
                    target.connections.dialling.pop(self, None)
                self._target = None
                self._gate.admitter.release(throttler, target, now)
        if self.crowd is not None:
            self.crowd.leave()
        stats = self._stats
        if stats is not None:
            stats.by_class[self.status // 100] += 1
            (stats.at_once if at_once else stats.total).add(now - self.started)
            stats.sent_bytes += self.sent_bytes
            stats.received_bytes += self.received_bytes
            if self.waited_s:
                stats.queue.add(self.waited_s)
        if self._gate.recording:
            self._gate.record(self, self._choice, target, now)
        self.front.over(self, now)

    def _tell(self, what: str, *, instance: str = "", **detail: Any) -> None:
        revision = self._choice.revision if self._choice is not None else ""
        self._gate.tell(what, cause_id=self.cause_id, instance=instance, revision=revision, **detail)
