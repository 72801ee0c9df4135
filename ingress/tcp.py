"""One connection of a raw TCP service: admitted like a request, then bytes both ways.

    opened ─▶ revision by weight ─▶ reserve ────────────▶ dial ─▶ joined ─▶ both halves closed ─▶ over
                  │                   └▶ wait ─▶ dispatched ┘ ▲
                  ▼                        │     unreachable ─┘ (nothing was sent yet)
                reset ◀── queue-full, cannot-start, timeout ┘

A connection is one request in flight at its instance for as long as it is open. Who cannot be served is reset: an orderly end would
say that the service had nothing to say. A reset on one side becomes one on the other, an end of one half an end of that half.
"""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

from activator.balance import Target
from activator.breaker import Waiter
from activator.throttler import Throttler
from ingress import limits
from ingress.access_log import Line
from ingress.gate import Gate
from ingress.pool import Pool
from ingress.refusals import TABLE
from ingress.traffic import Choice
from ingress.upstream import dial
from process.ids import cause_id

if TYPE_CHECKING:
    from ingress.listener import Listener

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(transport: Any) -> None:
    """Close so that the peer sees a reset, not an end."""
    try:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # It is closed already.
    transport.abort()


class Half(asyncio.Protocol):
    """One of the two connections: what comes in on it goes out on `other`, no faster than that can be written."""

    transport: Any = None
    other: "Half | None" = None
    ended = False
    """Its peer has said that nothing more comes."""
    bytes_in = 0

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.active_at = gate.now()

    def data_received(self, data: bytes) -> None:
        self.active_at = self.gate.now()
        self.bytes_in += len(data)
        self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self.active_at = self.gate.now()
        if self.other is not None:
            self.end_other(self.other)
        return True

    def end_other(self, other: "Half") -> None:
        """Our peer says nothing more, so `other`'s is told; when neither says more, both connections are over."""
        if other.transport.is_closing():
            return
        if other.ended:
            other.transport.close()
            self.transport.close()
        else:
            other.transport.write_eof()

    def pause_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Gone: in order when both halves had ended, else the other side must see that it was not."""
        other, self.other = self.other, None
        if other is not None:
            other.other = None
            if not (self.ended and other.ended):
                reset(other.transport)
        self.gone()

    def gone(self) -> None:
        raise NotImplementedError


class TcpInstance(Half):
    """The instance's side."""

    def __init__(self, gate: Gate, client: "TcpClient") -> None:
        super().__init__(gate)
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)
        self._client.joined(self)

    def gone(self) -> None:
        self._client.instance_gone()


class TcpClient(Half):
    """The client's side, and what it was admitted to. `due`, `expired` and `wind_up` are for the listener."""

    due = float("inf")
    _throttler: Throttler[Any] | None = None
    _waiter: Waiter[Any] | None = None
    _target: Target | None = None
    _instance: TcpInstance | None = None
    _lost = _over = False
    _attempts = _status = 0
    _waited_s = 0.0
    _cause_id = _reason = _name = ""

    def __init__(self, listener: "Listener", gate: Gate, port: int) -> None:
        super().__init__(gate)
        self._listener = listener
        self._port = port
        self._early = bytearray()
        """What the client said before there was an instance."""
        self._started = self.active_at
        self._choice: Choice | None = None
        self._stats: Any = None

    # -- in -------------------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.TCP_KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.TCP_KEEPALIVE_S // 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        if full := self._listener.welcome(self):
            self.refused(full)
            return
        gate = self.gate
        split = gate.routes.ports.get(self._port)
        choice = None if split is None else split.pick(gate.chance())
        if choice is None:
            self.refused("no-route", f"no service has port {self._port}")
            return
        self._choice = choice
        self._stats = choice.stats or gate.meet(choice)
        throttler = self._throttler = gate.admitter.throttler(choice.revision, choice.concurrency)
        target = throttler.reserve(self._started, gate.chance())
        if target is None:
            self._wait(throttler, self._started)
            return
        if throttler.quiet:
            gate.admitter.awake(throttler)
        self._dial(target)

    def pass_on(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
        elif not self._over:
            self._early += data
            if len(self._early) > limits.BUFFERED_BYTES:
                self.transport.pause_reading()

    # -- admission ------------------------------------------------------------------------------------------------------------

    def _wait(self, throttler: Throttler[Any], now: float, *, first: bool = False) -> None:
        assert self._choice is not None
        if not self._cause_id:
            self._cause_id = cause_id()
            self._tell("connection waiting", port=self._port, waiting=len(throttler.line))
        deadline = self._started + self._choice.timeout_s
        self._waiter = self.gate.admitter.arrive(throttler, self, now, deadline, self._cause_id, first=first)

    def dispatched(self, target: Target, waited_s: float) -> None:
        """There is a slot at `target` for this connection, after having waited."""
        self._waiter = None
        self._waited_s += waited_s
        self._tell("dispatched", instance=target.instance, waited_ms=round(waited_s * 1000, 2))
        self._dial(target)

    def _dial(self, target: Target) -> None:
        self._target = target
        dialling = asyncio.get_running_loop().create_task(self._connect(target))
        self.gate.dials.add(dialling)
        dialling.add_done_callback(self.gate.dials.discard)

    async def _connect(self, target: Target) -> None:
        """Make the connection to `target` and join the two. An instance that serves others is not dead when its backlog is full."""
        gate = self.gate
        if target.connections is None:
            target.connections = Pool()
        pool: Pool = target.connections
        begun = gate.now()
        gate.metrics.upstream_connects += 1
        while True:
            tried = gate.now()
            try:
                sock = await dial(target)
                break
            except (OSError, TimeoutError) as error:
                if isinstance(error, TimeoutError) and pool.alive_at >= tried and not self._lost:
                    continue
                gate.metrics.upstream_failures += 1
                self._unreachable(target, str(error) or f"no connection within {limits.CONNECT_TIME_S:g} s")
                return
        pool.alive_at = gate.now()
        assert self._throttler is not None
        if target.failures or target.probing:
            gate.admitter.reached(self._throttler, target)
        if self._lost:
            sock.close()
            self._release()
            return
        self._stats.connect.add(gate.now() - begun)
        await asyncio.get_running_loop().create_connection(lambda: TcpInstance(gate, self), sock=sock)

    def _unreachable(self, target: Target, error: str) -> None:
        """Nothing was sent: another instance may have it, before all who wait."""
        gate, throttler = self.gate, self._throttler
        assert throttler is not None
        self._attempts += 1
        now = gate.now()
        gate.admitter.unreachable(throttler, target)
        self._release()
        if self._lost:
            return
        if self._attempts >= limits.CONNECT_ATTEMPTS:
            self.refused("unreachable", f"no instance of {throttler.revision} can be reached: {error}")
            return
        other = throttler.reserve(now, gate.chance())
        if other is not None:
            self._dial(other)
        else:
            self._wait(throttler, now, first=True)

    def joined(self, made: TcpInstance) -> None:
        """From here on each side's bytes are the other's."""
        self._instance = made
        if self._lost:
            reset(made.transport)
            return
        assert self._choice is not None
        assert self._target is not None
        self._name = self._target.instance
        if self._cause_id:
            self._tell("connected", instance=self._name)
        self.other, made.other = made, self
        self._stats.tcp += 1
        self.due = self.gate.now() + (self._choice.idle_s or limits.TCP_IDLE_S)
        if self._early:
            made.transport.write(bytes(self._early))
            if len(self._early) > limits.BUFFERED_BYTES:
                self.transport.resume_reading()
            self._early.clear()
        if self.ended:
            self.end_other(made)

    # -- endings --------------------------------------------------------------------------------------------------------------

    def refused(self, reason: str, message: str = "", retry_after_s: float = 0) -> None:
        """It cannot be served: reset, counted, and told."""
        self._reason, self._status = reason, TABLE[reason].status
        self.gate.metrics.refused(reason, self._stats)
        if self._cause_id:
            self._tell("connection refused", reason=reason, message=message)
        reset(self.transport)

    def expired(self, now: float) -> None:
        """`due` has come: has neither side said anything for too long?"""
        assert self._choice is not None
        idle_s = self._choice.idle_s or limits.TCP_IDLE_S
        active_at = max(self.active_at, self._instance.active_at if self._instance is not None else 0.0)
        if now < active_at + idle_s:
            self.due = active_at + idle_s
            return
        self._reason = "timeout"
        self.gate.metrics.refused("timeout", self._stats)
        self.due = float("inf")
        for half in (self, self._instance):
            if half is not None:
                half.ended = True
                reset(half.transport) if half.transport.get_write_buffer_size() else half.transport.close()

    def wind_up(self, *, close_idle: bool) -> None:
        """Draining: what is open may end by itself, until the drain time is over."""

    def gone(self) -> None:
        """The client's connection is closed."""
        self._lost = True
        self._early.clear()
        self._listener.farewell(self)
        if self._waiter is not None and self._throttler is not None:
            self.gate.admitter.leave(self._throttler, self._waiter, self.gate.now())
            self._waiter = None
        if self._instance is None or self._target is None:
            self._finish()

    def instance_gone(self) -> None:
        """The instance's connection is closed: its slot is free, whatever the client still has to read."""
        self._release()
        if self._lost:
            self._finish()

    def _release(self) -> None:
        target, self._target = self._target, None
        if target is not None and self._throttler is not None:
            self.gate.admitter.release(self._throttler, target, self.gate.now())

    def _finish(self) -> None:
        """Once: count and log."""
        if self._over:
            return
        self._over = True
        now, stats, gate = self.gate.now(), self._stats, self.gate
        sent = self._instance.bytes_in if self._instance is not None else 0
        if stats is not None:
            stats.sent_bytes += sent
            stats.received_bytes += self.bytes_in
            if self._instance is not None:
                stats.total.add(now - self._started)
            if self._waited_s:
                stats.queue.add(self._waited_s)
        if gate.access.mode == "off" or not gate.access.wants(self._status):
            return
        peer = self.transport.get_extra_info("peername")
        gate.access.write(
            Line(
                at=gate.clock.wall(),
                client=str(peer[0]) if peer else "",
                method="",
                host="",
                target=f":{self._port}",
                status=self._status,
                took_s=round(now - self._started, 6),
                request_id="",
                revision=self._choice.revision if self._choice is not None else "",
                instance=self._name,
                sent_bytes=sent,
                queued_s=round(self._waited_s, 6),
                reason=self._reason,
                cause_id=self._cause_id,
                protocol="TCP",
            )
        )

    def _tell(self, what: str, *, instance: str = "", **detail: Any) -> None:
        revision = self._choice.revision if self._choice is not None else ""
        self.gate.tell(what, cause_id=self._cause_id, instance=instance, revision=revision, **detail)
