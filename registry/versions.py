"""Versions of a Secret: the immutable Secrets that are called after it, such as `db-v3` for the third of `db`. Pure."""

import re
from collections.abc import Iterable

from registry.objects import Object
from store.model import Values

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def number(secret: str, name: str) -> int:
    """Which version of `secret` a Secret called `name` would be; 0: none."""
    rest = name.removeprefix(f"{secret}-v")
    return int(rest) if rest != name and _NUMBER.fullmatch(rest) else 0


def versions(secret: str, found: Iterable[Values]) -> list[Object]:
    """Those of `secret` among `found`, the latest first; never a value."""
    numbered = {number(secret, each.metadata["name"]): each for each in found if each.immutable}
    latest = max(numbered, default=0)
    return [
        {
            "number": at,
            "secret": numbered[at].metadata["name"],
            "createdAt": numbered[at].metadata["creationTimestamp"],
            "keys": numbered[at].names,
            "state": "latest" if at == latest else "earlier",
        }
        for at in sorted(numbered, reverse=True)
        if at
    ]
