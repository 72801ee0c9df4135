"""Whose word counts for an image."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519

from nodeagent.images.errors import Unsigned
from nodeagent.images.signatures import KIND, judge, public_key

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NAME = "ghcr.io/acme/app"
EC = ec.generate_private_key(ec.SECP256R1())
MALLORY = ec.generate_private_key(ec.SECP256R1())


def statement(name: str = NAME, digest: str = DIGEST, kind: str = KIND) -> bytes:
    critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}, "type": kind}
    return json.dumps({"critical": critical, "optional": None}).encode()


def signed(data: bytes, key: ec.EllipticCurvePrivateKey = EC) -> str:
    return base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode()


def pem(key: Any) -> str:
    form, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_key().public_bytes(form, kind).decode())


def test_a_statement_by_a_trusted_key_about_this_digest_here_counts() -> None:
    keys = [public_key(pem(MALLORY)), public_key(pem(EC))]
    assert judge(statement(), signed(statement()), keys, NAME, DIGEST) == ""


def test_ed25519_and_rsa_count_too() -> None:
    edwards, old = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    by_edwards = base64.b64encode(edwards.sign(statement())).decode()
    by_old = base64.b64encode(old.sign(statement(), padding.PKCS1v15(), hashes.SHA256())).decode()
    assert judge(statement(), by_edwards, [public_key(pem(edwards))], NAME, DIGEST) == ""
    assert judge(statement(), by_old, [public_key(pem(old))], NAME, DIGEST) == ""


@pytest.mark.parametrize(
    ("data", "signature", "said"),
    [
        (statement(), signed(statement(), MALLORY), "none of the project's keys"),
        (statement(digest=OTHER), signed(statement(digest=OTHER)), "is about 'sha256:bbbb"),
        (statement("ghcr.io/evil/app"), signed(statement("ghcr.io/evil/app")), "is about 'ghcr.io/evil/app'"),
        (statement(kind="atomic"), signed(statement(kind="atomic")), "of type 'atomic'"),
        (statement(), signed(statement(digest=OTHER)), "none of the project's keys"),
        (statement(), "", "none of the project's keys"),
        (statement(), "!!", "not base64"),
        (b"{}", signed(b"{}"), "cannot be read"),
        (b"\xff", signed(b"\xff"), "cannot be read"),
        (statement("No Name"), signed(statement("No Name")), "cannot be read"),
    ],
)
def test_any_other_does_not_and_it_is_said_why(data: bytes, signature: str, said: str) -> None:
    assert said in judge(data, signature, [public_key(pem(EC))], NAME, DIGEST)


def test_a_docker_hub_reference_means_the_same_in_its_short_and_long_form() -> None:
    data = statement("index.docker.io/library/nginx")
    assert judge(data, signed(data), [public_key(pem(EC))], "docker.io/library/nginx", DIGEST) == ""


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----"])
def test_a_key_that_is_none_lets_nothing_through(text: str) -> None:
    with pytest.raises(Unsigned, match="policy"):
        public_key(text)


def test_a_key_that_cannot_sign_is_refused() -> None:
    with pytest.raises(Unsigned, match="neither"):
        public_key(pem(x25519.X25519PrivateKey.generate()))
