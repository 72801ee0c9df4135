"""Tokens of an OIDC issuer, against an issuer of the test's own: TLS, discovery, keys, and everything that is to be refused."""

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from process.clock import SystemClock
from process.settings import BadSettings
from registry import authority, jwt, oidc
from registry.authorisation import Identity
from registry.people import Refused

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


def signed(claims: dict[str, Any], key: Any = RSA_KEY, **head: Any) -> str:
    """A JWT as `key` signs it; `head` says otherwise what its head says."""
    usual = {"alg": "RS256", "kid": "r1"} if key is RSA_KEY else {"alg": "ES256", "kid": "e1"}
    text = f"{b64(json.dumps(usual | head).encode())}.{b64(json.dumps(claims).encode())}"
    if isinstance(key, rsa.RSAPrivateKey):
        return f"{text}.{b64(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{b64(r.to_bytes(32) + s.to_bytes(32))}"


class Issuer:
    """Serves discovery and keys; counts how often the keys were asked for."""

    def __init__(self) -> None:
        self.url, self.ca, self.fetched, self.padding = "", "", 0, ""
        self.keys: list[dict[str, str]] = []
        self.add_keys()

    def add_keys(self) -> None:
        public, point = RSA_KEY.public_key().public_numbers(), EC_KEY.public_key().public_numbers()
        self.keys = [
            {"kty": "RSA", "kid": "r1", "use": "sig", "n": number(public.n), "e": number(public.e)},
            {"kty": "EC", "kid": "e1", "crv": "P-256", "x": b64(point.x.to_bytes(32)), "y": b64(point.y.to_bytes(32))},
        ]

    async def about(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": self.url + "/keys"})

    async def jwks(self, _: web.Request) -> web.Response:
        self.fetched += 1
        return web.json_response({"keys": self.keys, "padding": self.padding})

    def claims(self, **other: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": "ebb",
            "iat": now,
            "exp": now + 300,
            "email": "ana@example.org",
            "email_verified": True,
        }
        return {**usual, **other}


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    made = Issuer()
    ca, key = tmp_path / "ca.crt", tmp_path / "ca.key"
    authority.make(ca, key, "localhost", time.time())
    pair = authority.Authority(ca, key).issue(("localhost",), time.time())
    both = tmp_path / "pair.pem"
    both.write_bytes(pair.chain.encode() + pair.key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(both)
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", made.about)
    app.router.add_get("/keys", made.jwks)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    made.url, made.ca = f"https://localhost:{runner.addresses[0][1]}", str(ca)
    yield made
    await runner.cleanup()


@pytest.fixture
async def issuers(issuer: Issuer, tmp_path: Path) -> AsyncIterator[oidc.Issuers]:
    file = tmp_path / "oidc.toml"
    file.write_text(f'[[issuer]]\nurl = "{issuer.url}"\naudience = "ebb"\nca_file = "{issuer.ca}"\n')
    made = oidc.Issuers(oidc.read(file), SystemClock(), lambda who, where, end: Identity(who, token=where, expires_at=end))
    yield made
    await made.close()


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY], ids=["RS256", "ES256"])
async def test_a_token_of_the_issuer_speaks_for_the_user_of_its_claim(issuer: Issuer, issuers: oidc.Issuers, key: Any) -> None:
    claims = issuer.claims()
    found = await issuers.identity(signed(claims, key))
    assert (found.principal, found.token, found.expires_at) == ("user:ana@example.org", issuer.url, claims["exp"])
    await issuers.identity(signed(claims, key))
    assert issuer.fetched == 1, "the keys are remembered"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "somebody else"}, "another audience"),
        ({"exp": 1}, "expired"),
        ({"exp": "soon"}, "no time"),
        ({"nbf": 2**40}, "does not count yet"),
        ({"iss": "https://evil.example"}, "not one of those configured"),
        ({"email_verified": False}, "not verified"),
        ({"email": "../../x"}, "not a name"),
        ({"email": None}, "not a name"),
        ({"email": "admin"}, "not a name"),
    ],
)
async def test_claims_that_do_not_hold_are_refused(
    issuer: Issuer, issuers: oidc.Issuers, claims: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        await issuers.identity(signed(issuer.claims(**claims)))


async def test_signatures_that_are_not_the_issuers_are_refused(issuer: Issuer, issuers: oidc.Issuers) -> None:
    claims = issuer.claims()
    good = signed(claims)
    head, body, signature = good.split(".")
    other = b64(json.dumps(issuer.claims(email="eve@example.org")).encode())
    stranger = rsa.generate_private_key(65537, 2048)
    bad = {
        f"{head}.{other}.{signature}": "signature",
        signed(claims, stranger): "no such key|signature|ES256",
        signed(claims, stranger, kid="r1", alg="RS256"): "signature",
        signed(claims, RSA_KEY, alg="none"): "RS256",
        signed(claims, RSA_KEY, alg="HS256"): "RS256",
        signed(claims, RSA_KEY, kid="e1"): "ES256",
        signed(claims, RSA_KEY, crit=["exp"]): "crit",
        f"{head}.{body}.": "signature",
        f"{head}.{body}": "not a signed JWT",
        "eyJ" + "a" * 10_000: "not a signed JWT",
        f"{head}.!!.{signature}": "base64url",
    }
    for text, why in bad.items():
        with pytest.raises(Refused, match=why):
            await issuers.identity(text)


async def test_unknown_key_names_do_not_make_it_ask_the_issuer_again_and_again(issuer: Issuer, issuers: oidc.Issuers) -> None:
    for n in range(20):
        with pytest.raises(Refused, match="no such key"):
            await issuers.identity(signed(issuer.claims(), kid=f"x{n}"))
    assert issuer.fetched == 1


async def test_an_answer_without_end_and_an_issuer_of_another_authority_are_not_believed(
    issuer: Issuer, issuers: oidc.Issuers
) -> None:
    issuer.padding = "x" * (oidc.ANSWER_MOST_BYTES + 1)
    with pytest.raises(Refused, match="no such key"):
        await issuers.identity(signed(issuer.claims()))
    stranger = oidc.Issuers([oidc.IssuerSpec(url=issuer.url, audience="ebb")], SystemClock(), lambda w, i, e: Identity(w))
    with pytest.raises(Refused, match="no such key"):
        await stranger.identity(signed(issuer.claims()))
    await stranger.close()


def test_short_rsa_keys_and_other_curves_are_no_keys() -> None:
    short = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    found = jwt.key_set({"keys": [{"kty": "RSA", "kid": "s", "n": number(short.n), "e": number(short.e)},
                                  {"kty": "EC", "kid": "p", "crv": "P-384", "x": "AA", "y": "AA"},
                                  {"kty": "oct", "kid": "o", "k": "AA"}, "nonsense"]})  # fmt: skip
    assert found == {}


@pytest.mark.parametrize(
    "text", ['[[issuer]]\nurl = "http://x"\naudience = "a"', '[[issuer]]\nurl = "https://x"\naudience = ""', "x ="]
)
def test_a_file_that_would_be_unsafe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(BadSettings):
        oidc.read(tmp_path / "f")
