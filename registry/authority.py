"""This engine's own certificate authority, for development: a key on this machine, and a certificate that `ebb trust` makes known.

It can sign for nothing but the engine's own domain and this machine (name constraints, RFC 5280 §4.2.1.10): who trusts it trusts it
with no other site.
"""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from registry import pair
from registry.pair import Pair

LIFETIME_S = 90 * 86_400.0
"""Of what it signs."""
_OWN_LIFETIME = timedelta(days=3650)
_EARLY = timedelta(hours=1)
"""Clocks differ."""


class NoAuthority(Exception):
    """It cannot be made or used; the message says why."""


def make(certificate: Path, key: Path, domain: str, now: float) -> None:
    """A new authority for hosts under `domain`: its key 0600. The certificate comes last: where it is, both are whole."""
    private, begin = pair.new_key(), datetime.fromtimestamp(now, UTC)
    name = pair.common_name(f"Ebb development authority ({domain}, {begin:%Y-%m-%d %H:%M:%S})")
    allowed: list[x509.GeneralName] = [x509.DNSName(each) for each in sorted({domain, "localhost"})]
    allowed += [x509.IPAddress(ip_network("127.0.0.0/8")), x509.IPAddress(ip_network("::1/128"))]
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    made = (
        _builder(name, name, private, begin, begin + _OWN_LIFETIME)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(x509.NameConstraints(allowed, None), critical=True)
        .add_extension(usage, critical=True)
        .sign(private, hashes.SHA256())
    )
    try:
        _write(key, pair.pem_of(private), 0o600)
        _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise NoAuthority(f"{error.filename}: {error.strerror}") from None


def fits(certificate: Path, domain: str, now: float) -> bool:
    """Whether there is an authority that may sign for `domain`, and lives longer than what it signs."""
    try:
        known = pair.certificates_in(certificate.read_bytes())[0]
        allowed = known.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or ()
    except (OSError, pair.BadPair, x509.ExtensionNotFound):
        return False
    long_enough = known.not_valid_after_utc.timestamp() - now > 2 * LIFETIME_S
    return long_enough and any(isinstance(each, x509.DNSName) and each.value == domain for each in allowed)


class Authority:
    """Signs with the key in a file. Raises NoAuthority."""

    def __init__(self, certificate: Path, key: Path) -> None:
        try:
            self._certificate = pair.certificates_in(certificate.read_bytes())[0]
            private = serialization.load_pem_private_key(key.read_bytes(), None)
        except OSError as error:
            raise NoAuthority(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise NoAuthority(f"{certificate}, {key}: {error}") from None
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._key = private
        self.id = self._certificate.fingerprint(hashes.SHA256()).hex()[:16]
        """Another authority has another."""

    def issue(self, hosts: tuple[str, ...], now: float) -> Pair:
        """A certificate for `hosts`, with a key of its own."""
        private, begin = pair.new_key(), datetime.fromtimestamp(now, UTC)
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        issuer = self._certificate
        public = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        end = begin + timedelta(seconds=LIFETIME_S)
        made = (
            _builder(pair.common_name(hosts[0]), issuer.subject, private, begin - _EARLY, end)
            .add_extension(pair.alternative_names(hosts), critical=False)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(public, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return pair.read(made.public_bytes(serialization.Encoding.PEM), pair.pem_of(private))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: pair.PrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
