"""The real etcd killed, restarted, paused and full, and what its clients notice of it."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from deploy.ports import free_port
from store.election import lead
from store.errors import Compacted, StoreError, Unavailable
from store.etcd import EtcdStore
from store.lease import Presence
from store.model import Member, encode
from store.txn import Guard, Put, Txn
from store.watch import Table
from tests import real
from tests.eventually import eventually, eventually_async

pytestmark = pytest.mark.real


@pytest.fixture
async def own() -> AsyncIterator[real.Server]:
    """An etcd of this test alone."""
    async with real.etcd() as server:
        yield server


@pytest.fixture
async def client(own: real.Server) -> AsyncIterator[EtcdStore]:
    client = EtcdStore(own.address, deadline_s=3)
    yield client
    await client.close()


async def test_a_watch_has_no_gap_and_no_repeat_across_kills_of_etcd(own: real.Server, client: EtcdStore) -> None:
    start = (await client.list("/ebb/")).store_rev
    seen: list[int] = []
    written: list[int] = []
    stop = asyncio.Event()

    async def watch() -> None:
        async for batch in client.watch("/ebb/", after=start):
            seen.append(batch[0].store_rev)

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                written.append(await client.put("/ebb/a", str(number).encode()))
            except Unavailable:
                pass
            await asyncio.sleep(0.001)

    watching, writing = asyncio.create_task(watch()), asyncio.create_task(write())
    for enough in (50, 100):
        await eventually(lambda: len(written) > enough)  # noqa: B023
        own.kill()
        await own.restart()
    await eventually(lambda: len(written) > 150)
    stop.set()
    await writing
    last = (await client.list("/ebb/")).store_rev
    await eventually(lambda: seen and seen[-1] == last, "the watch has caught up")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert seen == list(range(start + 1, last + 1))
    assert set(written) <= set(seen)


async def test_a_watch_that_missed_a_compaction_while_etcd_was_away_is_told_so(own: real.Server, client: EtcdStore) -> None:
    rev = await client.put("/ebb/a", b"")
    got: list[int] = []

    async def watch() -> None:
        async for batch in client.watch("/ebb/", after=rev):
            got.append(batch[0].store_rev)

    watching = asyncio.create_task(watch())
    first = await client.put("/ebb/a", b"")
    await eventually(lambda: got == [first])
    await own.restart()
    other = EtcdStore(own.address)
    for _ in range(5):
        last = await other.put("/ebb/a", b"")
    await other.compact(last)
    try:
        await eventually(lambda: watching.done() or (got and got[-1] == last))
        if watching.done():
            assert isinstance(watching.exception(), Compacted)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await other.close()


async def test_a_call_waits_for_an_etcd_that_restarts(own: real.Server, client: EtcdStore) -> None:
    await client.put("/ebb/a", b"1")
    own.kill()
    reading = asyncio.create_task(client.get("/ebb/a"))
    await own.restart()
    entry = await reading
    assert entry is not None
    assert entry.value == b"1"


async def test_a_call_to_an_etcd_that_is_away_or_hangs_ends_at_its_deadline(own: real.Server, client: EtcdStore) -> None:
    await client.put("/ebb/a", b"1")
    for fault in (own.pause, own.kill):
        fault()
        begin = time.monotonic()
        short = EtcdStore(own.address, deadline_s=0.5)
        with pytest.raises(Unavailable, match=own.address):
            await short.get("/ebb/a")
        with pytest.raises(Unavailable, match=r"within 0\.5 s"):
            await short.commit(Txn(writes=(Put("/ebb/a", b""),)))
        await short.close()
        assert time.monotonic() - begin < 6


async def test_a_table_is_right_again_after_etcd_was_killed(own: real.Server, client: EtcdStore) -> None:
    table = Table(client, "/ebb/members/", Member)
    running = asyncio.create_task(table.run())
    await client.put("/ebb/members/r/a", encode(Member(role="r", member="a")))
    await eventually(lambda: len(table) == 1)
    own.kill()
    await own.restart()
    await client.put("/ebb/members/r/b", encode(Member(role="r", member="b")))
    await client.delete("/ebb/members/r/a")
    # Within gRPC's and its own bounded back-off.
    await eventually(lambda: list(dict(table.items())) == ["/ebb/members/r/b"], "the watch is back", timeout_s=10)
    assert table.problem() is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_table_starts_before_etcd_does(own: real.Server) -> None:
    own.kill()
    client = EtcdStore(own.address, deadline_s=0.3)
    table = Table(client, "/ebb/members/", Member)
    running = asyncio.create_task(table.run())
    await eventually(lambda: "no answer" in (table.problem() or "") or "UNAVAILABLE" in (table.problem() or ""))
    await own.restart()
    await asyncio.wait_for(table.synced(), 10)
    assert table.problem() is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await client.close()


async def test_presence_returns_after_its_lease_ran_out_in_an_outage(own: real.Server, client: EtcdStore) -> None:
    presence = Presence(client, ttl_s=2)
    await presence.start()
    assert await presence.put("/ebb/nodes/a", b"1")
    first = presence.lease
    await client.revoke(first)
    await eventually_async(lambda: client.get("/ebb/nodes/a"), "the key is back")
    assert presence.lease != first
    own.kill()
    assert not await presence.put("/ebb/nodes/a", b"2"), "the store is away: it follows later"
    assert presence.problem()
    await own.restart()

    async def written() -> bool:
        entry = await client.get("/ebb/nodes/a")
        return entry is not None and entry.value == b"2"

    await eventually_async(written)
    await eventually(lambda: presence.problem() is None)
    await presence.stop()
    assert await client.get("/ebb/nodes/a") is None


async def test_a_paused_ex_leader_cannot_write(own: real.Server, client: EtcdStore) -> None:
    other = EtcdStore(own.address)
    terms: dict[str, Guard] = {}

    async def reign(name: str, guard: Guard) -> None:
        terms[name] = guard
        await asyncio.Event().wait()

    first = asyncio.create_task(lead(client, "x", "first", 2, lambda guard: reign("first", guard)))
    await eventually(lambda: "first" in terms)
    second = asyncio.create_task(lead(other, "x", "second", 2, lambda guard: reign("second", guard)))
    leader = await client.get("/ebb/elections/x")
    assert leader is not None
    await client.revoke(leader.lease)  # what the paused process cannot know
    await eventually(lambda: "second" in terms)
    with pytest.raises(StoreError):
        await client.commit(Txn((terms["first"],), (Put("/ebb/scale/p/r", b"stale"),)))
    await other.commit(Txn((terms["second"],), (Put("/ebb/scale/p/r", b"fresh"),)))
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await other.close()


async def test_a_full_etcd_says_what_to_do() -> None:
    async with real.etcd("--quota-backend-bytes", str(2 * 2**20)) as server:
        client = EtcdStore(server.address)

        async def fill() -> None:
            for number in range(100):
                await client.put(f"/ebb/{number}", b"x" * 200_000)

        with pytest.raises(Unavailable, match="compact, defragment"):
            await fill()
        assert await client.count("/ebb/") > 0
        await client.close()


async def test_several_endpoints_are_one_store(own: real.Server) -> None:
    client = EtcdStore(f"localhost:{free_port()},{own.address}", deadline_s=3)
    await client.put("/ebb/a", b"1")
    assert await client.count("/ebb/") == 1
    await client.close()


async def test_the_server_tells_its_version_and_size(client: EtcdStore) -> None:
    status = await client.status()
    assert status.version.startswith("3.")
    assert status.db_bytes > 0
    assert status.alarms == ()
