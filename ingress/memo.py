"""What heads were found to mean, for those that come again: a client that stays asks with the same one each time, and so answers its
instance, but for a `Date` that turns once a second. Heads that never come again leave a number here and nothing else.
"""

from typing import Generic, TypeVar

from ingress.limits import HEAD_MEMO_BYTES, HEAD_MEMO_MOST, HEADS_ONCE_MOST

T = TypeVar("T")


class Memo(Generic[T]):
    """Head → meaning, bounded: when it is full it begins anew."""

    __slots__ = ("_once", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, T] = {}
        self._once: set[int] = set()
        """Hashes of heads that came once."""

    def worth(self, head: bytes) -> bool:
        """Whether `head`, which is not known, is to be kept: it was here before."""
        mark = hash(head)
        if mark in self._once:
            return len(head) <= HEAD_MEMO_BYTES
        if len(self._once) >= HEADS_ONCE_MOST:
            self._once.clear()
        self._once.add(mark)
        return False

    def keep(self, head: bytes, meaning: T) -> None:
        if len(self.known) >= HEAD_MEMO_MOST:
            self.known.clear()
        self.known[head] = meaning
