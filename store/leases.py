"""Whose a lease is: its number says so. Pure.

The gate numbers the leases it grants: 31 bits at random, and 32 that only the gates' key can make of them and the owner's name. So
nothing need be remembered or looked up, and a number that somebody saw in the store is of no use to him.
"""

import hmac

KEY_BYTES = 32
_RANDOM = 2**31


def number(key: bytes, owner: str, random: int) -> int:
    """A lease of `owner`, from any `random`."""
    part = random % (_RANDOM - 1) + 1  # not 0: to etcd that means "no lease"
    return part << 32 | _mark(key, owner, part)


def owns(key: bytes, owner: str, lease: int) -> bool:
    """Whether `lease` was granted to `owner`."""
    part = lease >> 32
    return 0 < part < _RANDOM and hmac.compare_digest(
        _mark(key, owner, part).to_bytes(4, "big"), (lease & 0xFFFFFFFF).to_bytes(4, "big")
    )


def _mark(key: bytes, owner: str, part: int) -> int:
    return int.from_bytes(hmac.digest(key, part.to_bytes(4, "big") + owner.encode(), "sha256")[:4], "big")
