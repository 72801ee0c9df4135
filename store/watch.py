"""A prefix of the store kept in memory and up to date.

A watch is a hint, a list is the truth: events are applied as they come, and every COMPARE_S what changed since the last time is
listed and applied too; when the number of keys is another then, everything is. So events that a server lost, or a store that was
restored from a backup, are made good by themselves, and a prefix where nothing happens costs nothing.
"""

import asyncio
import random
from collections.abc import Callable, ItemsView
from contextlib import aclosing
from hashlib import blake2b
from typing import Generic, TypeVar

import msgspec

from process import logs
from store.backend import Change, Entry, Listing, Store
from store.errors import Compacted, StoreError, Unavailable
from store.model import Model, decode

T = TypeVar("T", bound=Model)

COMPARE_S = 30.0
RETRY_MAX_S = 1.0

_log = logs.get("store")


class _WentBack(Exception):
    """The store is at an earlier store_rev than it was: it lost its history."""


class Table(Generic[T]):
    """All values of `kind` under `prefix`.

    `on_change(key, new, old)` is called for every difference, also after a list; `new` None: deleted. `on_batch`, when set, is
    called once after all changes of one transaction or one list. Both must not block; what they raise ends `run`.
    A value that cannot be decoded is logged and skipped: what was known of its key stays.
    `slim`, when set, says what is kept of a value, for tables of very many; `on_change` gets `new` as a whole and `old` as it was
    kept, and `entry(key).value` is a digest.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        kind: type[T],
        on_change: Callable[[str, T | None, T | None], None] | None = None,
        *,
        compare_s: float = COMPARE_S,
        slim: Callable[[T], T] | None = None,
    ) -> None:
        self.on_batch: Callable[[], None] | None = None
        self._store = store
        self._prefix = prefix
        self._kind = kind
        self._on_change = on_change
        self._compare_s = compare_s
        self._slim = slim
        self._values: dict[str, T] = {}
        self._entries: dict[str, Entry] = {}
        self._gone: dict[str, int] = {}
        """Keys deleted while a list is on its way, and when: the list may still hold them."""
        self._listing = False
        self._floor = 0
        """Everything up to this store_rev is in the table: events of it come too late."""
        self._seen = 0
        self._synced = asyncio.Event()
        self._problem: str | None = f"{prefix}: not listed yet"

    # -- what is known ---------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> T | None:
        return self._values.get(key)

    def items(self) -> ItemsView[str, T]:
        """A live view: take a copy to hold it over an `await`."""
        return self._values.items()

    def entry(self, key: str) -> Entry | None:
        """The bytes as stored, with their store_rev for a guard."""
        return self._entries.get(key)

    async def synced(self) -> None:
        """Wait until the first list is in."""
        await self._synced.wait()

    def problem(self) -> str | None:
        """Why the table may be out of date, for /readyz; None when it is well."""
        return self._problem

    # -- keeping it ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the table up to date; never returns."""
        while True:
            listing = await self._list()
            self._take(listing, forced=True)  # nothing is watched now: its word counts and not ours
            self._seen = listing.store_rev
            self._synced.set()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._compare_for_ever(), name=f"compare {self._prefix}")
                    await self._follow(listing.store_rev)
            except* (Compacted, _WentBack) as again:
                _log.info("listing again", prefix=self._prefix, why=[str(error) for error in again.exceptions])

    async def _follow(self, after: int) -> None:
        pause_s = 0.02
        while True:
            try:
                async with aclosing(self._store.watch(self._prefix, after=after, previous=False)) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        after = batch[0].store_rev
                        pause_s = 0.02
                        self._apply(batch)
            except Unavailable as error:
                _log.debug("watch ended; opened again", prefix=self._prefix, error=str(error))
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    async def _compare_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._compare_s * random.uniform(0.8, 1))
            seen = max(self._seen, self._floor)
            listing = await self._list(since=self._floor)
            if listing.store_rev < seen:
                raise _WentBack(f"the store is at {listing.store_rev} and was at {seen}")
            if not self._take_changed(listing):
                self._take(await self._list())

    async def _list(self, since: int = 0) -> Listing:
        pause_s = 0.05
        self._listing = True
        while True:
            try:
                listing = await self._store.list(self._prefix, since=since)
            except StoreError as error:
                self._problem = f"{self._prefix}: {error}"
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                self._problem = None
                return listing

    # -- changing it -----------------------------------------------------------------------------------------------------------

    def _apply(self, batch: tuple[Change, ...]) -> None:
        changed = False
        for change in batch:
            self._seen = max(self._seen, change.store_rev)
            if change.store_rev <= self._floor:
                continue
            if change.value is None:
                changed |= self._drop(change.key)
                if self._listing:
                    self._gone[change.key] = change.store_rev
            else:
                changed |= self._put(Entry(change.key, change.value, change.store_rev, change.created_rev))
        if changed and self.on_batch is not None:
            self.on_batch()

    def _take_changed(self, listing: Listing) -> bool:
        """Apply what changed since the last list. False: that does not make the table what the store holds.

        All that was put since is in `listing`, so the table holds every key of the store, and more only when a deletion was
        lost: then it holds more keys than there are. With events of later times in the table the numbers say nothing.
        """
        if self._seen > listing.store_rev:
            return False
        changed = False
        for entry in listing.entries:
            changed |= self._put(entry)
        if changed and self.on_batch is not None:
            self.on_batch()
        if len(self._entries) != listing.total:
            return False
        self._floor = listing.store_rev
        self._gone.clear()
        self._listing = False
        return True

    def _take(self, listing: Listing, *, forced: bool = False) -> None:
        """Make the table what `listing` says; unless `forced`, except for what events told of later times."""
        changed = False
        listed = {entry.key for entry in listing.entries}
        for key in [key for key in self._entries if key not in listed]:
            if forced or self._entries[key].store_rev <= listing.store_rev:
                changed |= self._drop(key)
        for entry in listing.entries:
            known = self._entries.get(entry.key)
            told = max(known.store_rev if known else 0, self._gone.get(entry.key, 0))
            if forced or told <= listing.store_rev:
                changed |= self._put(entry)
        self._floor = listing.store_rev
        self._gone.clear()
        self._listing = False
        if changed and self.on_batch is not None:
            self.on_batch()

    def _put(self, entry: Entry) -> bool:
        known, value = self._entries.get(entry.key), entry.value
        if self._slim is not None:
            entry = Entry(entry.key, blake2b(value, digest_size=8).digest(), entry.store_rev, entry.created_rev)
        self._entries[entry.key] = entry
        if known is not None and known.value == entry.value and known.created_rev == entry.created_rev:
            return False
        try:
            new = decode(self._kind, value)
        except msgspec.DecodeError as error:
            _log.error("cannot be decoded; skipped", key=entry.key, kind=self._kind.__name__, error=str(error))
            return False
        old = self._values.get(entry.key)
        self._values[entry.key] = new if self._slim is None else self._slim(new)
        if self._on_change is not None:
            self._on_change(entry.key, new, old)
        return True

    def _drop(self, key: str) -> bool:
        self._entries.pop(key, None)
        old = self._values.pop(key, None)
        if old is None:
            return False
        if self._on_change is not None:
            self._on_change(key, None, old)
        return True
