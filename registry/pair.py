"""A certificate with its private key, in PEM: read and checked, or made. No message holds a key."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

RSA_BITS = 2048
PrivateKey = ec.EllipticCurvePrivateKey


class BadPair(ValueError):
    """It cannot be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """`chain`: PEM, the certificate itself first; `key`: PEM. `hosts` are its names, lower case, and addresses."""

    chain: str
    key: bytes
    hosts: tuple[str, ...]
    not_before: float
    not_after: float


def read(chain: bytes, key: bytes) -> Pair:
    """The pair, with nothing but certificates in the one and the key in the other. Raises BadPair."""
    certificates, private = certificates_in(chain), _key(key)
    first = certificates[0]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < RSA_BITS:
        raise BadPair(f"an RSA key of {private.key_size} bits; at least {RSA_BITS}")
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise BadPair("a key that is neither RSA nor EC, which browsers do not take")
    if private.public_key() != first.public_key():
        raise BadPair("the private key is not the first certificate's")
    names = names_of(first)
    if not names:
        raise BadPair("the certificate names no host (subjectAltName)")
    return Pair(
        chain="".join(_pem(each) for each in certificates),
        key=pem_of(private),
        hosts=names,
        not_before=first.not_valid_before_utc.timestamp(),
        not_after=first.not_valid_after_utc.timestamp(),
    )


def certificates_in(chain: bytes) -> list[x509.Certificate]:
    """Raises BadPair."""
    try:
        found = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise BadPair("no certificates in PEM (-----BEGIN CERTIFICATE-----)") from None
    return found


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Hosts and addresses of its subjectAltName."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    hosts = [host.lower() for host in found.get_values_for_type(x509.DNSName)]
    return (*hosts, *(str(address) for address in found.get_values_for_type(x509.IPAddress)))


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """The extension that names `hosts`, addresses among them."""
    return x509.SubjectAlternativeName([_name(host) for host in hosts])


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key(pem: bytes) -> object:
    try:
        return serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise BadPair("the private key is encrypted; give it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadPair("no private key in PEM (-----BEGIN PRIVATE KEY-----)") from None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
