"""Identity tokens: short-lived JWTs (ES256) that say who calls. The registry signs them, the front door verifies them. `now` comes in.

    token = sign(key, kid, Claims(sub="service:shop/cart", aud="http://pay.shop.svc.cluster.local", iat=now, exp=now + 3600))
    claims = verify(token, {kid: public}, now)

Only what is signed here is read: one algorithm, whatever a token's head says, and no key but those that are given.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from store.schema import V1, Model

ISSUER = "https://ebb.internal"
TOKEN_S = 3600.0
SKEW_S = 30.0
"""Clocks of two machines may differ by so much."""
TOKEN_BYTES = 4096
_HALF = 32
_ECDSA = ec.ECDSA(hashes.SHA256())


class IdentityKey(Model, frozen=True, kw_only=True):
    """The public half of a signing key: the coordinates of its point on P-256, as JWK writes them."""

    v: int = V1
    kid: str
    x: str
    y: str
    created_at: float


class SigningKey(Model, frozen=True, kw_only=True):
    """The private half, sealed with a key that is not in etcd, bound to `signers/<kid>`."""

    v: int = V1
    kid: str
    sealed: str
    created_at: float


class AskIdentity(Model, frozen=True, kw_only=True):
    """A node agent asks for a token for one of its instances. Which node it is, the subject says."""

    v: int = V1
    instance: str
    audience: str


class Identity(Model, frozen=True, kw_only=True):
    """The token, or why there is none."""

    v: int = V1
    token: str = ""
    expires_at: float = 0
    problem: str = ""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says. `sub` is a principal, `aud` the origin it is for; times are wall seconds."""

    iss: str = ISSUER
    sub: str
    aud: str
    iat: int
    exp: int


class BadToken(Exception):
    """A token that proves nothing; the message says why, and holds nothing of it."""


class _Head(msgspec.Struct, frozen=True):
    alg: str = ""
    kid: str = ""
    typ: str = ""
    crit: Any = None


def new_key(kid: str, at: float) -> tuple[IdentityKey, bytes]:
    """A key pair: its public half, and the private one as PEM."""
    made = ec.generate_private_key(ec.SECP256R1())
    point = made.public_key().public_numbers()
    x, y = (_text(number.to_bytes(_HALF, "big")) for number in (point.x, point.y))
    form = serialization.PrivateFormat.PKCS8
    pem = made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return IdentityKey(kid=kid, x=x, y=y, created_at=at), pem


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError for what is no such key."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key of an elliptic curve")
    return key


def public_key(key: IdentityKey) -> ec.EllipticCurvePublicKey:
    """Raises ValueError for a point that is not on the curve."""
    x, y = (int.from_bytes(_bytes(part), "big") for part in (key.x, key.y))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def jwk(key: IdentityKey) -> dict[str, str]:
    """As others read it (RFC 7517)."""
    return {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key.kid, "x": key.x, "y": key.y}


def sign(key: ec.EllipticCurvePrivateKey, kid: str, claims: Claims) -> str:
    """A token."""
    said = f"{_json({'alg': 'ES256', 'kid': kid, 'typ': 'JWT'})}.{_json(claims)}"
    r, s = decode_dss_signature(key.sign(said.encode(), _ECDSA))
    return f"{said}.{_text(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"


def verify(token: bytes, keys: Mapping[str, ec.EllipticCurvePublicKey], now: float) -> Claims:
    """What `token` says, if one of `keys` signed it and it counts at `now`. Raises BadToken. What is cheap to see is looked at first."""
    parts = token.split(b".")
    if len(token) > TOKEN_BYTES or len(parts) != 3:
        raise BadToken("is not a JWT")
    try:
        head, claims = msgspec.json.decode(_bytes(parts[0]), type=_Head), msgspec.json.decode(_bytes(parts[1]), type=Claims)
        signature = _bytes(parts[2])
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise BadToken("is not a JWT of this engine") from None
    if head.alg != "ES256" or head.crit is not None or claims.iss != ISSUER:
        raise BadToken("was not issued by this engine")
    if now >= claims.exp + SKEW_S:
        raise BadToken("has expired")
    if now < claims.iat - SKEW_S or claims.exp - claims.iat > TOKEN_S + 1:
        raise BadToken("does not count yet, or for too long")
    key = keys.get(head.kid)
    if key is None or len(signature) != 2 * _HALF:
        raise BadToken("is signed with a key that is not known (any more)")
    r, s = int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big")
    try:
        key.verify(encode_dss_signature(r, s), parts[0] + b"." + parts[1], _ECDSA)
    except InvalidSignature:
        raise BadToken("is not signed by this engine") from None
    return claims


def _json(value: Any) -> str:
    return _text(msgspec.json.encode(value))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    if b"=" in data or b"+" in data or b"/" in data:
        raise ValueError("not base64url")
    return base64.b64decode(data + b"=" * (-len(data) % 4), b"-_", validate=True)
