"""Token buckets by name: how many requests one principal or one address may make. Pure: `now` comes in."""

import math
from collections import OrderedDict
from dataclasses import dataclass

MOST = 10_000
"""Buckets kept; whoever was not seen for longest is forgotten, and begins with a full one."""


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Buckets:
    """One bucket a name: `burst` at once, and `per_s` for long. `per_s` 0: no limit."""

    def __init__(self, per_s: float, burst: float, most: int = MOST) -> None:
        self.per_s, self.burst, self._most = per_s, burst, most
        self._known: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """0 when one was taken; else seconds until there is one, and nothing was taken."""
        if not self.per_s:
            return 0.0
        bucket = self._at(name, now)
        if bucket.level >= 1:
            bucket.level -= 1
            return 0.0
        return (1 - bucket.level) / self.per_s

    def _at(self, name: str, now: float) -> _Bucket:
        bucket = self._known.get(name)
        if bucket is None:
            bucket = self._known[name] = _Bucket(self.burst, now)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(name)
            bucket.level = min(self.burst, bucket.level + (now - bucket.at) * self.per_s)
            bucket.at = now
        return bucket


def retry_after_s(wait_s: float) -> int:
    """What Retry-After says: whole seconds, at least one."""
    return max(1, math.ceil(wait_s))
