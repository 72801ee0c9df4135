"""Short random names. The only place where randomness becomes an identity."""

import secrets

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def short_id(length: int = 8) -> str:
    """A random lower-case name, 5 bits a character, fit for DNS labels, cgroup paths and etcd keys."""
    return "".join([_ALPHABET[byte & 31] for byte in secrets.token_bytes(length)])


def cause_id() -> str:
    """The id that one request, wake or deploy carries through every process: `c-` and 60 random bits."""
    return "c-" + short_id(12)
