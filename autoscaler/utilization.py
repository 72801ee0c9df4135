"""How many instances a revision needs by what they use: cpu or memory against a target, as in Kubernetes' HPA. Pure.

    need = ⌈ready × mean use ÷ target⌉, and no change while they differ by no more than a tenth
    cpu: target percent (80) of the CPU request; memory: `target` MiB, or 80 % of the memory request when none is set
    down only to the most that was needed in the last `STABILIZED_S`, or the revision's own scale-down-delay

Without a request the limit is the request; without both a core, or nothing that memory could be held against.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from store.model import Revision

METRICS = frozenset({"cpu", "memory"})
TOLERANCE = 0.1
PERCENT = 80.0
STABILIZED_S = 300.0
CORE_M = 1000
STALE_AFTER_S = 20.0
"""What a node said of an instance counts no longer: it speaks every five seconds."""
_NEW = 0.3
"""Weight of the newest of an instance's reports: about the last quarter of a minute counts."""


class Used(NamedTuple):
    """The mean over the instances heard of lately."""

    cpu_m: float
    memory_bytes: float
    instances: int


@dataclass(slots=True)
class _Instance:
    heard_at: float
    cpu_m: float
    memory_bytes: float


@dataclass(slots=True)
class Usage:
    """What the instances of one revision use, as their nodes say."""

    _instances: dict[str, _Instance] = field(default_factory=dict)

    def take(self, instance: str, cpu_m: float, memory_bytes: float, now: float) -> None:
        """A node's word on one instance."""
        known = self._instances.get(instance)
        if known is None:
            self._instances[instance] = _Instance(now, cpu_m, memory_bytes)
            return
        known.heard_at = now
        known.cpu_m += _NEW * (cpu_m - known.cpu_m)
        known.memory_bytes += _NEW * (memory_bytes - known.memory_bytes)

    def mean(self, now: float) -> Used | None:
        """None when nothing was heard lately."""
        for name in [name for name, each in self._instances.items() if now - each.heard_at > STALE_AFTER_S]:
            del self._instances[name]
        count = len(self._instances)
        if not count:
            return None
        cpu_m = sum(each.cpu_m for each in self._instances.values()) / count
        return Used(cpu_m, sum(each.memory_bytes for each in self._instances.values()) / count, count)

    def of(self) -> Mapping[str, tuple[float, float]]:
        """(cpu_m, memory_bytes) by instance."""
        return {name: (each.cpu_m, each.memory_bytes) for name, each in self._instances.items()}


def need(revision: Revision, used: Used | None, ready: int) -> tuple[int, str] | None:
    """How many instances, and why; None while that cannot be told."""
    if used is None or not ready:
        return None
    if revision.scale.metric == "cpu":
        request = revision.cpu_request_m or revision.cpu_limit_m or CORE_M
        target = request * (revision.scale.target or PERCENT) / 100
        ratio, said = used.cpu_m / target, f"{used.cpu_m:.0f}m of CPU each, {target:.0f}m is the target"
    else:
        mib = 1 << 20
        request = revision.memory_request_bytes or revision.memory_limit_bytes
        goal = revision.scale.target * mib or request * PERCENT / 100
        if not goal:
            return None
        ratio, said = used.memory_bytes / goal, f"{used.memory_bytes / mib:.0f}Mi each, {goal / mib:.0f}Mi is the target"
    if abs(ratio - 1) <= TOLERANCE:
        return ready, f"{said}: near enough"
    return max(1, math.ceil(ready * ratio - 1e-9)), said
