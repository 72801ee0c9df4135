"""Sockets that clients connect to: accepting, deadlines of all connections, draining."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

from ingress import limits, silence, slow
from ingress.client import Client
from ingress.gate import Gate
from ingress.http1 import Request
from ingress.http2 import Http2
from ingress.proxies import fields
from ingress.tcp import reset
from ingress.upstream import close_idle
from process import logs

log = logs.get("ingress")

BACKLOG = 4096
_IP_FREEBIND = 15


def address_of(transport: Any) -> str:
    """The peer's address; known also when the connection is over."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else ""


class Listener:
    """One listening address. `scheme` is what clients speak on it, `serve` makes what speaks with each of them."""

    freely = False
    """The address may be one that the machine does not have yet."""

    def __init__(self, gate: Gate, scheme: str = "http", serve: "Callable[[Listener, Gate], Any]" = Client) -> None:
        self._gate = gate
        self._scheme = scheme
        self._serve = serve
        self._clients: set[Any] = set()
        self._server: asyncio.Server | None = None
        self._sock: socket.socket | None = None
        self._date = b""
        self._date_at = -1.0
        self._bodies_at = 0.0
        self.port = 0

    def __len__(self) -> int:
        return len(self._clients)

    async def start(self, address: str) -> None:
        """Listen on `host:port` (with SO_REUSEPORT, so that a successor can listen before this one stops)."""
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.freely:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            sock.bind((host.strip("[]") or "0.0.0.0", int(port)))
        except OSError as error:
            sock.close()
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}; choose another") from None
        loop = asyncio.get_running_loop()
        self._sock = sock.dup()
        self._server = await loop.create_server(lambda: self._serve(self, self._gate), sock=sock, backlog=BACKLOG)
        self.port = sock.getsockname()[1]

    async def sweep(self) -> None:
        """Look at all clocks again and again. Never returns."""
        clock = self._gate.clock
        upstreams_at = 0.0
        while True:
            due = clock.now() + limits.SWEEP_S
            await asyncio.sleep(limits.SWEEP_S)
            now = clock.now()
            self._gate.metrics.loop_late.add(max(0.0, now - due))
            if now - due > limits.STALL_S:
                log.warning("the event loop stalled", for_s=round(now - due, 3), limit_s=limits.STALL_S)
            if now >= upstreams_at:
                upstreams_at = now + limits.UPSTREAM_SWEEP_S
                close_idle(self._gate, now)
                silence.look(self._gate, now)
            self.look(now)
            for copy in [copy for copy in self._gate.copies if copy.due <= now]:
                copy.expired(now)

    def look(self, now: float) -> None:
        """Call `expired` on every connection whose time has come, and end bodies that drip."""
        bounds = self._gate.bounds
        if now >= self._bodies_at and bounds.body_rate_bytes_s:
            self._bodies_at = now + bounds.body_look_s
            slow.look(self._clients, bounds.body_rate_bytes_s * bounds.body_look_s)
        for client in [client for client in self._clients if client.due <= now]:
            client.expired(now)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, finish what runs, close. What is not over after `timeout_s` is cut."""
        gate, clock = self._gate, self._gate.clock
        gate.closing = True
        await self.stop_accepting()
        now = clock.now()
        end = now + timeout_s
        idle_end = now + min(limits.DRAIN_IDLE_S, timeout_s / 2)
        while self._clients and now < end:
            for client in list(self._clients):
                client.wind_up(close_idle=now >= idle_end)
            await asyncio.sleep(0.02)
            now = clock.now()
        if self._clients:
            log.warning("connections cut after the drain time", connections=len(self._clients), drain_timeout_s=timeout_s)
        for client in list(self._clients):
            reset(client.transport)
        close_idle(gate, float("inf"))
        await asyncio.sleep(0)

    async def stop_accepting(self) -> None:
        """Close the socket; who connected before that is still served, or the kernel would reset what waits to be accepted."""
        if self._server is None or self._sock is None:
            return
        server, sock = self._server, self._sock
        self._server = self._sock = None
        server.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sock.setblocking(False)
        waiting: list[socket.socket] = []
        try:
            while True:
                waiting.append(sock.accept()[0])
        except OSError:
            sock.close()
        loop = asyncio.get_running_loop()
        for each in waiting:
            await loop.connect_accepted_socket(lambda: self._serve(self, self._gate), each)

    # -- for its connections --------------------------------------------------------------------------------------------------

    def welcome(self, client: Any) -> str:
        """Count `client` in; why it cannot stay, as a row of the refusals, or nothing."""
        gate, address = self._gate, address_of(client.transport)
        gate.metrics.connections_total += 1
        self._clients.add(client)
        gate.metrics.connections += 1
        mine = gate.addresses[address] = gate.addresses.get(address, 0) + 1
        if gate.metrics.connections > gate.bounds.max_connections:
            return "overloaded"
        if 0 < gate.bounds.max_connections_per_address < mine and not gate.proxies.trust(address):
            return "address-full"
        return ""

    def speaks_http2(self, client: Client, data: bytes) -> None:
        """`client` is no HTTP/1: from `data`, its first bytes, on it is another's."""
        other = self._http2(client)
        self._succeed(client, other)
        other.take_over(client.transport, data)

    def _http2(self, client: Client) -> Http2:
        return Http2(self, self._gate)

    def _succeed(self, old: Any, new: Any) -> None:
        """`new` is the same connection in its next state."""
        self._clients.discard(old)
        self._clients.add(new)

    def farewell(self, client: Any) -> None:
        if client in self._clients:
            self._clients.discard(client)
            gate, address = self._gate, address_of(client.transport)
            gate.metrics.connections -= 1
            left = gate.addresses[address] = gate.addresses[address] - 1
            if not left:
                del gate.addresses[address]

    def about(self, client: Client | Http2, request: Request) -> tuple[bytes, bytes]:
        """`Forwarded` and `X-Forwarded-*` for `request` of `client`, and the host whose requests have the same, if any."""
        peer, proxies = client.client, self._gate.proxies
        if not proxies.trust(peer):
            return fields([peer], self._scheme, request.host), request.host
        path = proxies.path(peer, request.forwarded_for)
        request.client = path[0]
        return fields(path, proxies.scheme(peer, request.forwarded_proto, self._scheme), request.host), b""

    def date(self) -> bytes:
        """The `Date` field, made once a second."""
        now = self._gate.clock.wall()
        if now - self._date_at >= 1 or now < self._date_at:
            self._date_at = float(int(now))
            self._date = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now)).encode("ascii")
        return self._date
