"""What can go wrong between Ebb and its store or bus. Every shell translates into these once, at its boundary."""


class StoreError(Exception):
    """Something about the store; the message says what, and the cure where there is one."""


class Conflict(StoreError):
    """A guard of a transaction did not hold: somebody else wrote first. Read again and decide again."""


class Compacted(StoreError):
    """The asked-for store_rev is no longer kept: list again. `compact_rev` is the oldest that is."""

    def __init__(self, compact_rev: int) -> None:
        super().__init__(f"history before store_rev {compact_rev} is compacted; list again")
        self.compact_rev = compact_rev


class Ahead(StoreError):
    """The asked-for store_rev is in the future of the store: it never gave it, or was restored from a backup."""


class LeaseLost(StoreError):
    """The lease expired or was revoked; everything written under it is gone."""


class TooLarge(StoreError):
    """A write of more bytes than the store takes at once. It will never succeed as it is."""


class Forbidden(StoreError):
    """Our certificate's role may not do this (store/roles.py). It will never succeed as it is."""


class Unavailable(StoreError):
    """No answer before the deadline, or no connection. Nothing is known about the outcome of a write."""


class BusUnavailable(StoreError):
    """The message bus is away; what was published may be lost."""


class NoResponder(BusUnavailable):
    """Nobody answered a request on the bus before its deadline."""
