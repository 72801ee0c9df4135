"""Starts before parks before teardowns, and never too many at once."""

import asyncio

from nodeagent.gate import Gate, Rank


async def enter(gate: Gate, rank: Rank, order: list[str], name: str, leave: asyncio.Event) -> None:
    async with gate.place(rank):
        order.append(name)
        await leave.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_starts_go_before_parks_and_parks_before_teardowns() -> None:
    gate, order, leave, now = Gate(1), list[str](), asyncio.Event(), asyncio.Event()
    jobs = [asyncio.ensure_future(enter(gate, Rank.START, order, "first", now))]
    await settle()
    for rank, name in ((Rank.TEARDOWN, "teardown"), (Rank.PARK, "park"), (Rank.START, "start")):
        jobs.append(asyncio.ensure_future(enter(gate, rank, order, name, leave)))
    await settle()
    assert order == ["first"]
    now.set()
    leave.set()
    await asyncio.gather(*jobs)
    assert order == ["first", "start", "park", "teardown"]


async def test_teardowns_leave_places_free_for_starts() -> None:
    gate, order, leave = Gate(2, teardowns=1), list[str](), asyncio.Event()
    jobs = [asyncio.ensure_future(enter(gate, Rank.TEARDOWN, order, f"teardown {n}", leave)) for n in range(2)]
    jobs.append(asyncio.ensure_future(enter(gate, Rank.START, order, "start", leave)))
    await settle()
    assert order == ["teardown 0", "start"]
    leave.set()
    await asyncio.gather(*jobs)
    assert order[-1] == "teardown 1"


async def test_a_teardown_waits_while_something_is_started() -> None:
    gate, order, leave = Gate(2), list[str](), asyncio.Event()
    leave.set()
    async with gate.starting():
        job = asyncio.ensure_future(enter(gate, Rank.TEARDOWN, order, "teardown", leave))
        await settle()
        assert order == []
    await job
    assert order == ["teardown"]


async def test_a_teardown_is_not_put_off_for_ever() -> None:
    gate, order, leave = Gate(2, patience_s=0.01), list[str](), asyncio.Event()
    leave.set()
    async with gate.starting():
        await enter(gate, Rank.TEARDOWN, order, "teardown", leave)
    assert order == ["teardown"]


async def test_who_gives_up_waiting_costs_no_place() -> None:
    gate, order, leave = Gate(1), list[str](), asyncio.Event()
    first = asyncio.ensure_future(enter(gate, Rank.START, order, "first", leave))
    await settle()
    second = asyncio.ensure_future(enter(gate, Rank.START, order, "second", leave))
    third = asyncio.ensure_future(enter(gate, Rank.START, order, "third", leave))
    await settle()
    second.cancel()
    leave.set()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert order == ["first", "third"]
    async with asyncio.timeout(1), gate.place(Rank.START):
        pass
