"""Two workers of one front door, with real sockets between them: they share every slot and lose nobody."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.integration.ingress.door import Door, instance, open_door


class Counting:
    """An app that counts what is inside it, out before it answers."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.inside = self.most = self.served = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(self.takes_s)
            self.inside -= 1
            self.served += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[tuple[Door, Door]]:
    async with open_door(peers=str(tmp_path)) as one:
        two = Door(beside=one, peers=str(tmp_path))
        await two.start()
        try:
            await eventually(lambda: one.ingress.admitter.loans.ownership.agreed and len(known(one)) == 2, "they agree")
            yield one, two
        finally:
            await two.ingress.drain(0.5)


def known(door: Door) -> frozenset[str]:
    return door.ingress.admitter.loans.ownership.view.members


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_limit_is_the_same_whichever_worker_a_request_comes_to(doors: tuple[Door, Door], limit: int) -> None:
    one, two = doors
    app = Counting(0.01)
    async with instance(app) as port:
        await one.route(container_concurrency=limit)
        await one.ready("i1", port)
        answers = await asyncio.gather(*(door.get() for _ in range(30) for door in doors))
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 60
    assert (app.most, app.served) == (limit, 60)
    assert two.ingress.metrics.upstream_connects


async def test_who_waits_at_a_worker_that_does_not_own_the_revision_is_woken_for_and_served(doors: tuple[Door, Door]) -> None:
    one, _ = doors
    app = Counting(0)
    async with instance(app) as port:
        await one.route(container_concurrency=1)
        waiting = [asyncio.create_task(door.get()) for door in doors]
        await eventually(lambda: len([subject for subject, _ in one.heard if subject == "ebb.wake"]) >= 2, "both wake")
        await one.ready("i1", port)
        assert [answer[:12] for answer in await asyncio.gather(*waiting)] == [b"HTTP/1.1 200"] * 2


async def test_one_that_drains_hands_over_what_it_owns_and_all_are_served(doors: tuple[Door, Door]) -> None:
    one, two = doors
    app = Counting(0.02)
    async with instance(app) as port:
        await one.route(container_concurrency=1)
        await one.ready("i1", port)
        waiting = [asyncio.create_task(door.get()) for _ in range(15) for door in doors]
        await eventually(lambda: app.served > 2, "some are served")
        await two.ingress.drain(10)
        answers = await asyncio.gather(*waiting)
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 30
        await eventually(lambda: len(known(one)) == 1, "the other is gone")
        assert (await one.get())[:12] == b"HTTP/1.1 200"
    assert app.most == 1
