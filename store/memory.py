"""The store's twin in memory, for unit tests and simulation: etcd's behaviour without etcd.

Faults to order: `fail_next`, `drop_watchers`, `lose_events`, `compact`.
"""

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace

from process.clock import Clock
from store.backend import Change, Entry, Listing
from store.errors import Ahead, Compacted, Conflict, LeaseLost, Unavailable
from store.txn import Delete, Put, Txn, check_size


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    until: float
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Written:
    """One transaction: what it changed, and what stood there before."""

    rev: int
    changes: tuple[Change, ...]
    before: tuple[Entry | None, ...]


class _Watcher:
    """One open watch: what it has not given out yet."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.pending: deque[tuple[Change, ...]] = deque()
        self.broken = False
        self.arrived = asyncio.Event()

    def offer(self, changes: Iterable[Change]) -> None:
        mine = tuple(change for change in changes if change.key.startswith(self.prefix))
        if mine:
            self.pending.append(mine)
            self.arrived.set()


class MemoryStore:
    """A Store in memory. `clock` decides when leases end (default: the event loop's time, so that virtual time works).

    Everything before the last `history` transactions is compacted by itself.
    """

    def __init__(self, clock: Clock | None = None, *, history: int = 100_000) -> None:
        self._clock = clock
        self._history_limit = history
        self._rev = 1
        self._compacted = 0
        self._keys: list[str] = []
        self._entries: dict[str, Entry] = {}
        self._history: deque[_Written] = deque()
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 0
        self._watchers: set[_Watcher] = set()
        self._failures = 0
        self._alarm: asyncio.TimerHandle | None = None

    # -- keys ------------------------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        self._begin()
        return self._entries.get(key)

    async def list(self, prefix: str, *, at: int = 0, since: int = 0) -> Listing:
        self._begin()
        if at and at < self._compacted:
            raise Compacted(self._compacted)
        if at > self._rev:
            raise Ahead(f"store_rev {at} is in the future of the store, which is at {self._rev}")
        entries = tuple(self._as_of(prefix, at) if at else self._under(prefix))
        return Listing(tuple(entry for entry in entries if entry.store_rev > since), at or self._rev, len(entries))

    async def count(self, prefix: str) -> int:
        self._begin()
        return sum(1 for _ in self._under(prefix))

    async def commit(self, txn: Txn) -> int:
        check_size(txn)
        self._begin()
        for guard in txn.guards:
            entry = self._entries.get(guard.key)
            if not guard.holds(entry.store_rev if entry else 0, entry.created_rev if entry else 0):
                raise Conflict(txn.conflict())
        return self._write(txn.writes)

    async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
        return await self.commit(Txn(writes=(Put(key, value, lease),)))

    async def delete(self, key: str) -> bool:
        self._begin()
        existed = key in self._entries
        self._write((Delete(key),))
        return existed

    # -- watches ---------------------------------------------------------------------------------------------------------------

    async def watch(self, prefix: str, *, after: int, previous: bool = True) -> AsyncIterator[tuple[Change, ...]]:
        watcher = _Watcher(prefix)
        if after + 1 < self._compacted:
            raise Compacted(self._compacted)
        for written in self._history:
            if written.rev > after:
                watcher.offer(written.changes)
        self._watchers.add(watcher)
        try:
            while True:
                while watcher.pending and not watcher.broken:
                    batch = watcher.pending.popleft()
                    if batch[0].store_rev > after:
                        after = batch[0].store_rev
                        yield batch if previous else tuple(replace(change, previous=None) for change in batch)
                if watcher.broken:
                    raise Unavailable("the watch was dropped")
                watcher.arrived.clear()
                await watcher.arrived.wait()
        finally:
            self._watchers.discard(watcher)

    # -- leases ----------------------------------------------------------------------------------------------------------------

    async def grant(self, ttl_s: float) -> int:
        self._begin()
        self._next_lease += 1
        self._leases[self._next_lease] = _Lease(ttl_s, self._now() + ttl_s)
        self._set_alarm()
        return self._next_lease

    async def keep_alive(self, lease: int) -> float:
        self._begin()
        held = self._leases.get(lease)
        if held is None:
            raise LeaseLost(f"lease {lease:x} expired or was revoked")
        held.until = self._now() + held.ttl_s
        self._set_alarm()
        return held.ttl_s

    async def revoke(self, lease: int) -> None:
        self._begin()
        self._end_lease(lease)

    def expire(self) -> None:
        """End the leases whose time is over. Every call does this first; with a clock moved by hand, call it after moving."""
        now = self._now()
        for lease in [number for number, held in self._leases.items() if held.until <= now]:
            self._end_lease(lease)

    async def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    # -- faults ----------------------------------------------------------------------------------------------------------------

    def fail_next(self, calls: int = 1) -> None:
        """The next `calls` calls raise Unavailable and do nothing."""
        self._failures += calls

    def drop_watchers(self) -> None:
        """Every open watch raises Unavailable; what it had not given out yet comes with the next watch."""
        for watcher in self._watchers:
            watcher.broken = True
            watcher.arrived.set()

    def lose_events(self) -> None:
        """Every open watch forgets what it has not given out yet, as etcd 3.4 can: only a list finds out."""
        for watcher in self._watchers:
            watcher.pending.clear()

    def compact(self, store_rev: int = 0) -> None:
        """Forget history before `store_rev` (0: all of it)."""
        self._compacted = max(self._compacted, store_rev or self._rev)
        while self._history and self._history[0].rev < self._compacted:
            self._history.popleft()

    # -- inside ----------------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._failures:
            self._failures -= 1
            raise Unavailable("ordered by the test: fail_next")
        self.expire()

    def _now(self) -> float:
        return asyncio.get_running_loop().time() if self._clock is None else self._clock.now()

    def _under(self, prefix: str) -> Iterable[Entry]:
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[index]
            if not key.startswith(prefix):
                return
            yield self._entries[key]

    def _write(self, writes: Iterable[Put | Delete]) -> int:
        writes = tuple(writes)
        for write in writes:
            if isinstance(write, Put) and write.lease and write.lease not in self._leases:
                raise LeaseLost("the lease expired or was revoked")
        rev = self._rev + 1
        effective = [w for w in writes if isinstance(w, Put) or w.key in self._entries]
        if effective:
            self._rev = rev
            before = tuple(self._entries.get(w.key) for w in effective)
            changes = tuple(self._apply(w, rev) for w in effective)
            self._history.append(_Written(rev, changes, before))
            if len(self._history) > self._history_limit:
                self.compact(self._history[1].rev)
            for watcher in self._watchers:
                watcher.offer(changes)
        return self._rev

    def _apply(self, write: Put | Delete, rev: int) -> Change:
        old = self._entries.get(write.key)
        if old is not None and old.lease in self._leases:
            self._leases[old.lease].keys.discard(write.key)
        previous = old.value if old is not None else None
        if isinstance(write, Delete):
            del self._entries[write.key]
            del self._keys[bisect_left(self._keys, write.key)]
            return Change(write.key, None, rev, 0, previous)
        if old is None:
            insort(self._keys, write.key)
        entry = Entry(write.key, bytes(write.value), rev, old.created_rev if old else rev, write.lease)
        self._entries[write.key] = entry
        if write.lease:
            self._leases[write.lease].keys.add(write.key)
        return Change(write.key, entry.value, rev, entry.created_rev, previous)

    def _end_lease(self, lease: int) -> None:
        held = self._leases.pop(lease, None)
        if held is not None:
            self._write(Delete(key) for key in sorted(held.keys))

    def _set_alarm(self) -> None:
        """Expiry is an event of its own: watchers hear of it also when nobody calls."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._leases:
            wait_s = max(min(held.until for held in self._leases.values()) - self._now(), 0.001)
            self._alarm = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self.expire()
        self._set_alarm()

    def _as_of(self, prefix: str, at: int) -> Iterable[Entry]:
        """The present with every later transaction undone."""
        entries = {entry.key: entry for entry in self._under(prefix)}
        for written in reversed(self._history):
            if written.rev <= at:
                break
            for change, before in zip(written.changes, written.before, strict=True):
                if before is not None:
                    entries[change.key] = before
                else:
                    entries.pop(change.key, None)
        return (entries[key] for key in sorted(entries) if key.startswith(prefix))
