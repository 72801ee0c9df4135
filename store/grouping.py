"""Commits of one process that go together when they come faster than the store takes them.

One is on its way at a time; what comes meanwhile follows as one transaction. Whoever comes alone waits for nobody; under load the
store, and everyone who watches it, has one transaction for many.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from store.backend import Store
from store.errors import StoreError, Unavailable
from store.txn import Put, Txn

OPERATIONS = 100
"""Writes, and guards, of one group: etcd takes 128."""
BYTES = 500_000


@dataclass(slots=True, eq=False)
class _Waiting:
    txn: Txn
    done: asyncio.Future[int]


class Grouped:
    """`commit` as the store's own. One transaction's guards that do not hold do not refuse those it went with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._sending: asyncio.Task[None] | None = None

    async def commit(self, txn: Txn) -> int:
        """Write all of `txn`; the store_rev it got. Raises Conflict when a guard of it does not hold, and the store's other errors."""
        if self._busy:
            each = _Waiting(txn, asyncio.get_running_loop().create_future())
            self._waiting.append(each)
            return await each.done
        self._busy = True
        try:
            return await self._store.commit(txn)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Send what waits; nobody's cancellation cuts it off."""
        group = self._group()
        self._busy = bool(group)
        if group:
            self._sending = asyncio.get_running_loop().create_task(self._send(group), name="grouped commits")

    def _group(self) -> list[_Waiting]:
        """The first of those that wait, and those after it that can go with it, in order."""
        group: list[_Waiting] = []
        guards, written, size = dict[str, object](), set[str](), 0
        while self._waiting:
            each = self._waiting[0]
            if each.done.done():  # cancelled
                self._waiting.popleft()
                continue
            own = {guard.key: guard for guard in each.txn.guards}
            puts = {write.key for write in each.txn.writes}
            size += sum(len(write.value) for write in each.txn.writes if isinstance(write, Put))
            fits = len(guards | own) <= OPERATIONS and len(written | puts) <= OPERATIONS and size <= BYTES
            apart = not written & (puts | own.keys()) and not guards.keys() & puts
            alike = all(guards.get(key, guard) == guard for key, guard in own.items())
            if group and not (fits and apart and alike):
                break
            group.append(self._waiting.popleft())
            guards |= own
            written |= puts
        return group

    async def _send(self, group: Sequence[_Waiting]) -> None:
        try:
            if len(group) == 1 or not await self._together(group):
                await asyncio.gather(*(self._alone(each) for each in group))
        finally:
            for each in group:
                each.done.cancel()  # nothing, unless we are being cancelled
            self._go_on()

    async def _together(self, group: Sequence[_Waiting]) -> bool:
        """False: nothing of it was written, and whose fault that is shows when each goes alone."""
        guards = dict.fromkeys(guard for each in group for guard in each.txn.guards)
        writes = tuple(write for each in group for write in each.txn.writes)
        try:
            store_rev = await self._store.commit(Txn(tuple(guards), writes, f"{len(group)} together"))
        except Unavailable as error:
            for each in group:
                if not each.done.done():
                    each.done.set_exception(Unavailable(str(error)))
            return True
        except StoreError:
            return False
        for each in group:
            if not each.done.done():
                each.done.set_result(store_rev)
        return True

    async def _alone(self, each: _Waiting) -> None:
        try:
            store_rev = await self._store.commit(each.txn)
        except StoreError as error:
            if not each.done.done():
                each.done.set_exception(error)
        else:
            if not each.done.done():
                each.done.set_result(store_rev)
