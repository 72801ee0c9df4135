"""Certificates and their keys: what is served, what is refused and how; and what the local authority signs."""

import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from registry import authority, pair
from registry.authority import Authority
from tests.certificates import World

NOW = time.time()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, password: bytes = b"") -> bytes:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def test_what_the_authority_issues_is_read_with_names_and_times(world: World) -> None:
    made = world.authority.issue(("*.p.localhost", "127.0.0.1"), NOW)
    read = pair.read(made.chain.encode(), made.key)
    assert read.hosts == ("*.p.localhost", "127.0.0.1")
    assert abs(read.not_after - NOW - authority.LIFETIME_S) < 2
    assert read.not_before < NOW


def test_a_private_key_that_stands_among_the_certificates_is_left_out_of_the_chain(world: World) -> None:
    made = world.authority.issue(("a.localhost",), NOW)
    read = pair.read(made.key + made.chain.encode() + world.ca.read_bytes(), made.key)
    assert "PRIVATE" not in read.chain
    assert read.chain.count("BEGIN CERTIFICATE") == 2


def test_what_cannot_be_served_is_refused_with_the_reason_and_without_the_key(world: World) -> None:
    one, two = world.authority.issue(("a.localhost",), NOW), world.authority.issue(("b.localhost",), NOW)
    short, ed = rsa.generate_private_key(65537, 1024), ed25519.Ed25519PrivateKey.generate()
    for chain, key, says in (
        (one.chain.encode(), two.key, "not the first certificate's"),
        (b"nothing", one.key, "no certificates"),
        (one.chain.encode(), b"nothing", "no private key"),
        (one.chain.encode(), pem(short, b"password"), "encrypted"),
        (one.chain.encode(), pem(short), "1024 bits; at least 2048"),
        (one.chain.encode(), pem(ed), "neither RSA nor EC"),
        (world.ca.read_bytes(), (world.ca.parent / "ca.key").read_bytes(), "names no host"),
    ):
        with pytest.raises(pair.BadPair, match=says) as error:
            pair.read(chain, key)
        assert "\n" not in str(error.value)


def test_the_authoritys_key_is_for_its_owner_alone_and_it_is_no_good_for_other_sites(world: World, tmp_path: Path) -> None:
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    context, theirs = ssl.create_default_context(cafile=world.ca), world.authority.issue(("example.com",), NOW)
    for issued, name, accepted in (
        (theirs, "example.com", False),
        (world.authority.issue(("*.p.localhost",), NOW), "a.p.localhost", True),
        (world.authority.issue(("localhost", "127.0.0.1", "::1"), NOW), "127.0.0.1", True),
    ):
        assert handshake(context, issued, name, tmp_path) is accepted


def handshake(context: ssl.SSLContext, served: pair.Pair, name: str, directory: Path) -> bool:
    """Whether a client of `context` that asked for `name` accepts what is served."""
    (directory / "served.pem").write_bytes(served.chain.encode() + served.key)
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    other.load_cert_chain(directory / "served.pem")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    server = other.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return client.version() is not None


def test_an_authority_fits_its_domain_while_it_outlives_what_it_signs(world: World, tmp_path: Path) -> None:
    assert authority.fits(world.ca, "localhost", NOW)
    assert not authority.fits(world.ca, "apps.test", NOW)
    assert not authority.fits(world.ca, "localhost", NOW + 3600 * 86_400)
    assert not authority.fits(tmp_path / "none", "localhost", NOW)
    (tmp_path / "broken").write_text("x")
    assert not authority.fits(tmp_path / "broken", "localhost", NOW)
    with pytest.raises(authority.NoAuthority):
        Authority(tmp_path / "none", tmp_path / "ca.key")
    with pytest.raises(authority.NoAuthority):
        Authority(tmp_path / "broken", tmp_path / "ca.key")
