"""One leader of several candidates. Whoever holds `elections/<name>` under its lease leads; the key's created_rev is its term."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from process import logs
from store import keys
from store.backend import Entry, Store
from store.errors import Compacted, Conflict, LeaseLost, StoreError, Unavailable
from store.txn import Guard, Put, Txn

_log = logs.get("store")

SAFETY = 2 / 3
"""Share of the lease's time after which a leader that could not renew it stops, well before another can be elected."""


async def lead(store: Store, name: str, member: str, ttl_s: float, while_leading: Callable[[Guard], Awaitable[None]]) -> None:
    """Campaign for `name`; run `while_leading(guard)` while elected, cancelled at once when leadership is lost.

    `guard` belongs into every transaction that only the leader may write: it stops holding the moment another is elected, also
    for a leader that does not know yet. Campaigns again after a loss; returns, resigned, when `while_leading` returns, and
    raises what it raises. While the store is away it waits.
    """
    while True:
        lease = 0
        try:
            lease = await store.grant(ttl_s)
            guard = await _elected(store, name, member, lease, ttl_s)
            _log.info("elected", election=name, member=member, term=guard.created_rev)
            leading = asyncio.ensure_future(while_leading(guard))
            await _while_renewed(store, lease, ttl_s, leading)
            break
        except (Unavailable, LeaseLost, Compacted) as error:
            _log.warning("not leading; campaigning again", election=name, member=member, error=str(error))
        finally:
            if lease:
                await _resign(store, lease)
        await asyncio.sleep(random.uniform(0.05, 0.25))
    leading.result()


async def leader(store: Store, name: str) -> Entry | None:
    """Who leads `name` now: the entry's value is the member."""
    return await store.get(keys.election(name))


async def _elected(store: Store, name: str, member: str, lease: int, ttl_s: float) -> Guard:
    """Wait until the key is ours. Raises LeaseLost, Unavailable, Compacted."""
    claiming = asyncio.ensure_future(_claim(store, name, member, lease))
    await _while_renewed(store, lease, ttl_s, claiming)
    return claiming.result()


async def _claim(store: Store, name: str, member: str, lease: int) -> Guard:
    key = keys.election(name)
    claim = Txn((Guard(key, 0),), (Put(key, member.encode(), lease),), why=f"election of {name}")
    while True:
        try:
            return Guard(key, created_rev=await store.commit(claim))
        except Conflict:
            await _vacant(store, key)


async def _vacant(store: Store, key: str) -> None:
    listing = await store.list(key)
    if not any(entry.key == key for entry in listing.entries):
        return
    async with aclosing(store.watch(key, after=listing.store_rev, previous=False)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            if any(change.key == key and change.value is None for change in batch):
                return


async def _while_renewed(store: Store, lease: int, ttl_s: float, work: asyncio.Future[Any]) -> None:
    """Renew the lease until `work` is done, or cancel it and raise LeaseLost when the lease is gone or may be soon."""
    renewing = asyncio.ensure_future(_renew_for_ever(store, lease, ttl_s))
    try:
        await asyncio.wait((work, renewing), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            renewing.result()
    finally:
        work.cancel()
        renewing.cancel()
        await asyncio.gather(work, renewing, return_exceptions=True)


async def _renew_for_ever(store: Store, lease: int, ttl_s: float) -> None:
    """Returns never; raises LeaseLost when the lease is gone or may be soon."""
    loop = asyncio.get_running_loop()
    confirmed = loop.time()
    while True:
        await asyncio.sleep(ttl_s / 5)
        asked = loop.time()
        try:
            async with asyncio.timeout(max(confirmed + ttl_s * SAFETY - asked, 0)):
                await store.keep_alive(lease)
        except TimeoutError:
            raise LeaseLost(f"lease {lease:x} was not renewed for {loop.time() - confirmed:.1f} s of {ttl_s:g}") from None
        except Unavailable:
            if loop.time() - confirmed > ttl_s * SAFETY:
                raise LeaseLost(f"lease {lease:x} was not renewed for {loop.time() - confirmed:.1f} s of {ttl_s:g}") from None
        else:
            confirmed = asked


async def _resign(store: Store, lease: int) -> None:
    try:
        async with asyncio.timeout(2):
            await store.revoke(lease)
    except (StoreError, TimeoutError) as error:
        _log.debug("resigned by expiry", lease=f"{lease:x}", error=str(error))
