"""What every lease does."""

import asyncio
import time
from collections.abc import Callable

import pytest

from store.backend import Store
from store.errors import LeaseLost
from store.txn import Put, Txn
from tests.contract.conftest import Watched

pytestmark = pytest.mark.real


async def test_a_key_tells_its_lease(either: Store) -> None:
    lease = await either.grant(5)
    await either.put("/ebb/a", b"", lease=lease)
    entry = await either.get("/ebb/a")
    assert entry is not None
    assert entry.lease == lease


async def test_all_keys_of_a_lease_go_together_when_it_is_revoked(
    either: Store, watched: Callable[[Store, str, int], Watched]
) -> None:
    lease = await either.grant(30)
    await either.commit(Txn(writes=(Put("/ebb/b", b"", lease), Put("/ebb/a", b"", lease), Put("/ebb/c", b""))))
    seen = watched(either, "/ebb/", (await either.list("/ebb/")).store_rev)
    await either.revoke(lease)
    await seen.until(lambda w: len(w.changes) == 2)
    assert [[(change.key, change.value) for change in batch] for batch in seen.batches] == [
        [("/ebb/a", None), ("/ebb/b", None)]
    ]
    await either.revoke(lease)


async def test_a_lease_nobody_renews_ends_and_takes_its_keys(
    either: Store, watched: Callable[[Store, str, int], Watched]
) -> None:
    lease = await either.grant(2)
    begin = time.monotonic()
    rev = await either.put("/ebb/a", b"", lease=lease)
    seen = watched(either, "/ebb/", rev)
    await seen.until(lambda w: len(w.changes) == 1)
    assert seen.changes[0].value is None
    assert 1.5 < time.monotonic() - begin < 6
    with pytest.raises(LeaseLost):
        await either.keep_alive(lease)


async def test_a_renewed_lease_lives_on(either: Store) -> None:
    lease = await either.grant(30)
    assert 0 < await either.keep_alive(lease) <= 30


async def test_nothing_can_be_written_under_a_lease_that_is_gone(either: Store) -> None:
    lease = await either.grant(30)
    await either.revoke(lease)
    with pytest.raises(LeaseLost):
        await either.put("/ebb/a", b"", lease=lease)
    with pytest.raises(LeaseLost):
        await either.commit(Txn(writes=(Put("/ebb/b", b""), Put("/ebb/a", b"", lease))))
    with pytest.raises(LeaseLost):
        await either.keep_alive(lease)
    assert await either.count("/ebb/") == 0


async def test_a_key_put_anew_leaves_its_old_lease(either: Store) -> None:
    old, new = await either.grant(30), await either.grant(30)
    await either.put("/ebb/a", b"1", lease=old)
    await either.put("/ebb/a", b"2", lease=new)
    await either.put("/ebb/b", b"1", lease=old)
    await either.put("/ebb/b", b"2")
    await either.revoke(old)
    assert await either.count("/ebb/") == 2
    await either.revoke(new)
    assert [entry.key for entry in (await either.list("/ebb/")).entries] == ["/ebb/b"]


async def test_leases_are_renewed_side_by_side_and_each_hears_of_its_own(either: Store) -> None:
    short, long, gone = await either.grant(20), await either.grant(60), await either.grant(30)
    await either.revoke(gone)
    for _ in range(3):
        told = await asyncio.gather(*map(either.keep_alive, (short, long, gone)), return_exceptions=True)
        assert isinstance(told[2], LeaseLost)
        assert (told[0], told[1]) == (pytest.approx(20, abs=1), pytest.approx(60, abs=1))


async def test_a_renewal_that_is_given_up_does_not_answer_the_next_one(either: Store) -> None:
    short, long = await either.grant(20), await either.grant(60)
    for _ in range(20):
        impatient = asyncio.ensure_future(either.keep_alive(short))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await either.keep_alive(long) > 50
