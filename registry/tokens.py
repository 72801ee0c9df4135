"""API tokens as text: `ebb_<id>_<secret>`. Made once, shown once; only the secret's digest is kept."""

import hashlib
import re
import secrets
from hmac import compare_digest

from process import ids
from store.access import Token

SECRET_BYTES = 32
_TEXT = re.compile(r"ebb_([a-z0-9]{4,32})_([0-9a-f]{64})")
TEXT_MOST = 128


class NoToken(Exception):
    """A text is not a token; the message says what one looks like, never what was sent."""


def new_text() -> str:
    """A token nobody has had: 60 bits of id, 256 bits of secret."""
    return f"ebb_{ids.short_id(12)}_{secrets.token_hex(SECRET_BYTES)}"


def parse(text: str) -> tuple[str, str]:
    """The id, and the digest of the secret. Raises NoToken."""
    match = _TEXT.fullmatch(text) if len(text) <= TEXT_MOST else None
    if match is None:
        raise NoToken("that is not one of Ebb's tokens (ebb_<id>_<secret>)")
    return match[1], hashlib.sha256(match[2].encode()).hexdigest()


def matches(token: Token, digest: str) -> bool:
    """Whether the secret with `digest` is the token's, in time that does not tell how nearly."""
    return compare_digest(token.digest, digest)


def ended(token: Token, now: float) -> str:
    """Why the token no longer counts at `now` (wall seconds); empty when it does."""
    if token.revoked_at:
        return "it was revoked"
    return "it has expired" if token.expires_at and token.expires_at <= now else ""
