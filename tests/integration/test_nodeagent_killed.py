"""The agent killed at random moments while instances come and go leaves nothing behind, nor do starts that fail.

`EBB_CYCLES=1000` is the full run. Each cycle is one instance, made and ended; ten live at once, and the agent is killed three times in
their life. `EBB_SEED` plays a run again.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from store.backend import Store
from store.lifecycle import Phase
from store.model import Goal
from tests import leaks, real
from tests.integration.agent_world import World, world

pytestmark = pytest.mark.real

CYCLES = int(os.environ.get("EBB_CYCLES", "10"))
AT_ONCE = 10
LONGEST_S = 0.4
"""Within so long after a change every step of it has begun."""
AFTER = {Goal.PARK: (Goal.PARK, Goal.RUN, Goal.DRAIN), Goal.RUN: (Goal.RUN, Goal.FREEZE, Goal.DRAIN)}


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


async def killed(node: World, chance: random.Random) -> None:
    """The agent is killed in the middle of what it does now, and begins anew."""
    await asyncio.sleep(chance.uniform(0, LONGEST_S))
    node.kill()
    await node.start("--on-stop", "stop")


async def lives(node: World, names: list[str], chance: random.Random) -> None:
    goals = {name: chance.choice([Goal.PARK, Goal.RUN]) for name in names}
    for name, goal in goals.items():
        await node.assign(name, goal)
    await killed(node, chance)
    for name, goal in goals.items():
        await node.assign(name, chance.choice(AFTER[goal]))
    await killed(node, chance)
    for name in names:
        await node.withdraw(name)
    await killed(node, chance)
    for name in names:
        await node.gone(name)


async def warmed_up(node: World) -> Callable[[], Awaitable[leaks.Snapshot]]:
    """How to look at what `node` has, once it has made and ended one instance."""
    await node.revision()
    await node.assign("warm-up", Goal.RUN)
    await node.phase("warm-up", Phase.READY)
    await node.withdraw("warm-up")
    await node.gone("warm-up")

    async def look() -> leaks.Snapshot:
        pids = {"agent": node.pid, "containerd": node.containerd.pid}
        seen = await leaks.snapshot_machine(
            node.id, containerd=node.containerd.socket, store=node.store, pids=pids, marks=[str(node.home)]
        )
        named, counted = dict(seen.named), dict(seen.counted)
        # The agent is another one each time.
        named["processes"] = frozenset(line for line in named["processes"] if not line.startswith(f"{node.pid} "))
        return leaks.Snapshot(named, counted)

    return look


@pytest.mark.timeout(120 + 2 * CYCLES)
async def test_an_agent_killed_at_random_steps_leaves_nothing_behind(node: World) -> None:
    seed = int(os.environ.get("EBB_SEED", "0")) or random.randrange(1, 1 << 32)
    print(f"EBB_SEED={seed}")
    chance = random.Random(seed)
    look = await warmed_up(node)
    before = await leaks.at_rest(look)
    for first in range(0, CYCLES, AT_ONCE):
        await lives(node, [f"c-{first + number}" for number in range(min(AT_ONCE, CYCLES - first))], chance)
    await leaks.settled(before, look)


async def test_starts_that_cannot_work_leave_nothing_behind_however_often_they_are_tried(node: World) -> None:
    look = await warmed_up(node)
    await node.revision("exits", "exit 3", project="bad")
    await node.revision("deaf", "sleep 600", project="bad", progress_deadline_s=1)
    await node.revision("nowhere", project="bad", command=["/bin/no-such-thing"])
    await node.revision("hungry", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", project="bad", memory_limit_bytes=16 << 20)
    reasons = {"exits": "ExitCode3", "deaf": "NeverReady", "nowhere": "StartFailed", "hungry": "OOMKilled"}
    before = await leaks.at_rest(look)
    for turn in range(3):
        for name in reasons:
            await node.assign(f"{name}-{turn}", revision=name, project="bad")
        for name, reason in reasons.items():
            failure = (await node.phase(f"{name}-{turn}", Phase.FAILED)).failure
            assert failure is not None
            assert failure.reason == reason
            await node.withdraw(f"{name}-{turn}")
        for name in reasons:
            await node.gone(f"{name}-{turn}")
    await leaks.settled(before, look)
