"""What every Store does: get, list, count, commit, guards, sizes."""

import pytest

from store.backend import Store
from store.errors import Compacted, Conflict, TooLarge
from store.txn import MAX_BYTES, Delete, Guard, Put, Txn

pytestmark = pytest.mark.real


async def test_a_key_that_was_never_written_is_none(either: Store) -> None:
    assert await either.get("/ebb/nothing") is None


async def test_a_put_is_read_back_with_its_revisions(either: Store) -> None:
    first = await either.put("/ebb/a", b"1")
    second = await either.put("/ebb/a", b"2")
    entry = await either.get("/ebb/a")
    assert entry is not None
    assert (entry.key, entry.value, entry.store_rev, entry.created_rev) == ("/ebb/a", b"2", second, first)
    assert second == first + 1


async def test_a_key_made_again_after_its_deletion_has_another_created_rev(either: Store) -> None:
    first = await either.put("/ebb/a", b"1")
    assert await either.delete("/ebb/a")
    again = await either.put("/ebb/a", b"1")
    entry = await either.get("/ebb/a")
    assert entry is not None
    assert entry.created_rev == again > first


async def test_deleting_nothing_says_so_and_takes_no_revision(either: Store) -> None:
    before = await either.put("/ebb/a", b"")
    assert not await either.delete("/ebb/other")
    assert (await either.list("/ebb/")).store_rev == before


async def test_a_list_is_ordered_by_key_and_stands_at_one_revision(either: Store) -> None:
    for name in ("b", "a/z", "a", "a/b"):
        last = await either.put(f"/ebb/{name}", name.encode())
    listing = await either.list("/ebb/")
    assert [entry.key for entry in listing.entries] == ["/ebb/a", "/ebb/a/b", "/ebb/a/z", "/ebb/b"]
    assert listing.store_rev == last


async def test_a_prefix_is_of_characters_and_not_of_path_segments(either: Store) -> None:
    for key in ("/ebb/a", "/ebb/a/1", "/ebb/ab", "/ebb/b", "/ebc"):
        await either.put(key, b"")
    assert [entry.key for entry in (await either.list("/ebb/a")).entries] == ["/ebb/a", "/ebb/a/1", "/ebb/ab"]
    assert [entry.key for entry in (await either.list("/ebb/a/")).entries] == ["/ebb/a/1"]
    assert len((await either.list("")).entries) == 5


async def test_a_count_is_the_length_of_the_list(either: Store) -> None:
    assert await either.count("/ebb/") == 0
    for number in range(7):
        await either.put(f"/ebb/{number}", b"")
    await either.put("/else", b"")
    assert await either.count("/ebb/") == 7


async def test_a_list_reads_the_past(either: Store) -> None:
    await either.put("/ebb/a", b"1")
    then = await either.put("/ebb/b", b"1")
    await either.put("/ebb/a", b"2")
    await either.delete("/ebb/b")
    await either.put("/ebb/c", b"1")
    listing = await either.list("/ebb/", at=then)
    assert [(entry.key, entry.value) for entry in listing.entries] == [("/ebb/a", b"1"), ("/ebb/b", b"1")]
    assert listing.store_rev == then


async def test_a_list_of_what_changed_since_tells_how_many_there_are(either: Store) -> None:
    await either.put("/ebb/a", b"1")
    since = await either.put("/ebb/b", b"1")
    await either.put("/ebb/c", b"1")
    last = await either.put("/ebb/a", b"2")
    listing = await either.list("/ebb/", since=since)
    assert [entry.key for entry in listing.entries] == ["/ebb/a", "/ebb/c"]
    assert (listing.total, listing.store_rev) == (3, last)
    assert (await either.list("/ebb/", since=last)).total == 3


async def test_a_list_of_many_keys_is_whole_and_of_one_revision(either: Store) -> None:
    for start in range(0, 1300, 100):
        await either.commit(Txn(writes=tuple(Put(f"/ebb/{number:05}", b"x") for number in range(start, start + 100))))
    listing = await either.list("/ebb/")
    assert [entry.key for entry in listing.entries] == [f"/ebb/{number:05}" for number in range(1300)]
    assert listing.total == 1300
    await either.delete("/ebb/00007")
    assert len((await either.list("/ebb/", at=listing.store_rev)).entries) == 1300


async def test_the_compacted_past_cannot_be_listed(either: Store) -> None:
    then = await either.put("/ebb/a", b"1")
    now = await either.put("/ebb/a", b"2")
    await compact(either, now)
    with pytest.raises(Compacted) as caught:
        await either.list("/ebb/", at=then)
    assert then < caught.value.compact_rev <= now
    assert (await either.list("/ebb/", at=now)).entries[0].value == b"2"


async def test_a_transaction_writes_all_at_one_revision(either: Store) -> None:
    await either.put("/ebb/gone", b"")
    rev = await either.commit(Txn(writes=(Put("/ebb/a", b"1"), Put("/ebb/b", b"2"), Delete("/ebb/gone"))))
    listing = await either.list("/ebb/")
    assert [(entry.key, entry.store_rev) for entry in listing.entries] == [("/ebb/a", rev), ("/ebb/b", rev)]


async def test_a_guard_that_does_not_hold_leaves_everything_as_it_was(either: Store) -> None:
    rev = await either.put("/ebb/a", b"1")
    with pytest.raises(Conflict, match="deploy of hello"):
        await either.commit(Txn((Guard("/ebb/a", rev - 1),), (Put("/ebb/a", b"2"), Put("/ebb/b", b"2")), why="deploy of hello"))
    listing = await either.list("/ebb/")
    assert [(entry.key, entry.value) for entry in listing.entries] == [("/ebb/a", b"1")]
    assert listing.store_rev == rev


async def test_guards_on_a_revision_and_on_absence_hold(either: Store) -> None:
    rev = await either.put("/ebb/a", b"1")
    await either.commit(Txn((Guard("/ebb/a", rev), Guard("/ebb/b", 0)), (Put("/ebb/b", b"1"),)))
    with pytest.raises(Conflict):
        await either.commit(Txn((Guard("/ebb/b", 0),), (Put("/ebb/b", b"2"),)))


async def test_of_two_writers_with_the_same_guard_one_wins(either: Store) -> None:
    rev = await either.put("/ebb/a", b"0")
    won = 0
    for writer in (b"1", b"2"):
        try:
            await either.commit(Txn((Guard("/ebb/a", rev),), (Put("/ebb/a", writer),)))
            won += 1
        except Conflict:
            pass
    assert won == 1


async def test_a_guard_on_the_creation_holds_through_modifications_and_not_through_a_new_creation(either: Store) -> None:
    created = await either.put("/ebb/leader", b"me")
    await either.put("/ebb/leader", b"me, renewed")
    fenced = Txn((Guard("/ebb/leader", created_rev=created),), (Put("/ebb/work", b""),))
    await either.commit(fenced)
    await either.delete("/ebb/leader")
    await either.put("/ebb/leader", b"you")
    with pytest.raises(Conflict):
        await either.commit(fenced)


async def test_128_writes_go_at_once(either: Store) -> None:
    await either.commit(Txn(writes=tuple(Put(f"/ebb/{number:03}", b"x") for number in range(128))))
    assert await either.count("/ebb/") == 128


async def test_big_values_go_and_bigger_ones_are_refused_with_the_limit(either: Store) -> None:
    big = b"x" * (MAX_BYTES - 100)
    await either.put("/ebb/big", big)
    entry = await either.get("/ebb/big")
    assert entry is not None
    assert entry.value == big
    with pytest.raises(TooLarge, match="1,500,000"):
        await either.put("/ebb/big", b"x" * (MAX_BYTES + 1))
    with pytest.raises(TooLarge):
        await either.commit(Txn(writes=(Put("/ebb/1", big), Put("/ebb/2", big))))


async def test_keys_and_values_may_be_any_text_and_any_bytes(either: Store) -> None:
    names = ["/ebb/größe", "/ebb/日本", "/ebb/🚀", "/ebb/a b", "/ebb/\x7f", "/ebb/\uffff", "/ebb/\U0010ffff"]
    for name in names:
        await either.put(name, bytes(range(256)))
    listing = await either.list("/ebb/")
    assert [entry.key for entry in listing.entries] == sorted(names)
    assert {entry.value for entry in listing.entries} == {bytes(range(256))}
    assert [entry.key for entry in (await either.list("/ebb/🚀")).entries] == ["/ebb/🚀"]


async def test_an_empty_value_is_a_value(either: Store) -> None:
    await either.put("/ebb/a", b"")
    entry = await either.get("/ebb/a")
    assert entry is not None
    assert entry.value == b""


async def compact(store: Store, store_rev: int) -> None:
    """Both have it; it is no part of the port, because in production etcd does it by itself."""
    done = store.compact(store_rev)  # type: ignore[attr-defined]
    if done is not None:
        await done
