"""Keys that live as long as this process does."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from process import logs
from store.backend import Store
from store.errors import LeaseLost, StoreError, Unavailable
from store.grouping import Grouped
from store.txn import Delete, Put, Txn

R = TypeVar("R")

RETRY_MAX_S = 1.0
TOGETHER_S = 0.05
"""What is put so soon after something else may wait so long, for who must know at once hears it on the bus."""

_log = logs.get("store")


class Presence:
    """A lease of `ttl_s` seconds, renewed every third of it, and the keys that hang on it.

    What was put is made true for as long as the presence lives: after the store was away, and under a new lease after the
    old one was lost. One Presence writes a key; nobody else does.
    """

    def __init__(self, store: Store, ttl_s: float) -> None:
        self._store = store
        self._commits = Grouped(store, TOGETHER_S)
        self._ttl_s = ttl_s
        self._wanted: dict[str, bytes] = {}
        self._written: dict[str, tuple[int, bytes]] = {}
        """What stands in the store by our own hand: key → (lease, value)."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._lease = 0
        self._renewer: asyncio.Task[None] | None = None
        self._dirty = asyncio.Event()
        self._problem: str | None = None
        self.on_regrant: Callable[[], None] | None = None
        """Called when the lease was lost and a new one is held: for some time the keys were gone."""

    @property
    def lease(self) -> int:
        """The lease held now; 0 before `start`."""
        return self._lease

    def problem(self) -> str | None:
        """Why others may believe this process gone, for /readyz; None when all is well."""
        return self._problem

    async def start(self) -> None:
        """Get a lease and begin to renew it. Tries for as long as the store is away."""
        self._lease = await self._insist(lambda: self._store.grant(self._ttl_s))
        self._renewer = asyncio.get_running_loop().create_task(self._renew_for_ever(), name="lease")

    async def put(self, key: str, value: bytes) -> bool:
        """Keep `key` at `value`. True: it stands in the store now; False: the store is away and it follows later."""
        self._wanted[key] = value
        return await self._make_true(key)

    async def delete(self, key: str) -> bool:
        """Keep `key` away. True: it is gone now; False: the store is away and it follows later."""
        self._wanted.pop(key, None)
        return await self._make_true(key)

    async def stop(self, *, revoke: bool = True) -> None:
        """End the lease: all keys go at once. With the store away, or `revoke` False (somebody takes over), they go when its
        time is over."""
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.gather(self._renewer, return_exceptions=True)
        if self._lease and revoke:
            lease, self._lease = self._lease, 0
            try:
                async with asyncio.timeout(min(self._ttl_s, 2)):
                    await self._store.revoke(lease)
            except (StoreError, TimeoutError) as error:
                _log.warning("lease left to expire", lease=f"{lease:x}", ttl_s=self._ttl_s, error=str(error))

    async def _make_true(self, key: str) -> bool:
        # One write of a key at a time, and always of what is wanted last: a late older value cannot win.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            value, lease = self._wanted.get(key), self._lease
            try:
                if value is None:
                    await self._commits.commit(Txn(writes=(Delete(key),)))
                    self._written.pop(key, None)
                elif self._written.get(key) != (lease, value):
                    await self._commits.commit(Txn(writes=(Put(key, value, lease),)))
                    self._written[key] = (lease, value)
            except (Unavailable, LeaseLost) as error:
                self._problem = f"{key} is not written: {error}"
                self._written.pop(key, None)
                self._dirty.set()
                return False
            if value is None and key not in self._wanted:
                self._locks.pop(key, None)
            return True

    async def _renew_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._ttl_s / 3):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            self._dirty.clear()
            await self._insist(self._renew)
            await self._insist(self._repair)
            self._problem = None

    async def _renew(self) -> None:
        try:
            await self._store.keep_alive(self._lease)
        except LeaseLost:
            lease = await self._store.grant(self._ttl_s)
            _log.warning(
                "lease lost; all keys are written again", old=f"{self._lease:x}", new=f"{lease:x}", keys=len(self._wanted)
            )
            self._lease = lease
            if self.on_regrant is not None:
                self.on_regrant()

    async def _repair(self) -> None:
        """Write what is not as wanted. Raises Unavailable when that fails, so that it is tried again."""
        unmet = [key for key, value in self._wanted.items() if self._written.get(key) != (self._lease, value)]
        unmet += [key for key in self._locks if key not in self._wanted]
        for key in unmet:
            if not await self._make_true(key):
                raise Unavailable(self._problem or key)

    async def _insist(self, call: Callable[[], Awaitable[R]]) -> R:
        """What `call` returns in the end; Unavailable is tried again with a pause that grows to RETRY_MAX_S."""
        pause_s = 0.05
        while True:
            try:
                return await call()
            except Unavailable as error:
                self._problem = f"lease not renewed: {error}"
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))
                pause_s = min(pause_s * 2, RETRY_MAX_S)
