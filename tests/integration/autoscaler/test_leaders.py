"""Several autoscalers: one leads; it is killed, again and again, or stopped for longer than its lease lasts."""

import asyncio
import signal
import subprocess

import aiohttp

from store import keys
from store.model import (
    Goal,
)
from tests.integration.autoscaler.world import Agent, Engine, until, verified


async def test_another_autoscaler_takes_over_from_one_that_was_killed_and_takes_nothing_down(
    engine: Engine, agent: Agent
) -> None:
    first = await engine.autoscaler("--member", "one")
    await engine.deploy("k-1", initial_scale=3, stable_window_s=60)
    await until(lambda: verified(engine, "k-1"), "verified")
    await engine.deploy("k-2", initial_scale=0)
    await until(lambda: verified(engine, "k-2"), "verified")
    await engine.autoscaler("--member", "two")
    running = await engine.goals("k-1")
    first.send_signal(signal.SIGKILL)

    async def woken() -> bool:
        engine.wake("k-2")
        await asyncio.sleep(0.25)
        return Goal.RUN in await engine.goals("k-2")

    await until(woken, "the second one answers wakes", 15)
    assert await engine.goals("k-1") == running, "for one stable window nothing goes down"


async def test_a_restarted_autoscaler_does_not_wait_for_the_lease_of_its_killed_predecessor(
    engine: Engine, agent: Agent
) -> None:
    first = await engine.autoscaler("--election-ttl-s", "30")
    await engine.deploy("s-1", initial_scale=0)
    await until(lambda: verified(engine, "s-1"), "verified")
    first.send_signal(signal.SIGKILL)
    first.wait(5)
    await engine.autoscaler()

    async def woken() -> bool:
        engine.wake("s-1")
        await asyncio.sleep(0.1)
        return Goal.RUN in await engine.goals("s-1")

    await until(woken, "it answers wakes, long before a lease of thirty seconds is over", 15)


async def test_leaders_that_are_killed_one_after_the_other_take_nothing_down_and_wakes_go_on(
    engine: Engine, agent: Agent
) -> None:
    members = [await engine.autoscaler("--member", f"m{n}", "--election-ttl-s", "2") for n in range(2)]
    await engine.deploy("l-warm", initial_scale=3, stable_window_s=60)
    await until(lambda: verified(engine, "l-warm"), "verified")
    for round_ in range(3):
        await engine.deploy(f"l-{round_}", initial_scale=0)
        await until(lambda name=f"l-{round_}": verified(engine, name), "verified")
        engine.sample("l-warm", 1)
        leader = await leads(engine, members)
        leader.send_signal(signal.SIGKILL)

        async def woken(name: str = f"l-{round_}") -> bool:
            engine.wake(name)
            engine.sample("l-warm", 1)
            await asyncio.sleep(0.25)
            return Goal.RUN in await engine.goals(name)

        await until(woken, "the next one answers wakes", 10)
        assert await engine.goals("l-warm") == [Goal.RUN] * 3, "for one stable window nothing goes down"
        members[members.index(leader)] = await engine.autoscaler("--member", f"again{round_}", "--election-ttl-s", "2")
    assert len(agent.starts) == 6, "nothing was started twice"


async def test_a_leader_that_was_stopped_for_longer_than_its_lease_writes_nothing_afterwards(
    engine: Engine, agent: Agent
) -> None:
    members = [await engine.autoscaler("--member", name, "--election-ttl-s", "2") for name in ("a", "b")]
    await engine.deploy("w-1", initial_scale=0)
    await until(lambda: verified(engine, "w-1"), "verified")
    first = await leads(engine, members)
    before = await engine.store.get(keys.election("autoscaler"))
    first.send_signal(signal.SIGSTOP)

    async def other() -> bool:
        entry = await engine.store.get(keys.election("autoscaler"))
        return entry is not None and before is not None and entry.value != before.value

    await until(other, "another one leads", 15)
    engine.wake("w-1")  # The stopped one finds this when it goes on, and believes for a moment that it leads.
    first.send_signal(signal.SIGCONT)

    async def woken() -> bool:
        engine.wake("w-1")
        await asyncio.sleep(0.1)
        return Goal.RUN in await engine.goals("w-1")

    await until(woken, "the new leader answers", 10)
    await until(lambda: first.poll() is None and stepped_down(engine, members.index(first)), "the old one has stepped down")
    assert await engine.goals("w-1") == [Goal.RUN], "one instance, by one of them"
    assert len(agent.starts) == 1


async def leads(engine: Engine, members: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The process that leads."""
    found: list[subprocess.Popen[bytes]] = []

    async def one() -> bool:
        found[:] = [m for m in members if m.poll() is None and await leading(engine, engine.ports[engine.processes.index(m)])]
        return len(found) == 1

    await until(one, "one leads", 15)
    return found[0]


async def leading(engine: Engine, port: int) -> bool:
    """Whether the autoscaler whose admin endpoint has that port decides."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/decisions?revision=p/x") as answer:
            return bool((await answer.json())["leading"])
    except aiohttp.ClientError:
        return False


async def stepped_down(engine: Engine, index: int) -> bool:
    return not await leading(engine, engine.ports[index])
