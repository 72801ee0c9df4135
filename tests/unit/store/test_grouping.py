"""Commits that come faster than the store takes them go together, and stay what they were alone."""

import asyncio

import pytest

from store.errors import Conflict, Unavailable
from store.grouping import OPERATIONS, Grouped
from store.memory import MemoryStore
from store.txn import Delete, Guard, Put, Txn


class Slow(MemoryStore):
    """Takes a commit when told to; `taken` are those."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Txn] = []
        self.gate = asyncio.Semaphore(0)

    async def commit(self, txn: Txn) -> int:
        self.taken.append(txn)
        await self.gate.acquire()
        return await super().commit(txn)


def put(key: str, *guards: Guard) -> Txn:
    return Txn(guards, (Put(key, b"x"),))


async def begun(grouped: Grouped, *txns: Txn) -> list[asyncio.Task[int]]:
    """Each commit begun, in order."""
    tasks = [asyncio.create_task(grouped.commit(txn)) for txn in txns]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def released(store: Slow, *tasks: asyncio.Task[int]) -> list[int | BaseException]:
    """What became of them when the store takes everything."""
    for _ in range(50):
        store.gate.release()
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_alone_goes_at_once_and_those_that_come_meanwhile_go_together() -> None:
    store = Slow()
    tasks = await begun(Grouped(store), put("a"), put("b"), put("c"))
    assert [len(txn.writes) for txn in store.taken] == [1]
    revs = await released(store, *tasks)
    assert [[write.key for write in txn.writes] for txn in store.taken] == [["a"], ["b", "c"]]
    assert revs[1] == revs[2] != revs[0]
    assert {entry.key for entry in (await store.list("")).entries} == {"a", "b", "c"}


async def test_what_comes_soon_after_another_waits_for_company_and_what_comes_later_does_not() -> None:
    store, loop = MemoryStore(), asyncio.get_running_loop()
    grouped = Grouped(store, 0.1)
    began = loop.time()
    first = await grouped.commit(put("a"))
    assert loop.time() - began < 0.09
    together = await asyncio.gather(*(grouped.commit(put(key)) for key in "bcd"))
    assert loop.time() - began >= 0.1
    assert set(together) == {first + 1}
    await asyncio.sleep(0.11)
    began = loop.time()
    assert await grouped.commit(put("e")) == first + 2
    assert loop.time() - began < 0.09


async def test_a_guard_that_does_not_hold_refuses_its_own_transaction_alone() -> None:
    store = Slow()
    tasks = await begun(Grouped(store), put("a"), put("b", Guard("b", 7)), put("c", Guard("c", 0)))
    _, refused, written = await released(store, *tasks)
    assert isinstance(refused, Conflict)
    assert isinstance(written, int)
    assert await store.get("b") is None
    assert await store.get("c") is not None


async def test_what_writes_a_key_that_another_of_the_group_names_waits_for_the_next() -> None:
    store = Slow()
    after_b = Txn((Guard("b", 0),), (Put("d", b""),))
    tasks = await begun(Grouped(store), put("a"), put("b"), after_b, Txn(writes=(Delete("b"),)))
    outcomes = await released(store, *tasks)
    assert [[write.key for write in txn.writes] for txn in store.taken] == [["a"], ["b"], ["d"], ["b"]]
    assert isinstance(outcomes[2], Conflict), "it is guarded by a key that the one before it had made"
    assert isinstance(outcomes[3], int)


async def test_a_group_carries_one_fence_once_and_no_more_than_etcd_takes() -> None:
    store = Slow()
    fence = Guard("leader", created_rev=0)
    many = [put(f"k{number}", fence, Guard(f"k{number}", 0)) for number in range(2 * OPERATIONS)]
    tasks = await begun(Grouped(store), put("a"), *many)
    assert not [each for each in await released(store, *tasks) if not isinstance(each, int)]
    assert max(len(txn.guards) for txn in store.taken) <= OPERATIONS
    assert len(store.taken) == 4
    assert all(txn.guards.count(fence) == 1 for txn in store.taken[1:])


async def test_a_store_that_is_away_tells_everyone_that_the_outcome_is_unknown() -> None:
    store = Slow()
    grouped = Grouped(store)
    tasks = await begun(grouped, put("a"), put("b"), put("c"))
    store.fail_next(2)
    assert [type(each) for each in await released(store, *tasks)] == [Unavailable] * 3
    assert isinstance((await released(store, *await begun(grouped, put("d"))))[0], int), "and it goes on"


async def test_who_gives_up_takes_nobody_with_him() -> None:
    store = Slow()
    first, second, third = await begun(Grouped(store), put("a"), put("b"), put("c"))
    first.cancel()
    second.cancel()
    outcomes = await released(store, first, second, third)
    assert isinstance(outcomes[2], int)
    assert await store.get("b") is None


async def test_one_that_is_cancelled_on_its_way_lets_the_others_of_its_group_through() -> None:
    store = Slow()
    first, second, third = await begun(Grouped(store), put("a"), put("b"), put("c"))
    store.gate.release()
    await asyncio.wait_for(first, 5)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(store.taken[1].writes) == 2
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert isinstance((await released(store, third))[0], int)
