"""Which revision a request goes to: by percent, from a table built once when the route changes."""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

from store.model import Limits, RevisionKey, RouteEntry, TrafficTarget

UNBOUNDED = 1 << 62
"""Bytes of a body without a limit."""


class Choice:
    """One revision as the request path needs it. `timeout_s` and the others are the revision's own clocks, 0: none."""

    __slots__ = (
        "affinity", "body_most_bytes", "concurrency", "h2c", "idle_s", "project", "revision",
        "server_timing", "special", "start_s", "stats", "timeout_s",
    )  # fmt: skip

    def __init__(self, project: str, revision: str, limits: Limits) -> None:
        self.project = project
        self.revision: RevisionKey = f"{project}/{revision}"
        self.concurrency = limits.container_concurrency
        self.timeout_s = limits.timeout_s
        self.start_s = limits.response_start_timeout_s
        self.idle_s = limits.idle_timeout_s
        self.body_most_bytes = limits.max_body_bytes or UNBOUNDED
        """Of a request; the operator's bound comes in with the first one."""
        self.server_timing = limits.server_timing
        self.special = bool(self.start_s or self.idle_s or self.server_timing)
        """Something is to be done at its requests that most do without; the others look no further."""
        self.h2c = limits.protocol == "h2c"
        """Its instances speak HTTP/2 without TLS."""
        self.affinity = limits.session_affinity
        self.stats: Any = None
        """The metrics of this revision, once it has some."""


class Split:
    """The shares of one host."""

    __slots__ = ("_bounds", "choices", "only", "project")

    def __init__(self, project: str, choices: list[tuple[Choice, int]]) -> None:
        self.project = project
        choices = [(choice, percent) for choice, percent in choices if percent > 0]
        self.choices = [choice for choice, _ in choices]
        """The revisions that have a share."""
        self._bounds = list(accumulate(percent for _, percent in choices))
        self.only = self.choices[0] if len(choices) == 1 else None
        """The one revision, when there is just one."""

    def open(self, gate: Any, exchange: Any) -> Choice | None:
        """The revision for `exchange`, where there is not just one. None: it was refused, or `gate.follow` finds one, if any."""
        return self.pick(gate.chance())

    def pick(self, chance: float) -> Choice | None:
        """The revision for a `chance` in [0, 1); None when no revision has a share."""
        if not self.choices:
            return None
        return self.choices[bisect_right(self._bounds, chance * self._bounds[-1])]


def choice_of(entry: RouteEntry, revision: str, choices: dict[str, Choice]) -> Choice:
    """The Choice of a revision of `entry`, made when `choices` do not have it yet."""
    choice = choices.get(revision)
    if choice is None:
        choice = choices[revision] = Choice(entry.project, revision, entry.limits.get(revision, Limits()))
    return choice


def split(entry: RouteEntry, targets: list[TrafficTarget], choices: dict[str, Choice]) -> Split:
    """The Split of one host of `entry`. `choices` are shared by the entry's hosts."""
    return Split(entry.project, [(choice_of(entry, target.revision, choices), target.percent) for target in targets])
