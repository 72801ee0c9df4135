"""What of an instance's phases is written into the store."""

import asyncio
from pathlib import Path

from nodeagent.observed import Observed
from nodeagent.reporter import SETTLE_S, Reporter
from process.clock import SystemClock
from process.run import Jobs
from store import keys
from store.lease import Presence
from store.lifecycle import Phase
from store.memory import MemoryStore
from store.memory_bus import MemoryBus
from store.model import Assignment, Goal, Instance, decode
from store.story import Story

WANT = Assignment(instance="i", project="p", revision="r", node="n", goal=Goal.DRAIN)


async def stands_as(tmp_path: Path, *, wanted: bool) -> Phase:
    """What the store says a while after an instance stopped; its drain lasted, so that was written."""
    store, bus, clock, jobs = MemoryStore(), MemoryBus(), SystemClock(), Jobs("test")
    presence = Presence(store, 5)
    await presence.start()
    reporter = Reporter("n", bus, presence, Story(bus, "nodeagent", clock), clock, jobs, tmp_path)
    reporter.wanted = lambda _: wanted
    have = Observed("i", phase=Phase.READY)
    reporter.report(WANT, have, Phase.DRAINING)
    await asyncio.sleep(SETTLE_S + 0.05)
    reporter.report(WANT, have, Phase.STOPPED)
    await asyncio.sleep(SETTLE_S + 0.05)
    entry = await store.get(keys.instance("n", "i"))
    await presence.stop()
    assert entry is not None
    return decode(Instance, entry.value).phase


async def test_that_an_instance_stopped_is_written_while_somebody_may_wait_to_hear_it(tmp_path: Path) -> None:
    assert await stands_as(tmp_path, wanted=True) is Phase.STOPPED


async def test_that_it_stopped_is_not_written_once_its_assignment_is_gone(tmp_path: Path) -> None:
    assert await stands_as(tmp_path, wanted=False) is Phase.DRAINING
