"""Which keys sign identity tokens, and when they come and go. Pure: `now` in wall seconds comes in."""

from collections.abc import Mapping

from store.identity import TOKEN_S

ROTATE_S = 30 * 86_400.0
"""A key signs for so long."""
PUBLISHED_S = 300.0
"""It is known everywhere for so long before it signs."""
KEPT_S = TOKEN_S + 300
"""After the next one signs, until the last token of the old one has expired."""


def current(created: Mapping[str, float], now: float) -> str | None:
    """The key that signs: the newest that everybody knows, or the oldest there is; None: there is none."""
    ordered = sorted(created, key=lambda kid: (created[kid], kid))
    known = [kid for kid in ordered if created[kid] + PUBLISHED_S <= now]
    return known[-1] if known else ordered[0] if ordered else None


def wanted(created: Mapping[str, float], now: float) -> bool:
    """Whether another key is to be made."""
    return not created or max(created.values()) + ROTATE_S <= now


def over(created: Mapping[str, float], now: float) -> list[str]:
    """Keys that signed nothing that still counts."""
    signs = current(created, now)
    if signs is None:
        return []
    since = created[signs] + PUBLISHED_S
    return sorted(kid for kid, at in created.items() if at < created[signs] and since + KEPT_S <= now)
