"""Identity tokens: what is signed is believed for its time, and nothing else is."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from hypothesis import given
from hypothesis import strategies as st

from store.identity import BadToken, Claims, jwk, new_key, private_key, public_key, sign, verify

NOW = 1_800_000_000.0
PUBLIC, PEM = new_key("k1", NOW)
KEYS = {"k1": public_key(PUBLIC)}
CLAIMS = Claims(sub="service:shop/cart", aud="http://pay.shop.localhost:8080", iat=int(NOW), exp=int(NOW) + 3600)
TOKEN = sign(private_key(PEM), "k1", CLAIMS).encode()


def part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def test_what_was_signed_is_read_again() -> None:
    assert verify(TOKEN, KEYS, NOW) == CLAIMS
    assert json.loads(base64.urlsafe_b64decode(TOKEN.split(b".")[0] + b"==")) == {"alg": "ES256", "kid": "k1", "typ": "JWT"}
    assert jwk(PUBLIC).items() >= {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1", "use": "sig"}.items()


@pytest.mark.parametrize(("at", "why"), [(3631, "expired"), (10_000, "expired"), (-31, "not count yet")])
def test_a_token_has_its_time(at: float, why: str) -> None:
    verify(TOKEN, KEYS, NOW + 3629)
    with pytest.raises(BadToken, match=why):
        verify(TOKEN, KEYS, NOW + at)


def test_a_token_that_would_count_for_days_does_not_count() -> None:
    long = sign(private_key(PEM), "k1", Claims(sub="user:ana", aud="x", iat=int(NOW), exp=int(NOW) + 86_400))
    with pytest.raises(BadToken, match="too long"):
        verify(long.encode(), KEYS, NOW)


def test_no_other_algorithm_key_or_issuer_is_believed() -> None:
    head, claims, signature = TOKEN.split(b".")
    public = KEYS["k1"].public_numbers()
    secret = hmac.HMAC(public.x.to_bytes(32, "big"), hashes.SHA256())
    other = sign(private_key(new_key("k1", NOW)[1]), "k1", CLAIMS).encode()
    forged = [
        (part({"alg": "none", "kid": "k1"}), claims, b""),
        (part({"alg": "HS256", "kid": "k1"}), claims, base64.urlsafe_b64encode(secret.finalize()).rstrip(b"=")),
        (part({"alg": "ES256", "kid": "k2"}), claims, signature),
        (part({"alg": "ES256", "kid": "k1", "crit": ["x"]}), claims, signature),
        (part({"alg": "ES256", "kid": "k1", "jwk": jwk(new_key("k9", NOW)[0])}), claims, signature),
        (head, part({"iss": "https://evil", "sub": "user:ana", "aud": "x", "iat": int(NOW), "exp": int(NOW) + 9}), signature),
        (head, part({"sub": "user:admin", "aud": CLAIMS.aud, "iat": CLAIMS.iat, "exp": CLAIMS.exp}), signature),
        (head, claims, b"A" * 86),
        tuple(other.split(b".")),
    ]
    for parts in forged:
        with pytest.raises(BadToken):
            verify(b".".join(parts), KEYS, NOW)


@given(st.one_of(st.binary(max_size=200), st.text(alphabet="eyJ.ABab01-_=+/", max_size=200).map(str.encode)))
def test_whatever_comes_it_is_a_bad_token_and_nothing_worse(text: bytes) -> None:
    with pytest.raises(BadToken):
        verify(text, KEYS, NOW)


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(b"AZaz09-_."))
def test_one_changed_byte_is_seen(at: int, byte: int) -> None:
    changed = TOKEN[:at] + bytes([byte]) + TOKEN[at + 1 :]
    try:
        assert verify(changed, KEYS, NOW) == CLAIMS
    except BadToken:
        return
    # The last letter of a base64 text has bits that mean nothing.
    assert changed == TOKEN or at == len(TOKEN) - 1
