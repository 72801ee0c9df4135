"""The life of an instance: its phases and which may follow which. The diagram in ARCHITECTURE.md is drawn from this table.

Pending    assigned, nothing done yet           Ready     probes pass; may be given requests
Pulling    its image is being fetched           Frozen    running, stopped by the cgroup freezer
Parked     created in containerd, not started   Draining  gets nothing new; finishes what it has
Starting   started, not ready yet               Stopped   gone as wanted         Failed  gone or given up, with a reason
"""

from enum import StrEnum


class Phase(StrEnum):
    PENDING = "Pending"
    PULLING = "Pulling"
    PARKED = "Parked"
    STARTING = "Starting"
    READY = "Ready"
    FROZEN = "Frozen"
    DRAINING = "Draining"
    STOPPED = "Stopped"
    FAILED = "Failed"


_P = Phase
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    _P.PENDING: frozenset({_P.PULLING, _P.PARKED, _P.STARTING, _P.STOPPED, _P.FAILED}),
    _P.PULLING: frozenset({_P.PARKED, _P.STARTING, _P.STOPPED, _P.FAILED}),
    _P.PARKED: frozenset({_P.STARTING, _P.STOPPED, _P.FAILED}),
    _P.STARTING: frozenset({_P.READY, _P.DRAINING, _P.STOPPED, _P.FAILED}),
    _P.READY: frozenset({_P.STARTING, _P.FROZEN, _P.DRAINING, _P.STOPPED, _P.FAILED}),
    _P.FROZEN: frozenset({_P.READY, _P.STARTING, _P.DRAINING, _P.STOPPED, _P.FAILED}),
    _P.DRAINING: frozenset({_P.STOPPED, _P.FAILED}),
    _P.STOPPED: frozenset(),
    _P.FAILED: frozenset({_P.STOPPED}),
}
"""Ready → Starting is an instance whose readiness probe fails again: it gets nothing new until it passes. Frozen is said before it
is true: the freezer stops it when every ingress has answered that nothing is in flight there."""

ENDED = frozenset({_P.STOPPED, _P.FAILED})
OCCUPYING = frozenset(_P) - ENDED
"""Phases in which an instance holds room on its node."""


def may_follow(before: Phase, after: Phase) -> bool:
    """Whether an instance in `before` may next be in `after`. Staying is always allowed."""
    return before == after or after in TRANSITIONS[before]
