"""JSON Web Tokens as OIDC issuers sign them: RS256 and ES256, and nothing else. Pure: `now` comes in.

The algorithm is the key's, not what the token's head says: a head that says otherwise is refused (RFC 8725 §3.1).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

TEXT_MOST = 8192
LEEWAY_S = 30.0
"""Clocks differ."""
RSA_BITS_LEAST = 2048
KEYS_MOST = 100
Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class BadJwt(Exception):
    """A token that is not accepted; the message says why, and holds nothing of it but names."""


def key_set(document: Any) -> dict[str, Key]:
    """Keys for signatures in a JWKS, by `kid`; others are left out. Raises BadJwt when it is none."""
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > KEYS_MOST:
        raise BadJwt(f"not a key set of at most {KEYS_MOST} keys")
    keys: dict[str, Key] = {}
    for each in found:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or not isinstance(each.get("kid"), str):
            continue
        try:
            if each.get("kty") == "RSA":
                key = rsa.RSAPublicNumbers(_number(each["e"]), _number(each["n"])).public_key()
                if key.key_size >= RSA_BITS_LEAST:
                    keys[each["kid"]] = key
            elif each.get("kty") == "EC" and each.get("crv") == "P-256":
                numbers = ec.EllipticCurvePublicNumbers(_number(each["x"]), _number(each["y"]), ec.SECP256R1())
                keys[each["kid"]] = numbers.public_key()
        except (KeyError, ValueError, TypeError):
            continue
    return keys


def head(text: str) -> tuple[str, str]:
    """`kid` and `alg` of a token that is not yet believed. Raises BadJwt."""
    said = _object(_parts(text)[0])
    kid, algorithm = said.get("kid"), said.get("alg")
    if not isinstance(kid, str) or not isinstance(algorithm, str) or "crit" in said:
        raise BadJwt("its head has no kid and alg, or a crit")
    return kid, algorithm


def unverified_issuer(text: str) -> str:
    """Who it says made it: to find the keys by, not to believe. Raises BadJwt."""
    issuer = _object(_parts(text)[1]).get("iss")
    if not isinstance(issuer, str):
        raise BadJwt("it names no issuer")
    return issuer


def verify(text: str, key: Key, issuer: str, audience: str, now: float) -> Mapping[str, Any]:
    """The claims of a token that `key` signed, that is `issuer`'s, for `audience`, and counts at `now`. Raises BadJwt."""
    first, second, third = _parts(text)
    _, algorithm = head(text)
    signed, signature = f"{first}.{second}".encode(), _bytes(third)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if algorithm != "RS256":
                raise BadJwt(f"alg {algorithm[:10]!r}; its key is for RS256")
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            if algorithm != "ES256" or len(signature) != 64:
                raise BadJwt(f"alg {algorithm[:10]!r}; its key is for ES256")
            pair = utils.encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
            key.verify(pair, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise BadJwt("its signature is not the issuer's") from None
    claims = _object(second)
    audiences = claims.get("aud")
    if claims.get("iss") != issuer:
        raise BadJwt("it is another issuer's")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise BadJwt(f"it is for another audience than {audience}")
    if _time(claims, "exp") <= now - LEEWAY_S:
        raise BadJwt("it has expired")
    if any(name in claims and _time(claims, name) > now + LEEWAY_S for name in ("nbf", "iat")):
        raise BadJwt("it does not count yet")
    return claims


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadJwt(f"its {name} is no time")
    return float(value)


def _parts(text: str) -> tuple[str, str, str]:
    parts = text.split(".") if len(text) <= TEXT_MOST else []
    if len(parts) != 3:
        raise BadJwt(f"not a signed JWT of at most {TEXT_MOST} characters")
    return parts[0], parts[1], parts[2]


def _object(part: str) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(_bytes(part))
    except (msgspec.DecodeError, RecursionError):
        raise BadJwt("a part of it is not JSON") from None
    if not isinstance(said, dict):
        raise BadJwt("a part of it is not a JSON object")
    return said


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part.encode() + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise BadJwt("a part of it is not base64url") from None


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text))
