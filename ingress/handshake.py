"""What a TLS handshake needs: one context that all connections begin with, and one a certificate that SNI turns to.

Protocols, ciphers and tickets are the first context's, so that a session is resumed also after its certificate was changed; a connection
keeps the certificate that it was given.
"""

import os
import ssl
import sys

from ingress.certificates import Certificates
from ingress.limits import CONTEXTS_MOST
from process import logs
from process.clock import Clock
from store.certificates import Certificate
from store.seal import Keyring, SealError

log = logs.get("ingress")

ALPN = ["h2", "http/1.1"]
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption. TLS 1.3 has no others."""


def unraised(what: "sys.UnraisableHookArgs") -> None:
    """For `sys.unraisablehook`: a server name that is not ASCII is raised where nobody can catch it, for each such client. Its handshake
    ends with an alert, and is counted; that is enough said of it."""
    if not isinstance(what.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(what)


class Session(ssl.SSLObject):
    """One connection's TLS."""

    certificate: Certificate | None = None
    """What the client was shown."""


class Handshakes:
    """Begins sessions; `ring` opens the certificates' private keys."""

    def __init__(self, certificates: Certificates, ring: Keyring, clock: Clock) -> None:
        self._certificates = certificates
        self._ring = ring
        self._clock = clock
        self._contexts: dict[str, tuple[Certificate, ssl.SSLContext]] = {}
        self._first = _context()
        self._first.sslobject_class = Session
        self._first.sni_callback = self._turn  # type: ignore[assignment]

    def begin(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> Session:
        """The server's side of a new connection."""
        return self._first.wrap_bio(incoming, outgoing, server_side=True)  # type: ignore[return-value]

    def _turn(self, session: Session, name: str | None, _: ssl.SSLContext) -> int | None:
        """The client has said which host it wants: take that host's certificate, or end the handshake with an alert."""
        certificate = self._certificates.choose(name or "", self._clock.wall())
        if certificate is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        context = self._context_of(certificate)
        if context is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        session.certificate = certificate
        session.context = context
        return None

    def _context_of(self, certificate: Certificate) -> ssl.SSLContext | None:
        known = self._contexts.pop(certificate.bound_to, None)
        if known is None or known[0] is not certificate:
            try:
                key = self._ring.open(certificate.key, bound_to=certificate.bound_to)
                known = certificate, _context(certificate.chain.encode() + b"\n" + key)
            except (SealError, OSError) as error:  # ssl.SSLError is an OSError
                log.error("certificate cannot be used", certificate=certificate.bound_to, error=str(error))
                return None
        self._contexts[certificate.bound_to] = known  # the last that was used is last
        if len(self._contexts) > CONTEXTS_MOST:
            del self._contexts[next(iter(self._contexts))]
        return known[1]


def _context(pem: bytes = b"") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(ALPN)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    if pem:
        # The library takes keys from files only: this one has no name and is gone at once.
        file = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(file, pem)
            context.load_cert_chain(f"/proc/self/fd/{file}")
        finally:
            os.close(file)
    return context
