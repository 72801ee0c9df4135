"""Which changes make the controller plan: all but those of counts alone, which may wait, and the echo of such a write."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from registry.objects import LABEL_CONFIGURATION, REVISION
from registry.observed import Observed, Unit
from store import keys
from store.lifecycle import Phase
from store.memory import MemoryStore
from store.model import Assignment, Failure, Instance, Scale, encode
from tests.eventually import eventually

UNIT = ("default", "app")
NAME = "app-00001"


class Seen:
    """The tables of a registry, and what they asked for since `clear`."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.dirty: list[Unit] = []
        self.counted: list[Unit] = []
        self.observed = Observed(self.store, self.dirty.append, self.counted.append)

    def clear(self) -> None:
        self.dirty.clear()
        self.counted.clear()

    async def revision(self, status: str) -> int:
        obj = {"metadata": {"name": NAME, "labels": {LABEL_CONFIGURATION: "app"}}, "status": status}
        return await self.store.put(keys.object_(REVISION.plural, "default", NAME), msgspec.json.encode(obj))

    async def scale(self, **fields: Any) -> None:
        scale = Scale(**{"project": "default", "revision": NAME, "desired": 0, "verified": True, **fields})
        await self.store.put(keys.scale("default", NAME), encode(scale))

    async def give(self, node: str = "n", revision: str = NAME) -> None:
        """The autoscaler has `node` run instance `i`."""
        given = Assignment(instance="i", project="default", revision=revision, service="app", node=node, goal="run")
        await self.store.put(keys.assignment(node, "i"), encode(given))

    async def instance(self, phase: Phase, **lies: Any) -> None:
        """What node `n` says of its instance `i`."""
        status = Instance(**({"instance": "i", "project": "default", "revision": NAME, "node": "n", "phase": phase} | lies))
        await self.store.put(keys.instance("n", "i"), encode(status))

    @property
    def there(self) -> list[Instance]:
        return list(self.observed.instances.all())


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    made = Seen()
    running = [asyncio.create_task(table.run()) for table in made.observed.tables().values()]
    await made.observed.synced()
    await made.revision("new")
    await eventually(lambda: made.dirty == [UNIT])
    await made.give()
    made.clear()
    yield made
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_first_word_on_a_revision_is_planned_at_once(seen: Seen) -> None:
    await seen.scale()
    await eventually(lambda: seen.dirty == [UNIT])


async def test_counts_of_what_works_may_wait(seen: Seen) -> None:
    await seen.scale()
    await eventually(lambda: bool(seen.dirty))
    seen.clear()
    await seen.scale(desired=1)
    await seen.instance(Phase.READY)
    await eventually(lambda: seen.counted == [UNIT, UNIT])
    assert not seen.dirty


async def test_what_is_parked_and_cleared_away_of_what_works_is_not_planned_at_all(seen: Seen) -> None:
    await seen.scale()
    await eventually(lambda: bool(seen.dirty))
    await seen.instance(Phase.DRAINING)
    await eventually(lambda: bool(seen.there))
    seen.clear()
    await seen.instance(Phase.PARKED)
    await eventually(lambda: [i.phase for i in seen.there] == [Phase.PARKED])
    assert (seen.dirty, seen.counted) == ([], [])
    await seen.instance(Phase.READY)
    await eventually(lambda: seen.counted == [UNIT])
    await seen.instance(Phase.DRAINING)
    await eventually(lambda: seen.counted == [UNIT, UNIT])
    assert not seen.dirty


async def test_a_failure_is_planned_at_once(seen: Seen) -> None:
    await seen.scale()
    await eventually(lambda: bool(seen.dirty))
    seen.clear()
    await seen.scale(failure=Failure(reason="StartFailed", message="no"))
    await eventually(lambda: seen.dirty == [UNIT])


async def test_an_instance_of_what_is_not_known_to_work_is_planned_at_once(seen: Seen) -> None:
    await seen.instance(Phase.READY)
    await eventually(lambda: seen.dirty == [UNIT])


async def test_the_echo_of_a_write_of_counts_is_not_planned(seen: Seen) -> None:
    seen.observed._echo = lambda _: True
    key = keys.object_(REVISION.plural, "default", NAME)
    store_rev = await seen.revision("counts")
    await eventually(lambda: (entry := seen.observed.objects.entry(key)) is not None and entry.store_rev == store_rev)
    assert not seen.dirty


LIES = [{"revision": "other"}, {"project": "other"}, {"node": "m"}, {"instance": "j"}]


@pytest.mark.parametrize("lies", LIES)
async def test_what_a_node_says_of_what_it_was_not_given_is_no_instance(seen: Seen, lies: dict[str, str]) -> None:
    await seen.instance(Phase.READY)
    await eventually(lambda: len(seen.there) == 1)
    await seen.instance(Phase.READY, **lies)
    await eventually(lambda: not seen.there)
    assert seen.observed.instances.of(f"{lies.get('project', 'default')}/{lies.get('revision', NAME)}") == ()
    await seen.instance(Phase.DRAINING)
    await eventually(lambda: [i.phase for i in seen.there] == [Phase.DRAINING])


async def test_an_instance_is_there_from_its_assignment_on_and_as_long(seen: Seen) -> None:
    await seen.store.delete(keys.assignment("n", "i"))
    await seen.give("m")
    await seen.instance(Phase.READY)
    await seen.scale()
    await eventually(lambda: bool(seen.dirty))
    assert not seen.there
    await seen.give()
    await eventually(lambda: len(seen.observed.instances.of(f"default/{NAME}")) == 1)
    await eventually(lambda: seen.counted == [UNIT])
    await seen.give(revision="another")
    await eventually(lambda: not seen.there)
    await seen.give()
    await eventually(lambda: len(seen.there) == 1)
    await seen.store.delete(keys.assignment("n", "i"))
    await eventually(lambda: not seen.there)
    assert seen.observed.instances.of(f"default/{NAME}") == ()


async def test_whose_an_instance_is_its_node_does_not_say(seen: Seen) -> None:
    await seen.instance(Phase.READY, service="pay")
    await eventually(lambda: [i.service for i in seen.there] == ["app"])
