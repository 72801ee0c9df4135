"""Which instance takes the next request: least in flight of those with room, and of many the lesser of two at random.

Counts are kept, never rescanned: an instance leaves `open` the moment it is full and comes back when it has room, so a
choice looks at no more than `SCAN` instances however many there are.
"""

from enum import Enum
from typing import Any

SCAN = 8
"""Up to so many instances with room, all are compared; beyond, two at random come within a few percent of the best."""
NO_LIMIT = 1 << 40


class State(Enum):
    """What may be done with an instance."""

    SERVING = "serving"
    PAUSED = "paused"
    """Known, but not ready for the moment: gets nothing new."""
    DRAINING = "draining"
    """Gets nothing new; its node waits to hear when nothing of ours is in flight."""
    GONE = "gone"
    """Only kept until what is in flight has ended."""


class Target:
    """One instance as this admitter uses it: how many requests it has of ours and how many it may have."""

    __slots__ = (
        "address",
        "cap",
        "connections",
        "doubted",
        "ejected_until",
        "ejections",
        "failures",
        "in_flight",
        "instance",
        "judged_from",
        "lent",
        "limit",
        "most",
        "mute",
        "node",
        "place",
        "probing",
        "seq",
        "since",
        "state",
        "stored",
        "unanswered",
        "unconfirmed",
    )

    def __init__(self, instance: str, node: str, address: str, limit: int, seq: int = 0, since: float = 0.0) -> None:
        self.instance = instance
        self.node = node
        self.address = address
        self.limit = limit or NO_LIMIT
        self.cap = NO_LIMIT
        """What `slowstart` leaves of a limit that is none."""
        self.most = self.limit
        """How many it may have for the moment: `Balance.reckon`."""
        self.seq = seq
        self.since = since
        """When it was first Ready, as far as is known here."""
        self.in_flight = 0
        self.lent = 0
        """How many of `in_flight` other workers hold: lent to them (`loans`)."""
        self.place = -1
        """Index in `Balance.open`, -1 when not there."""
        self.state = State.SERVING
        self.stored = False
        """Whether etcd has said so too; the bus alone may be late, and is not believed against a failure to connect."""
        self.unconfirmed = False
        """Its key vanished with its node's lease; serves until it cannot be reached or fresh news comes."""
        self.ejected_until = 0.0
        self.doubted = False
        """Something failed since it last answered: the one look that a request takes at all of the following."""
        self.failures = 0
        """To connect to it, in a row."""
        self.unanswered = 0
        """Requests at it, in a row."""
        self.ejections = 0
        """For want of answers, in a row."""
        self.mute = False
        """Ejected or probing for want of answers: only an answer lets it back."""
        self.judged_from = 0.0
        """Requests sent before say nothing more of it."""
        self.probing = False
        """Back from ejection with one request more than it has until that one succeeds."""
        self.connections: Any = None
        """Whatever the one who dials keeps for this instance."""

    @property
    def room(self) -> bool:
        return self.in_flight < self.most

    def vacant(self, ruled: bool) -> bool:
        """Whether nothing of it is in use, nor (where others rule) borrowed."""
        return not self.in_flight and (ruled or not self.limit)

    def __repr__(self) -> str:
        limit = "∞" if self.limit == NO_LIMIT else self.limit
        state = "ejected" if self.ejected_until else "full" if not self.room else self.state.value
        return f"<{self.instance} {self.address} {self.in_flight}/{limit} {state}>"


class Balance:
    """The instances of one revision that may be given a request now."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open: list[Target] = []

    def choose(self, chance: float) -> Target | None:
        """The instance for one more request, or None. `chance` in [0, 1) is used with more than `SCAN` candidates."""
        candidates = self.open
        count = len(candidates)
        if count == 1:
            return candidates[0]
        if count == 0:
            return None
        if count <= SCAN:
            best = candidates[0]
            for each in candidates:
                if each.in_flight < best.in_flight:
                    best = each
            return best
        first = int(chance * count)
        second = int((chance * count - first) * (count - 1))
        if second >= first:
            second += 1
        a, b = candidates[first], candidates[second]
        return b if b.in_flight < a.in_flight else a

    def reckon(self, target: Target) -> None:
        """The limits or the state of `target` changed: how many it may have, and whether that is room."""
        most = min(target.limit, target.cap)
        target.most = min(most, target.in_flight + 1) if target.probing else most
        self.settle(target)

    def shrink(self, target: Target) -> int:
        """Leave `target` what it has in flight; how many slots that frees."""
        unused = target.limit - target.in_flight
        if unused > 0:
            target.limit = target.in_flight
            self.reckon(target)
        return max(0, unused)

    def settle(self, target: Target) -> None:
        """Put `target` among the open ones, or take it out, as its counts and state say."""
        fit = target.state is State.SERVING and not target.ejected_until and target.room
        if fit and target.place < 0:
            target.place = len(self.open)
            self.open.append(target)
        elif not fit and target.place >= 0:
            last = self.open.pop()
            if last is not target:
                self.open[target.place] = last
                last.place = target.place
            target.place = -1
