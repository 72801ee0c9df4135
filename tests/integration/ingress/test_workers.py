"""Two workers of one front door, with real sockets between them: they share every slot and lose nobody."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.ports import free_port
from ingress.rules import Ruled
from store import keys
from store.model import Limits, RouteEntry, TrafficTarget, encode
from tests.certificates import World
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door, Recorder, instance, open_door
from tests.integration.ingress.test_tls import WILDCARD, TlsDoor, ask


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


async def test_a_service_of_raw_tcp_has_one_limit_over_all_workers(doors: tuple[Door, Door]) -> None:
    """They share its port; a connection is one in flight, whichever worker the kernel gives it to."""
    one, two = doors
    inside = most = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await reader.read()
        await asyncio.sleep(0.005)
        inside -= 1
        writer.write(b"done")

    async def call() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    port = free_port()
    async with instance(counted) as at:
        await one.route_port(port, container_concurrency=2)
        await one.ready("i1", at)
        await eventually(lambda: port in one.ingress.ports.open and port in two.ingress.ports.open, "both listen")
        answers = await asyncio.gather(*(call() for _ in range(60)))
    assert set(answers) == {b"done"}
    assert most == 2
    assert all(door.ingress.listener._gate.metrics.upstream_connects for door in doors), "the kernel gave some to each"


async def test_a_session_stays_at_its_instance_whichever_worker_it_comes_to_and_no_limit_is_exceeded_for_it(
    doors: tuple[Door, Door],
) -> None:
    one, _ = doors
    apps = [Recorder(), Recorder()]
    async with instance(apps[0]) as first, instance(apps[1]) as second:
        await one.ready("i1", first)
        await one.ready("i2", second)
        for limit in (0, 1):
            targets = [TrafficTarget(revision="r1", percent=100)]
            limits = {"r1": Limits(container_concurrency=limit, session_affinity=True)}
            entry = RouteEntry(project="default", route=HOST, hosts={HOST: targets}, limits=limits, main=HOST, affinity_key="k")
            await one.store.put(keys.route("default", HOST), encode(entry))
            await eventually(lambda limit=limit: all(concurrency(door) == limit for door in doors), "both know")
            cookie = (await one.get()).partition(b"et-cookie: ")[2].partition(b";")[0].decode()
            before = [len(app.heads) for app in apps]
            answers = [await door.get("/", f"Cookie: {cookie}") for _ in range(10) for door in doors]
            assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
            if not limit:
                assert 0 in [len(app.heads) - count for app, count in zip(apps, before, strict=True)], "always the same one"
        crowd = await asyncio.gather(*(door.get("/", f"Cookie: {cookie}") for _ in range(20) for door in doors))
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in crowd)
    assert max(app.most for app in apps) == 1


def concurrency(door: Door) -> int | None:
    split = door.ingress.gate.routes.find(HOST.encode())
    shares = split.shares if isinstance(split, Ruled) else None
    return shares.only.concurrency if shares is not None and shares.only is not None else None


async def test_workers_that_speak_tls_hold_one_limit_and_all_see_a_new_certificate(tmp_path: Path) -> None:
    world, app = World(tmp_path), Counting(0.002)
    one = TlsDoor(world, peers=str(tmp_path / "peers"))
    two = TlsDoor(world, beside=one, peers=str(tmp_path / "peers"))
    await one.start()
    await two.start()
    try:
        async with instance(app) as port:
            await one.route(container_concurrency=1)
            await one.ready("i1", port)
            record = world.record(WILDCARD)
            for door in (one, two):
                await door.certify(record)

            async def call(door: TlsDoor) -> bytes:
                reader, writer = await door.secure()
                try:
                    return await ask(reader, writer)
                finally:
                    writer.close()

            answers = await asyncio.gather(*(call(door) for _ in range(15) for door in (one, two)))
            assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
            assert app.most == 1
            renewed = world.record(WILDCARD)
            for door in (one, two):
                await door.certify(renewed)
                _, writer = await door.secure()
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                assert ssl.DER_cert_to_PEM_cert(shown) in renewed.chain
                writer.close()
    finally:
        await asyncio.gather(one.ingress.drain(0.5), two.ingress.drain(0.5))
