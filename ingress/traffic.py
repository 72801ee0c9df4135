"""Which revision a request goes to: by percent, from a table built once when the route changes."""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

from store.model import Limits, RevisionKey, RouteEntry, TrafficTarget


class Choice:
    """One revision as the request path needs it. `timeout_s` and the others are the revision's own clocks, 0: none."""

    __slots__ = ("concurrency", "h2c", "idle_s", "project", "revision", "start_s", "stats", "timeout_s")

    def __init__(self, project: str, revision: str, limits: Limits) -> None:
        self.project = project
        self.revision: RevisionKey = f"{project}/{revision}"
        self.concurrency = limits.container_concurrency
        self.timeout_s = limits.timeout_s
        self.start_s = limits.response_start_timeout_s
        self.idle_s = limits.idle_timeout_s
        self.h2c = limits.protocol == "h2c"
        """Its instances speak HTTP/2 without TLS."""
        self.stats: Any = None
        """The metrics of this revision, once it has some."""


class Split:
    """The shares of one host."""

    __slots__ = ("_bounds", "_choices", "only", "project")

    def __init__(self, project: str, choices: list[tuple[Choice, int]]) -> None:
        self.project = project
        choices = [(choice, percent) for choice, percent in choices if percent > 0]
        self._choices = [choice for choice, _ in choices]
        self._bounds = list(accumulate(percent for _, percent in choices))
        self.only = self._choices[0] if len(choices) == 1 else None
        """The one revision, when there is just one."""

    def pick(self, chance: float) -> Choice | None:
        """The revision for a `chance` in [0, 1); None when no revision has a share."""
        if not self._choices:
            return None
        return self._choices[bisect_right(self._bounds, chance * self._bounds[-1])]


def split(entry: RouteEntry, targets: list[TrafficTarget], choices: dict[str, Choice]) -> Split:
    """The Split of one host of `entry`. `choices` are shared by the entry's hosts."""
    shares: list[tuple[Choice, int]] = []
    for target in targets:
        choice = choices.get(target.revision)
        if choice is None:
            limits = entry.limits.get(target.revision, Limits())
            choice = choices[target.revision] = Choice(entry.project, target.revision, limits)
        shares.append((choice, target.percent))
    return Split(entry.project, shares)
