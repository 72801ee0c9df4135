"""One job for many who ask."""

import asyncio

import pytest

from nodeagent.images.flight import Flights


async def test_all_who_ask_at_once_get_one_answer() -> None:
    flights: Flights[int] = Flights()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return runs

    assert await asyncio.gather(*(flights.run("a", work) for _ in range(10))) == [1] * 10
    assert await flights.run("a", work) == 2
    assert len(flights) == 0


async def test_a_failure_reaches_all_and_the_next_one_tries_again() -> None:
    flights: Flights[int] = Flights()

    async def fails() -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def works() -> int:
        return 1

    results = await asyncio.gather(*(flights.run("a", fails) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3
    assert await flights.run("a", works) == 1


async def test_the_job_ends_with_its_last_waiter_only() -> None:
    flights: Flights[int] = Flights()
    ended = asyncio.Event()
    release = asyncio.Event()

    async def work() -> int:
        try:
            await release.wait()
        finally:
            ended.set()
        return 7

    first, second = (asyncio.create_task(flights.run("a", work)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not ended.is_set()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert ended.is_set()
    assert len(flights) == 0
    release.set()
    assert await flights.run("a", work) == 7
