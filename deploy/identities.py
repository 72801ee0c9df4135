"""The cluster's own authority, and the certificates by which its processes know each other.

    python -m deploy.identities issue --root /var/lib/ebb --role nodeagent --name node-2 --out DIR [--hours H]

`ebb up` makes the authority at the first start and renews what it issued while it runs. For machines that join, `issue` writes a
directory (ca.crt, own.pem) to be copied there and named with `--identity DIR`.
"""

import argparse
import os
import stat
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from process.identity import AGENT, AUTHORITY, BUS, INGRESS, OWN, ROLES, STORE, Who, who_in

LIFETIME_S = 24 * 3600.0
"""Of a certificate. It is renewed when a third of that is left."""
DIRECT = "direct.store.ebb"
"""In the certificates of who may speak to etcd itself (`--client-cert-allowed-hostname`); all others reach it by the gate."""
_AUTHORITY_LIFETIME = timedelta(days=3650)
_EARLY_S = 300.0
"""Clocks differ."""
_SERVES = {"etcd": STORE, "gate": STORE, "nats": BUS, "ingress": INGRESS, "nodeagent": AGENT}
_DIRECT = ("registry", "autoscaler", "gate", "etcd")


class NotIssued(Exception):
    """No authority, or no certificate; the message says why."""


class Identities:
    """The authority of the engine in `root`: made when it is not there. Raises NotIssued."""

    def __init__(self, root: Path, *, lifetime_s: float = LIFETIME_S) -> None:
        self._directory, self._lifetime_s = root / "identity", lifetime_s
        self.certificate, self.key = self._directory / AUTHORITY, root / "keys" / "cluster.key"
        try:
            for directory in (self._directory, self.key.parent):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                # No wider than deploy/owners.py makes them.
                directory.chmod(stat.S_IMODE(directory.stat().st_mode) & 0o1771)
            if not self.certificate.exists():
                _make(self.certificate, self.key, time.time())
            self._own = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            private = serialization.load_pem_private_key(self.key.read_bytes(), None)
        except OSError as error:
            raise NotIssued(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise NotIssued(f"{self.certificate}, {self.key}: {error}") from None
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self._private = private

    def directory(self, role: str) -> Path:
        """Where the files of this machine's processes of `role` are."""
        return self._directory / role

    def due(self, where: Path, now: float) -> bool:
        """Whether what is in `where` has to be issued (again)."""
        try:
            known = x509.load_pem_x509_certificate((where / OWN).read_bytes())
            ours = (where / AUTHORITY).read_bytes() == self.certificate.read_bytes()
        except (OSError, ValueError):
            return True
        begin, end = known.not_valid_before_utc.timestamp(), known.not_valid_after_utc.timestamp()
        return not ours or now > end - (end - begin) / 3

    def joined(self) -> set[Who]:
        """Whom of other machines certificates were issued to."""
        return {who for line in _lines(self._directory / "issued") if (who := who_in([line])) is not None}

    def shut_out(self) -> set[str]:
        """URIs that the gate and NATS refuse, however good their certificates are."""
        return set(_lines(self._directory / "gate" / "revoked"))

    def join(self, who: Who) -> None:
        """Remember that `who`, of another machine, is to be let in."""
        if who not in self.joined():
            with (self._directory / "issued").open("a") as file:
                file.write(who.uri + "\n")

    def issue(self, who: Who, where: Path, now: float, *, hosts: Sequence[str] = (), uid: int = -1) -> None:
        """Write ca.crt and own.pem into `where` (0700, 0600, of user and group `uid`); a reader sees the old or the new one, whole."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(who.uri)]
        if who.role in _SERVES:
            names += [x509.DNSName(_SERVES[who.role])]
        if who.role in _DIRECT:
            names += [x509.DNSName(DIRECT)]
        names += [_general(host) for host in (*hosts, *(("localhost", "127.0.0.1") if who.role == "etcd" else ()))]
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * (who.role in _SERVES)
        begin = now - min(_EARLY_S, self._lifetime_s / 10)
        made = (
            _builder(x509.Name([]), self._own.subject, key.public_key(), begin, now + self._lifetime_s)
            # An empty subject makes the names critical (RFC 5280 §4.1.2.6); and etcd's RBAC, which reads it, finds nobody.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._private.public_key()), critical=False)
            .sign(self._private, hashes.SHA256())
        )
        try:
            where.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(where / AUTHORITY, self.certificate.read_bytes(), 0o644)
            _write(where / OWN, made.public_bytes(serialization.Encoding.PEM) + _pem(key), 0o600, uid)
        except OSError as error:
            raise NotIssued(f"{error.filename}: {error.strerror}") from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []


def _make(certificate: Path, key: Path, now: float) -> None:
    """The key first: where the certificate is, both are whole."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Ebb cluster authority {datetime.fromtimestamp(now, UTC):%Y-%m-%d}")]
    )
    made = (
        _builder(name, name, private.public_key(), now - _EARLY_S, now + _AUTHORITY_LIFETIME.total_seconds())
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .sign(private, hashes.SHA256())
    )
    _write(key, _pem(private), 0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: float, end: float
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(datetime.fromtimestamp(begin, UTC)).not_valid_after(datetime.fromtimestamp(end, UTC))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, data: bytes, mode: int, uid: int = -1) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchown(file.fileno(), uid, uid)
        os.fchmod(file.fileno(), mode)  # whatever umask the administrator has: not all who read it are root
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def main(argv: Sequence[str] | None = None) -> None:
    """`issue`: a certificate for a process of another machine."""
    parser = argparse.ArgumentParser(prog="python -m deploy.identities", description=main.__doc__)
    issue = parser.add_subparsers(required=True).add_parser("issue", help=main.__doc__)
    issue.add_argument("--root", type=Path, default=Path("/var/lib/ebb"), help="where the authority is, or is made")
    issue.add_argument("--role", required=True, choices=ROLES)
    issue.add_argument("--name", required=True, help="of a node agent: its node's, as in --node")
    issue.add_argument("--host", action="append", default=[], help="a further name or address it is reached at")
    issue.add_argument("--out", required=True, type=Path)
    issue.add_argument("--hours", type=float, default=LIFETIME_S / 3600)
    given = parser.parse_args(argv)
    try:
        made = Identities(given.root, lifetime_s=given.hours * 3600)
        who = who_in([Who(given.role, given.name).uri])
        if who is None:
            sys.exit(f"not issued: --name {given.name!r}: want letters, digits, dots and dashes, as a machine is called")
        made.issue(who, given.out, time.time(), hosts=given.host)
        made.join(who)
    except (NotIssued, ValueError) as error:
        sys.exit(f"not issued: {error}")


if __name__ == "__main__":
    main()
