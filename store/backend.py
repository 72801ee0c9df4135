"""The port to the store. `store/etcd.py` is the real one, `store/memory.py` its twin; one contract suite runs on both.

`store_rev` is the store's own integer, growing with every write of anything. Every call has a deadline of its own and raises
`errors.Unavailable` past it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from store.txn import Txn


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands at one store_rev. `created_rev` tells a key from an earlier one of the same name."""

    key: str
    value: bytes
    store_rev: int
    created_rev: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything under a prefix, at `store_rev`: a watch goes on from exactly there. `total` is how many keys there are, also
    when only those changed since some store_rev were asked for."""

    entries: tuple[Entry, ...]
    store_rev: int
    total: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. A deletion has `value` None; `previous` is what the key held, when known."""

    key: str
    value: bytes | None
    store_rev: int
    created_rev: int = 0
    previous: bytes | None = None


class Store(Protocol):
    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, at: int = 0, since: int = 0) -> Listing:
        """All entries under `prefix`, ordered by key. `at` reads the past (raises Compacted); `since` leaves out what was not
        modified after it."""

    async def count(self, prefix: str) -> int: ...

    async def commit(self, txn: Txn) -> int:
        """Write all of `txn`; the store_rev it got. Raises Conflict when a guard does not hold."""

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        """An unguarded write, for keys with one writer. Raises LeaseLost when `lease` is gone."""

    async def delete(self, key: str) -> bool:
        """Whether the key existed."""

    def watch(self, prefix: str, *, after: int, previous: bool = True) -> AsyncIterator[tuple[Change, ...]]:
        """Changes with store_rev > `after`, in order, those of one transaction together, without gap or repeat, across
        reconnects. Raises Compacted when `after` is too old. Ends never by itself; `aclose()` the iterator. Without `previous`
        no change says what the key held, which the store would look up for each event and each watch."""

    async def grant(self, ttl_s: float) -> int:
        """A new lease."""

    async def keep_alive(self, lease: int) -> float:
        """Renew once; the remaining time to live in seconds. Raises LeaseLost."""

    async def revoke(self, lease: int) -> None:
        """End the lease; its keys go. Nothing happens when it is gone already."""

    async def close(self) -> None: ...
