"""Tables: in step with the store whatever happens to watches, calls and history."""

import asyncio

import pytest

from store.backend import Listing
from store.memory import MemoryStore
from store.model import Member, encode
from store.txn import Put, Txn
from store.watch import Table

pytestmark = pytest.mark.looptime

P = "/ebb/members/"


def member(name: str, address: str = "") -> bytes:
    return encode(Member(role="r", member=name, address=address))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Kept:
    """A table with everything its callbacks were told, kept by the told differences alone."""

    def __init__(self, store: MemoryStore, compare_s: float = 30) -> None:
        self.told: dict[str, Member] = {}
        self.calls: list[str] = []
        self.batches = 0
        self.table = Table(store, P, Member, self._on_change, compare_s=compare_s)
        self.table.on_batch = self._on_batch
        self.running = asyncio.create_task(self.table.run())

    def _on_change(self, key: str, new: Member | None, old: Member | None) -> None:
        assert self.told.get(key) == old
        self.calls.append(key)
        if new is None:
            del self.told[key]
        else:
            self.told[key] = new

    def _on_batch(self) -> None:
        self.batches += 1

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


async def test_it_holds_what_was_there_and_what_comes() -> None:
    store = MemoryStore()
    await store.put(P + "a", member("a"))
    await store.put("/ebb/other", b"")
    kept = Kept(store)
    await kept.table.synced()
    await store.put(P + "b", member("b"))
    await store.delete(P + "a")
    await settle()
    assert dict(kept.table.items()) == kept.told == {P + "b": Member(role="r", member="b")}
    entry = kept.table.entry(P + "b")
    assert entry is not None
    assert entry.value == member("b")
    assert kept.table.get(P + "a") is None
    assert len(kept.table) == 1
    await kept.close()


async def test_one_transaction_is_one_batch() -> None:
    store = MemoryStore()
    kept = Kept(store)
    await kept.table.synced()
    await store.commit(Txn(writes=(Put(P + "a", member("a")), Put(P + "b", member("b")), Put(P + "c", member("c")))))
    await settle()
    assert (len(kept.calls), kept.batches) == (3, 1)
    await kept.close()


async def test_a_value_that_cannot_be_decoded_is_skipped_and_the_known_one_stays() -> None:
    store = MemoryStore()
    kept = Kept(store)
    await kept.table.synced()
    await store.put(P + "a", member("a"))
    await store.put(P + "a", b"{not json")
    await store.put(P + "b", b'{"role": 7}')
    await store.put(P + "c", member("c"))
    await settle()
    assert sorted(kept.told) == [P + "a", P + "c"]
    await store.delete(P + "a")
    await store.delete(P + "b")
    await settle()
    assert sorted(kept.told) == [P + "c"]
    await kept.close()


async def test_the_same_value_written_again_is_no_difference_but_its_revision_is_known() -> None:
    store = MemoryStore()
    kept = Kept(store)
    await kept.table.synced()
    await store.put(P + "a", member("a"))
    again = await store.put(P + "a", member("a"))
    await settle()
    entry = kept.table.entry(P + "a")
    assert entry is not None
    assert (entry.store_rev, kept.calls) == (again, [P + "a"])
    await kept.close()


async def test_it_says_what_is_wrong_until_it_is_well() -> None:
    store = MemoryStore()
    store.fail_next(3)
    kept = Kept(store)
    await settle()
    assert "fail_next" in (kept.table.problem() or "")
    await kept.table.synced()
    assert kept.table.problem() is None
    await kept.close()


async def test_events_a_server_lost_are_found_by_comparing() -> None:
    store = MemoryStore()
    await store.put(P + "old", member("old"))
    kept = Kept(store)
    await kept.table.synced()
    await settle()
    await store.put(P + "a", member("a"))
    await store.delete(P + "old")
    store.lose_events()
    await settle()
    assert sorted(kept.told) == [P + "old"]
    await asyncio.sleep(31)
    assert sorted(kept.told) == [P + "a"]
    await kept.close()


async def test_a_store_restored_from_a_backup_is_believed() -> None:
    store = MemoryStore()
    for number in range(10):
        await store.put(P + "a", member("a", str(number)))
    await store.put(P + "b", member("b"))
    kept = Kept(store)
    await kept.table.synced()
    await settle()
    backup = MemoryStore()
    await backup.put(P + "a", member("a", "from the backup"))
    vars(store).update({k: v for k, v in vars(backup).items() if k != "_watchers"})
    await asyncio.sleep(31)
    assert {key: value.address for key, value in kept.told.items()} == {P + "a": "from the backup"}
    await store.put(P + "c", member("c"))
    await settle()
    assert sorted(kept.told) == [P + "a", P + "c"]
    await kept.close()


async def test_a_list_that_is_older_than_what_events_told_takes_nothing_back() -> None:
    class Slow(MemoryStore):
        """Answers a list later than it was taken."""

        delay = 0.0

        async def list(self, prefix: str, *, at: int = 0, since: int = 0) -> Listing:
            listing = await super().list(prefix, at=at, since=since)
            await asyncio.sleep(self.delay)
            return listing

    store = Slow()
    await store.put(P + "a", member("a"))
    await store.put(P + "b", member("b", "1"))
    kept = Kept(store, compare_s=10)
    await kept.table.synced()
    store.delay = 5
    await asyncio.sleep(11)  # a comparing list is on its way
    await store.delete(P + "a")
    await store.put(P + "b", member("b", "2"))
    await store.put(P + "c", member("c"))
    await asyncio.sleep(6)
    assert kept.calls == [P + "a", P + "b", P + "a", P + "b", P + "c"]
    assert {key: value.address for key, value in kept.told.items()} == {P + "b": "2", P + "c": ""}
    await kept.close()


async def test_what_a_callback_raises_ends_the_table() -> None:
    store = MemoryStore()

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    table = Table(store, P, Member, broken)
    running = asyncio.create_task(table.run())
    await table.synced()
    await store.put(P + "a", member("a"))
    with pytest.raises(ExceptionGroup):
        await running


async def test_a_slim_table_tells_of_the_whole_and_keeps_less() -> None:
    store = MemoryStore()
    await store.put("/ebb/members/a", member("a", "1.1.1.1:1"))
    told: list[str] = []
    slim = Table(
        store,
        "/ebb/members/",
        Member,
        lambda key, new, old: told.append(new.address if new else "gone"),
        slim=lambda m: Member(role=m.role, member=m.member),
    )
    task = asyncio.create_task(slim.run())
    await slim.synced()
    rev = await store.put("/ebb/members/a", member("a", "2.2.2.2:2"))
    await settle()
    again = await store.put("/ebb/members/a", member("a", "2.2.2.2:2"))
    await settle()
    kept, entry = slim.get("/ebb/members/a"), slim.entry("/ebb/members/a")
    assert kept is not None
    assert kept.address == ""
    assert entry is not None
    assert entry.store_rev == again > rev
    assert len(entry.value) == 8
    assert told == ["1.1.1.1:1", "2.2.2.2:2"]
    task.cancel()
