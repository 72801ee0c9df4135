"""Who a process is to the others: a certificate of the cluster's own authority, whose URI says role and name.

    identity = Identity("/var/lib/ebb/identity/registry")     # ca.crt, own.pem (certificate and key, 0600)
    identity.who                                              # Who("registry", "box")

The files are replaced while the process runs (deploy/identities.py): whoever makes a connection asks for a new context, and so has
the newest. What a server is called in its certificate says what it is (`STORE`, `BUS`, `INGRESS`), wherever it listens: a
certificate of one kind is of no use to play another.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from process import logs

AUTHORITY, OWN = "ca.crt", "own.pem"
STORE, BUS, INGRESS, AGENT = "store.ebb", "bus.ebb", "ingress.ebb", "nodeagent.ebb"
"""Names of servers in their certificates."""
ROLES = ("registry", "autoscaler", "ingress", "nodeagent", "gate", "etcd", "nats", "cli")
_URI = re.compile(r"ebb://([a-z]+)/([A-Za-z0-9][A-Za-z0-9.-]{0,252})")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.S)
_KEY = re.compile(rb"-----BEGIN (?:EC )?PRIVATE KEY-----.+?-----END (?:EC )?PRIVATE KEY-----\n?", re.S)


_log = logs.get("identity")


class BadIdentity(Exception):
    """There is none to be had from these files; the message says why, and the cure."""


@dataclass(frozen=True, slots=True)
class Who:
    """A role, and a name in it: of a node agent, its node's."""

    role: str
    name: str

    @property
    def uri(self) -> str:
        return f"ebb://{self.role}/{self.name}"


@dataclass(frozen=True, slots=True)
class Material:
    """PEM of the authority, of the own certificate, and of its key."""

    authority: bytes
    certificate: bytes
    key: bytes


class Identity:
    """The files in `directory`, read anew whenever they are asked for. Raises BadIdentity."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        own = self.certificate()
        who = who_of(own)
        if who is None:
            raise BadIdentity(f"{self.directory / OWN}: the certificate has no URI such as ebb://ingress/box")
        self.who = who

    def material(self) -> Material:
        own = self._read(OWN)
        key = _KEY.search(own)
        if key is None:
            raise BadIdentity(f"{self.directory / OWN}: no private key in it")
        return Material(self._read(AUTHORITY), b"".join(_CERTIFICATE.findall(own)), key.group())

    def certificate(self) -> x509.Certificate:
        try:
            return x509.load_pem_x509_certificate(self._read(OWN))
        except ValueError as error:
            raise BadIdentity(f"{self.directory / OWN}: {error}") from None

    def stamp(self) -> tuple[int, int]:
        """Another one when the certificate was replaced; (0, 0) while it is not there."""
        try:
            stat = (self.directory / OWN).stat()
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_ino)

    def look_every_s(self) -> float:
        """How often it is worth a look whether the certificate was replaced: many times in what is left after a renewal."""
        own = self.certificate()
        return min(30.0, (own.not_valid_after_utc - own.not_valid_before_utc).total_seconds() / 40)

    def client(self, server: Who | None = None) -> ssl.SSLContext:
        """To dial with: TLS 1.3, the authority's servers alone, our own certificate. `server`: none but that one, of its role."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if server is not None:
            context.sslobject_class = _only(server)
        return self._context(context)

    def server(self) -> ssl.SSLContext:
        """To listen with: a client without a certificate of the authority is refused."""
        return self._context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def reload(self, context: ssl.SSLContext) -> None:
        """Let a context serve the renewed certificate, to who connects from now on."""
        try:
            context.load_cert_chain(self.directory / OWN)
        except (OSError, ssl.SSLError) as error:
            raise BadIdentity(f"{self.directory}: {error}") from None

    def _context(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.directory / AUTHORITY)
            context.load_cert_chain(self.directory / OWN)
        except (OSError, ssl.SSLError) as error:
            raise BadIdentity(f"{self.directory}: {error}") from None
        return context

    def _read(self, name: str) -> bytes:
        path = self.directory / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadIdentity(
                f"--identity {self.directory}: {path}: {error.strerror}; `python -m deploy.identities issue` makes it"
            ) from None


async def when_renewed(identity: Identity, renewed: Callable[[], None]) -> None:
    """Call `renewed` each time the certificate was replaced; never returns."""
    known, every_s = identity.stamp(), identity.look_every_s()
    while True:
        await asyncio.sleep(every_s)
        now = identity.stamp()
        if now in (known, (0, 0)):
            continue
        try:
            renewed()
            every_s = identity.look_every_s()
        except BadIdentity as error:
            _log.error("the renewed certificate cannot be used; looking again", error=str(error))
            continue
        known = now


def who_of(certificate: x509.Certificate) -> Who | None:
    """Whom it names: it must have exactly one URI, of ours."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    return who_in(names.get_values_for_type(x509.UniformResourceIdentifier))


def who_in(uris: list[str]) -> Who | None:
    """Whom a certificate with these URIs names."""
    found = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    return Who(found[1], found[2]) if found is not None and found[1] in ROLES else None


def peer(transport: Any) -> Who | None:
    """Who is at the other end of a connection of `server()` or `client()`."""
    return _named(transport.get_extra_info("peercert"))


def caller(transport: Any, wall: float) -> Who | None:
    """`peer`, for as long as its certificate lasts: a connection may outlive it. None: nobody, or nobody any more."""
    told = transport.get_extra_info("peercert") if transport is not None else None
    if not told or wall >= ssl.cert_time_to_seconds(told["notAfter"]):
        return None
    return _named(told)


def _named(told: Any) -> Who | None:
    return who_in([value for kind, value in (told or {}).get("subjectAltName", ()) if kind == "URI"])


def _only(server: Who) -> type[ssl.SSLObject]:
    """Connections whose handshake fails unless `server` is at the other end: nothing is said to another."""

    class Only(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            found = _named(self.getpeercert())
            if found != server:
                raise ssl.SSLCertVerificationError(1, f"it is {found.uri if found else 'nobody'} and not {server.uri}")

    return Only
