"""Starts before parks before teardowns, fair between revisions, and never too many at once."""

import asyncio
import contextlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

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


async def herd(gate: Gate, order: list[str], leave: asyncio.Event, revision: str, count: int) -> list[asyncio.Future[None]]:
    async def one(number: int) -> None:
        async with gate.place(Rank.START, f"{revision}-{number}", revision):
            order.append(revision)
            await leave.wait()

    jobs = [asyncio.ensure_future(one(number)) for number in range(count)]
    await settle()
    return jobs


async def test_a_herd_on_one_revision_delays_anothers_first_start_by_one_place_only() -> None:
    gate, order, leave = Gate(3), list[str](), asyncio.Event()
    jobs = await herd(gate, order, leave, "p/herd", 100)
    jobs += await herd(gate, order, leave, "p/other", 1)
    jobs += await herd(gate, order, leave, "q/third", 1)
    leave.set()
    await asyncio.gather(*jobs)
    assert order[:5] == ["p/herd", "p/herd", "p/herd", "q/third", "p/other"], "first the project that has nothing yet"


async def test_what_was_to_be_parked_and_is_called_goes_with_the_starts() -> None:
    gate, order, leave, now = Gate(1), list[str](), asyncio.Event(), asyncio.Event()
    first = asyncio.ensure_future(enter(gate, Rank.START, order, "first", now))
    await settle()

    async def park(name: str) -> None:
        async with gate.place(Rank.PARK, name, "p/r"):
            order.append(name)

    jobs = [asyncio.ensure_future(park(name)) for name in ("a", "b", "c")]
    await settle()
    gate.hurry("c")
    now.set()
    leave.set()
    await asyncio.gather(first, *jobs)
    assert order == ["first", "c", "a", "b"]


@given(
    st.lists(st.tuples(st.sampled_from(list(Rank)), st.sampled_from(["p/a", "p/b", "q/c"])), min_size=1, max_size=40),
    st.integers(1, 4),
)
def test_no_revision_gets_a_second_place_while_another_of_its_rank_has_none(asked: list[tuple[Rank, str]], limit: int) -> None:
    async def play() -> None:
        gate = Gate(limit)
        running: Counter[tuple[Rank, str]] = Counter()
        waiting: Counter[tuple[Rank, str]] = Counter(asked)
        leave = asyncio.Semaphore(0)

        async def one(rank: Rank, revision: str) -> None:
            async with gate.place(rank, "", revision):
                waiting[rank, revision] -= 1
                behind = [name for (other, name), count in waiting.items() if count and other < rank]
                assert not behind, f"{rank} went before a start or a parking"
                if rank is not Rank.TEARDOWN and running[rank, revision]:
                    project = revision.partition("/")[0]
                    idle = [
                        name
                        for (other, name), count in waiting.items()
                        if count and other is rank and name.startswith(project) and not any(running[r, name] for r in Rank)
                    ]
                    assert not idle, f"{revision} has a second place while {idle} have none"
                running[rank, revision] += 1
                assert running.total() <= limit
                await leave.acquire()
                running[rank, revision] -= 1

        async def keep(what: asyncio.Event) -> None:
            """All places, until everybody has asked."""
            async with contextlib.AsyncExitStack() as held:
                for _ in range(limit):
                    await held.enter_async_context(gate.place(Rank.START))
                await what.wait()

        all_asked = asyncio.Event()
        keeper = asyncio.ensure_future(keep(all_asked))
        await settle()
        jobs = [asyncio.ensure_future(one(*each)) for each in asked]
        await settle()
        all_asked.set()
        while not all(job.done() for job in jobs):
            await settle()
            leave.release()
        await asyncio.gather(keeper, *jobs)

    asyncio.run(play())


async def test_a_project_of_twice_the_weight_holds_twice_the_places() -> None:
    gate, order = Gate(3, weight=lambda project: 2 if project == "gold" else 1), list[str]()
    first, leave = asyncio.Event(), asyncio.Event()

    async def start(project: str, until: asyncio.Event) -> None:
        async with gate.place(Rank.START, revision=f"{project}/r"):
            order.append(project)
            await until.wait()

    jobs = [asyncio.ensure_future(start("other", first)) for _ in range(3)]
    await settle()
    jobs += [asyncio.ensure_future(start(project, leave)) for project in ("iron", "gold") * 3]
    await settle()
    first.set()
    await settle()
    assert sorted(order[3:]) == ["gold", "gold", "iron"]
    leave.set()
    await asyncio.gather(*jobs)


async def test_a_gate_is_idle_while_nobody_is_in_it() -> None:
    gate = Gate(2)
    assert gate.idle
    async with gate.place(Rank.TEARDOWN):
        assert not gate.idle
    assert gate.idle
