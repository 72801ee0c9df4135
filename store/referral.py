"""What a node may read because it runs it: the revisions of its assignments, and the Secrets and ConfigMaps of those."""

import asyncio

from store import keys
from store.backend import Store
from store.model import Assignment, Revision, decode
from store.roles import Span, named_by
from store.watch import Table


class Referral:
    """One node's. Its assignments are followed from the first question on; `close()` ends that."""

    def __init__(self, store: Store, node: str) -> None:
        self._store, self._prefix = store, keys.assignments(node)
        self._table = Table(store, self._prefix, Assignment)
        self._named: dict[str, frozenset[str]] = {}
        """By revision: what it names. Kept while an assignment is there: revisions do not change."""
        self._job: asyncio.Task[None] | None = None

    async def keys(self, span: Span) -> list[str]:
        """All keys of `span` that it may read, in order. Raises StoreError."""
        await self._follow()
        return sorted(await self._within(span, [each for _, each in self._table.items()]))

    async def allows(self, key: str) -> bool:
        """Whether it may read `key`. Raises StoreError."""
        await self._follow()
        span = Span(key.encode())
        if await self._within(span, [each for _, each in self._table.items()]):
            return True
        # The node may know of an assignment before this table does.
        listing = await self._store.list(self._prefix)
        return bool(await self._within(span, [decode(Assignment, entry.value) for entry in listing.entries]))

    async def close(self) -> None:
        if self._job is not None:
            self._job.cancel()
            await asyncio.gather(self._job, return_exceptions=True)

    async def _follow(self) -> None:
        if self._job is None:
            self._job = asyncio.get_running_loop().create_task(self._table.run(), name=f"referral {self._prefix}")
        await self._table.synced()

    async def _within(self, span: Span, assignments: list[Assignment]) -> set[str]:
        wanted = {each.revision_key: each for each in assignments}
        for revision in [known for known in self._named if known not in wanted]:
            del self._named[revision]
        found = {key for revision in wanted if span.holds(key := keys.REVISIONS + revision)}
        if span.start.startswith(keys.REVISIONS.encode()):
            return found
        for revision in wanted:
            found |= {key for key in await self._names(revision) if span.holds(key)}
        return found

    async def _names(self, revision: str) -> frozenset[str]:
        known = self._named.get(revision)
        if known is None:
            entry = await self._store.get(keys.REVISIONS + revision)
            if entry is None:
                return frozenset()
            known = self._named[revision] = named_by(decode(Revision, entry.value))
        return known
