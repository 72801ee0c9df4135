"""When an instance that drains may be stopped. Pure."""

from collections.abc import Set

RESAY_S = 1.0
"""How often an unanswered Draining is said again: NATS may have lost it, or its answer."""


def finished(members: Set[str], answers: Set[str], since: float, timeout_s: float, now: float) -> bool:
    """Whether every live ingress has answered, or the longest request that may be in flight since `since` is over."""
    return members <= answers or now >= since + timeout_s


def missing(members: Set[str], answers: Set[str]) -> frozenset[str]:
    """Which ingresses have not answered."""
    return frozenset(members) - answers
