"""Presence, elections and stories on the twin, in virtual time."""

import asyncio

import pytest

from process.clock import SystemClock
from store import keys, messages
from store.election import lead, leader
from store.errors import Conflict, Unavailable
from store.lease import Presence
from store.memory import MemoryStore
from store.memory_bus import MemoryBus
from store.messages import StoryEvent, StoryEvents
from store.model import decode
from store.story import TOGETHER_MOST, TOGETHER_S, Story
from store.txn import Guard, Put, Txn

pytestmark = pytest.mark.looptime


class Away(MemoryStore):
    """A store that can be out of reach for a while; its leases run on."""

    away = False

    def _begin(self) -> None:
        if self.away:
            raise Unavailable("away")
        super()._begin()


async def values(store: MemoryStore) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await store.list("")).entries}


async def test_keys_live_as_long_as_the_presence() -> None:
    store = MemoryStore()
    presence = Presence(store, 3)
    await presence.start()
    assert await presence.put("/a", b"1")
    assert await presence.put("/b", b"1")
    await asyncio.sleep(100)
    assert await presence.delete("/b")
    assert await values(store) == {"/a": b"1"}
    await presence.stop()
    assert await values(store) == {}
    await store.close()


async def test_a_presence_that_hands_over_leaves_its_keys_for_the_time_of_the_lease() -> None:
    store = MemoryStore()
    presence = Presence(store, 3)
    await presence.start()
    await presence.put("/a", b"1")
    await presence.stop(revoke=False)
    assert await values(store) == {"/a": b"1"}
    await asyncio.sleep(3.1)
    assert await values(store) == {}
    await store.close()


async def test_what_was_put_while_the_store_was_away_follows() -> None:
    store = Away()
    presence = Presence(store, 3)
    await presence.start()
    await presence.put("/gone", b"1")
    store.away = True
    assert not await presence.put("/a", b"1")
    assert not await presence.put("/a", b"2")
    assert not await presence.delete("/gone")
    assert presence.problem() is not None
    await asyncio.sleep(1)
    store.away = False
    await asyncio.sleep(2)
    assert await values(store) == {"/a": b"2"}
    assert presence.problem() is None
    await presence.stop()
    await store.close()


async def test_a_lease_lost_in_a_long_outage_is_replaced_and_all_keys_come_back() -> None:
    store = Away()
    presence = Presence(store, 3)
    told: list[int] = []
    presence.on_regrant = lambda: told.append(presence.lease)
    await presence.start()
    old = presence.lease
    for number in range(5):
        await presence.put(f"/{number}", b"")
    store.away = True
    await asyncio.sleep(10)
    store.away = False
    assert await values(store) == {}
    await asyncio.sleep(3)
    assert len(await values(store)) == 5
    assert presence.lease != old
    assert told == [presence.lease]
    await presence.stop()
    await store.close()


async def test_the_value_wanted_last_stands_however_slow_the_store_is() -> None:
    class Slow(MemoryStore):
        async def put(self, key: str, value: bytes, *, lease: int = 0) -> int:
            await asyncio.sleep(0.5 if value == b"1" else 0.1)
            return await super().put(key, value, lease=lease)

    store = Slow()
    presence = Presence(store, 30)
    await presence.start()
    await asyncio.gather(*(presence.put("/a", value) for value in (b"1", b"2", b"3")))
    assert await values(store) == {"/a": b"3"}
    await presence.stop()
    await store.close()


async def test_one_leads_and_the_next_follows_when_it_ends() -> None:
    store = MemoryStore()
    reigns: list[tuple[str, int]] = []

    async def reign(name: str, guard: Guard) -> None:
        reigns.append((name, guard.created_rev or 0))
        await asyncio.sleep(50)

    first = asyncio.create_task(lead(store, "x", "first", 3, lambda guard: reign("first", guard)))
    await asyncio.sleep(1)
    second = asyncio.create_task(lead(store, "x", "second", 3, lambda guard: reign("second", guard)))
    await asyncio.sleep(10)
    assert [name for name, _ in reigns] == ["first"]
    current = await leader(store, "x")
    assert current is not None
    assert current.value == b"first"
    first.cancel()
    await asyncio.sleep(1)
    assert [name for name, _ in reigns] == ["first", "second"]
    assert reigns[1][1] > reigns[0][1]
    await asyncio.sleep(60)
    assert second.done(), "its work is done: it resigned"
    assert await leader(store, "x") is None
    await asyncio.gather(first, second, return_exceptions=True)
    await store.close()


async def test_a_leader_that_cannot_renew_stops_before_another_can_be_elected() -> None:
    store = Away()
    log: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()

    async def reign(_: Guard) -> None:
        log.append(("leads", loop.time()))
        try:
            await asyncio.sleep(1000)
        finally:
            log.append(("stopped", loop.time()))

    leading = asyncio.create_task(lead(store, "x", "me", 3, reign))
    await asyncio.sleep(1)
    lost = loop.time()
    store.away = True
    await asyncio.sleep(10)
    assert [what for what, _ in log] == ["leads", "stopped"]
    assert log[1][1] - lost < 3
    store.away = False
    await asyncio.sleep(5)
    assert [what for what, _ in log] == ["leads", "stopped", "leads"]
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    await store.close()


async def test_a_guard_of_an_earlier_term_fences() -> None:
    store = MemoryStore()
    guards: list[Guard] = []

    async def once(guard: Guard) -> None:
        guards.append(guard)

    await lead(store, "x", "me", 3, once)
    await lead(store, "x", "me", 3, once)
    for guard in guards:
        with pytest.raises(Conflict):
            await store.commit(Txn((guard,), (Put(keys.scale("p", "r"), b""),)))
    await store.close()


async def test_what_leading_raises_comes_out_and_the_office_is_free() -> None:
    store = MemoryStore()

    async def broken(_: Guard) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await lead(store, "x", "me", 3, broken)
    assert await leader(store, "x") is None
    await store.close()


async def test_a_story_is_told_with_its_cause_and_never_fails() -> None:
    class Clock:
        def now(self) -> float:
            return 1.0

        def wall(self) -> float:
            return 1000.0

    bus = MemoryBus()
    heard: list[StoryEvent] = []
    await bus.handle(messages.STORY, lambda _, data: heard.extend(decode(StoryEvents, data).events))
    story = Story(bus, "ingress", Clock())
    story.tell("wake sent", cause_id="c-1", revision="p/r", waiting=3)
    story.tell("ready", instance="i", at=999.5)
    await asyncio.sleep(2 * TOGETHER_S)
    assert heard[0] == StoryEvent(
        at=1000, process="ingress", what="wake sent", cause_id="c-1", revision="p/r", detail={"waiting": 3}
    )
    assert (heard[1].at, heard[1].instance) == (999.5, "i")
    bus.hub.up = False
    story.tell("lost")
    await asyncio.sleep(2 * TOGETHER_S)
    assert bus.lost == 1


async def test_what_is_told_within_a_moment_is_one_message_and_a_flood_goes_out_in_bounded_ones() -> None:
    bus = MemoryBus()
    heard: list[int] = []
    await bus.handle(messages.STORY, lambda _, data: heard.append(len(decode(StoryEvents, data).events)))
    story = Story(bus, "ingress", SystemClock())
    for number in range(TOGETHER_MOST + 3):
        story.tell("step", number=number)
    await asyncio.sleep(2 * TOGETHER_S)
    assert heard == [TOGETHER_MOST, 3]
