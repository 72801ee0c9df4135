"""Commits of one process that go together when they come faster than one after the other.

One is on its way at a time, and begins `gap_s` after the one before it at the earliest; what comes meanwhile goes as one transaction.
Whoever comes alone waits for nobody; under load the store, its gate and everyone who watches have one transaction for many.
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

    def __init__(self, store: Store, gap_s: float = 0.0) -> None:
        self._store, self._gap_s = store, gap_s
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._free_at = float("-inf")
        """When the next may begin, of the loop's time."""
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    async def commit(self, txn: Txn) -> int:
        """Write all of `txn`; the store_rev it got. Raises Conflict when a guard of it does not hold, and the store's other errors."""
        loop = asyncio.get_running_loop()
        if self._busy or self._waiting or loop.time() < self._free_at:
            each = _Waiting(txn, loop.create_future())
            self._waiting.append(each)
            self._go_on()
            return await each.done
        self._begin(loop)
        try:
            return await self._store.commit(txn)
        finally:
            self._end()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._busy, self._free_at = True, loop.time() + self._gap_s

    def _end(self) -> None:
        self._busy = False
        self._go_on()

    def _go_on(self) -> None:
        """Send what waits, now or when its time has come; nobody's cancellation cuts it off."""
        if self._busy or self._timer is not None or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._free_at:
            self._timer = loop.call_at(self._free_at, self._due)
        elif group := self._group():
            self._begin(loop)
            self._sending = loop.create_task(self._send(group), name="grouped commits")

    def _due(self) -> None:
        self._timer, self._free_at = None, float("-inf")
        self._go_on()

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
            self._end()

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
