"""What every watch does: order, transactions together, no gap, no repeat, Compacted."""

from collections.abc import Callable

import pytest

from store.backend import Change, Store
from store.errors import Compacted
from store.txn import Delete, Put, Txn
from tests.contract.conftest import Watched
from tests.contract.test_store import compact

pytestmark = pytest.mark.real
Begin = Callable[[Store, str, int], Watched]


async def test_a_watch_goes_on_exactly_after_the_list(either: Store, watched: Begin) -> None:
    await either.put("/ebb/a", b"1")
    listing = await either.list("/ebb/")
    rev = await either.put("/ebb/a", b"2")
    seen = watched(either, "/ebb/", listing.store_rev)
    await seen.until(lambda w: len(w.changes) == 1)
    assert seen.changes == [Change("/ebb/a", b"2", rev, listing.entries[0].created_rev, b"1")]


async def test_changes_come_in_order_those_of_one_transaction_together(either: Store, watched: Begin) -> None:
    start = (await either.list("/ebb/")).store_rev
    seen = watched(either, "/ebb/", start)
    one = await either.put("/ebb/a", b"1")
    two = await either.commit(Txn(writes=(Put("/ebb/a", b"2"), Put("/ebb/b", b"2"), Put("/else", b""))))
    three = await either.commit(Txn(writes=(Delete("/ebb/a"), Put("/ebb/c", b"3"))))
    await seen.until(lambda w: len(w.batches) == 3)
    assert [[(c.key, c.value, c.store_rev) for c in batch] for batch in seen.batches] == [
        [("/ebb/a", b"1", one)],
        [("/ebb/a", b"2", two), ("/ebb/b", b"2", two)],
        [("/ebb/a", None, three), ("/ebb/c", b"3", three)],
    ]


async def test_a_deletion_carries_what_was_there(either: Store, watched: Begin) -> None:
    start = await either.put("/ebb/a", b"last words")
    seen = watched(either, "/ebb/", start)
    await either.delete("/ebb/a")
    await seen.until(lambda w: len(w.changes) == 1)
    assert (seen.changes[0].value, seen.changes[0].previous) == (None, b"last words")


async def test_a_watch_that_does_not_ask_is_not_told_what_was_there(either: Store, watched: Callable[..., Watched]) -> None:
    start = await either.put("/ebb/a", b"1")
    seen = watched(either, "/ebb/", start, previous=False)
    await either.put("/ebb/a", b"2")
    await either.delete("/ebb/a")
    await seen.until(lambda w: len(w.changes) == 2)
    assert [(change.value, change.previous) for change in seen.changes] == [(b"2", None), (None, None)]


async def test_a_watch_hears_its_prefix_alone(either: Store, watched: Begin) -> None:
    start = (await either.list("")).store_rev
    seen = watched(either, "/ebb/a/", start)
    for key in ("/ebb/a", "/ebb/ab", "/ebb/a/1", "/ebb/b", "/ebb/a/2"):
        await either.put(key, b"")
    await seen.until(lambda w: len(w.changes) == 2)
    assert [change.key for change in seen.changes] == ["/ebb/a/1", "/ebb/a/2"]


async def test_history_is_given_out_from_any_revision_that_is_kept(either: Store, watched: Begin) -> None:
    start = (await either.list("/ebb/")).store_rev
    revs = [await either.put("/ebb/a", str(number).encode()) for number in range(1500)]
    seen = watched(either, "/ebb/", start)
    await seen.until(lambda w: len(w.changes) == 1500)
    assert [change.store_rev for change in seen.changes] == revs
    late = watched(either, "/ebb/", revs[1000])
    await late.until(lambda w: len(w.changes) == 499)
    assert [change.store_rev for change in late.changes] == revs[1001:]


async def test_a_watch_from_before_a_compaction_is_told_so(either: Store, watched: Begin) -> None:
    old = await either.put("/ebb/a", b"1")
    for number in range(5):
        now = await either.put("/ebb/a", str(number).encode())
    await compact(either, now)
    seen = watched(either, "/ebb/", old)
    with pytest.raises(Compacted) as caught:
        await seen.until(lambda w: len(w.changes) == 5)
    assert caught.value.compact_rev == now
    fresh = watched(either, "/ebb/", now)
    after = await either.put("/ebb/b", b"")
    await fresh.until(lambda w: len(w.changes) == 1)
    assert fresh.changes[0].store_rev == after


async def test_a_compaction_does_not_disturb_a_watch_that_keeps_up(either: Store, watched: Begin) -> None:
    start = (await either.list("/ebb/")).store_rev
    seen = watched(either, "/ebb/", start)
    first = await either.put("/ebb/a", b"1")
    await seen.until(lambda w: len(w.changes) == 1)
    await compact(either, first)
    second = await either.put("/ebb/a", b"2")
    await seen.until(lambda w: len(w.changes) == 2)
    assert [change.store_rev for change in seen.changes] == [first, second]


async def test_many_watches_of_one_client_each_get_everything(either: Store, watched: Begin) -> None:
    start = (await either.list("/ebb/")).store_rev
    seen = [watched(either, "/ebb/", start) for _ in range(20)]
    revs = [await either.put(f"/ebb/{number}", b"") for number in range(20)]
    for one in seen:
        await one.until(lambda w: len(w.changes) == 20)
        assert [change.store_rev for change in one.changes] == revs
