"""HTTP inside TLS: as HTTP always is, but that a request must be for a host of the certificate that the connection was given.

A host outside it is another's as far as this connection can prove: 421 (RFC 9110 §15.5.20), and the client tries again on a connection of
that host's own. Within one certificate, connections may be shared by hosts as HTTP/2's clients do.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from ingress import limits
from ingress.client import Client
from ingress.gate import Gate
from ingress.heads2 import request_of
from ingress.hosts import canonical
from ingress.http1 import Request
from ingress.http2 import Http2
from ingress.refusals import Refused
from store.certificates import Certificate

if TYPE_CHECKING:
    from ingress.listener import Listener


class Scope:
    """The hosts that one connection may speak of."""

    __slots__ = ("_certificate", "_last")

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate
        self._last = b""

    def check(self, request: Request) -> Request:
        """`request`, if it may come by this connection. Raises Refused."""
        host = request.host
        if host == self._last:
            return request
        name = canonical(host).strip("[]")
        if not self._certificate.covers(name):
            shown = ", ".join(self._certificate.hosts[:3])
            raise Refused(
                "misdirected", f"this connection's certificate is for {shown}; ask for {name} on one of its own (SNI)"
            )
        self._last = host
        return request


class SecureClient(Client):
    """One client connection speaking HTTP/1 inside TLS."""

    __slots__ = ("_scope", "certificate")
    secure = True

    def __init__(self, listener: "Listener", gate: Gate, certificate: Certificate) -> None:
        super().__init__(listener, gate)
        self.certificate = certificate
        self._scope = Scope(certificate)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over; the listener knows the connection since it was accepted."""
        self.transport = transport
        self.due = self._gate.now() + self._gate.bounds.header_time_s
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)

    def _start(self, request: Request, rest: bytes = b"") -> bytes:
        try:
            self._scope.check(request)
        except Refused as refused:
            self._refuse_head(refused)
            return b""
        return super()._start(request, rest)


class SecureHttp2(Http2):
    """One client connection speaking HTTP/2 inside TLS."""

    secure = True

    def __init__(self, listener: "Listener", gate: Gate, certificate: Certificate) -> None:
        super().__init__(listener, gate)
        self._scope = Scope(certificate)

    def request_of(self, headers: Any, ended: bool) -> Request:
        return self._scope.check(request_of(headers, ended))
