"""One connection of TLS: the socket's protocol below, and the transport of HTTP above.

    first bytes ─▶ (no TLS: 400) ─▶ handshake ─▶ HTTP/1 or HTTP/2, by ALPN

Records are opened and made in memory (`ssl.MemoryBIO`), so that the handshake is one more state of a connection that the listener
counts and whose deadline it keeps, and plain HTTP at this port gets an answer that helps.
"""

import asyncio
import ssl
from typing import Any

from ingress import limits
from ingress.client import Client
from ingress.gate import Gate
from ingress.handshake import Handshakes, Session
from ingress.http2 import Http2
from ingress.listener import Listener
from ingress.refusals import answer_of
from ingress.secure import SecureClient, SecureHttp2

_HANDSHAKE = 22
"""The first byte of a client that speaks TLS: a record of type handshake."""


class Tls(asyncio.Protocol):
    """Has what HTTP/1 and HTTP/2 ask of a transport."""

    __slots__ = (
        "_app", "_closing", "_gate", "_handshakes", "_incoming", "_listener", "_outgoing", "_paused", "due", "session",
        "transport",
    )  # fmt: skip

    def __init__(self, listener: "TlsListener", gate: Gate, handshakes: Handshakes) -> None:
        self._listener = listener
        self._gate = gate
        self._handshakes = handshakes
        self._app: Any = None
        self._closing = self._paused = False
        self.session: Session | None = None
        self.transport: Any = None
        """The socket's."""
        self.due = 0.0

    # -- the socket's protocol ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.due = self._gate.now() + self._gate.bounds.header_time_s
        if full := self._listener.welcome(self):
            self._gate.metrics.refused(full)
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._app is not None:
            self._incoming.write(data)
            self._read()
        elif self.session is not None or self._begin(data):
            self._handshake(data)

    def eof_received(self) -> None:
        if self._app is not None:
            self._app.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        if self._app is not None:
            self._app.connection_lost(error)
        else:
            self._listener.farewell(self)

    def pause_writing(self) -> None:
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    # -- the handshake --------------------------------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> bool:
        """Whether the first bytes are TLS; else they are answered as well as can be."""
        if data[0] == _HANDSHAKE:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.session = self._handshakes.begin(self._incoming, self._outgoing)
            return True
        self._gate.metrics.refused("plain-http")
        if data[:1].isalpha():
            tail = b"Connection: close\r\n" + self._listener.date()
            self.transport.write(answer_of("plain-http", "", 0, "", tail, bodiless=data.startswith(b"HEAD ")))
        self._closing = True
        self._linger()
        return False

    def _handshake(self, data: bytes) -> None:
        session = self.session
        assert session is not None
        self._incoming.write(data)
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            # What chose no certificate is a callback, as far as the library knows.
            unknown = error.reason == "CALLBACK_FAILED" and session.certificate is None
            self._gate.metrics.handshake("unknown-name" if unknown else error.reason or "failed")
            self._flush()
            self._closing = True
            self._linger()
            return
        self._flush()
        self._gate.metrics.handshake("resumed" if session.session_reused else "full")
        self._app = self._listener.open(self, session.selected_alpn_protocol())
        if self._incoming.pending:
            self._read()

    def _linger(self) -> None:
        """End our half, and read on a little: closed with bytes unread, the kernel would drop our last words."""
        self.due = self._gate.now() + limits.LINGER_S
        self.transport.write_eof()

    def expired(self, now: float) -> None:
        """Before the handshake's end the listener keeps our deadline."""
        if not self._closing:
            self._gate.metrics.handshake("timeout")
        self.abort()

    def wind_up(self, *, close_idle: bool) -> None:
        """Draining: a handshake that has not begun is not waited for."""
        if close_idle and self.session is None:
            self.abort()

    # -- records --------------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Give what came to the protocol above."""
        session, incoming = self.session, self._incoming
        assert session is not None
        try:
            while not self._paused and not self._closing:
                data = session.read(limits.RECORD_BYTES)
                if not data:
                    self._app.eof_received()
                    self.close()
                    return
                self._app.data_received(data)
                if not incoming.pending and not session.pending():
                    return
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()
            self.abort()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.transport.write(self._outgoing.read())

    # -- the transport of HTTP ------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._closing or not data:
            return
        session = self.session
        assert session is not None
        sent = session.write(data)
        while sent < len(data):
            sent += session.write(data[sent:])
        self.transport.write(self._outgoing.read())

    def pause_reading(self) -> None:
        self._paused = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self.transport.resume_reading()
        session = self.session
        if self._incoming.pending or (session is not None and session.pending()):
            asyncio.get_running_loop().call_soon(self._read)

    def close(self) -> None:
        self._say_goodbye()
        self.transport.close()

    def abort(self) -> None:
        self._closing = True
        self.transport.abort()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """From now on nothing is sent, and what comes is dropped."""
        self._say_goodbye()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def is_closing(self) -> bool:
        return self._closing or bool(self.transport.is_closing())

    def set_protocol(self, app: asyncio.Protocol) -> None:
        self._app = app

    def set_write_buffer_limits(self, high: int) -> None:
        self.transport.set_write_buffer_limits(high=high)

    def get_extra_info(self, name: str) -> Any:
        return self.transport.get_extra_info(name)

    def _say_goodbye(self) -> None:
        """close_notify: the client can tell an end from a cut."""
        session = self.session
        if self._closing or session is None:
            return
        self._closing = True
        try:
            session.unwrap()
        except ssl.SSLError:
            pass  # it wants to read the client's, which is not waited for
        self._flush()


class TlsListener(Listener):
    """A listening address whose clients speak TLS; `handshakes` has the certificates."""

    def __init__(self, gate: Gate, handshakes: Handshakes) -> None:
        super().__init__(gate, "https", lambda listener, gate: Tls(self, gate, handshakes))

    async def sweep(self) -> None:
        """Look at the clocks of these connections again and again. Never returns."""
        while True:
            await asyncio.sleep(limits.SWEEP_S)
            self.look(self._gate.clock.now())

    def open(self, tls: Tls, chosen: str | None) -> asyncio.Protocol:
        """The handshake of `tls` is over and protocol `chosen` (ALPN): what speaks it from here on."""
        assert tls.session is not None
        assert tls.session.certificate is not None
        certificate = tls.session.certificate
        if chosen == "h2":
            http2 = SecureHttp2(self, self._gate, certificate)
            self._succeed(tls, http2)
            http2.take_over(tls, b"")
            return http2
        client = SecureClient(self, self._gate, certificate)
        self._succeed(tls, client)
        client.connection_made(tls)  # type: ignore[arg-type]
        return client

    def _http2(self, client: Client) -> Http2:
        assert isinstance(client, SecureClient)
        return SecureHttp2(self, self._gate, client.certificate)
