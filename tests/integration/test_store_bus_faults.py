"""The real NATS stopped and started again, and what its clients notice of it."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from process.identity import Who
from store.errors import BusUnavailable
from store.nats import NatsBus
from tests import real
from tests.eventually import eventually, eventually_async

pytestmark = pytest.mark.real


async def opened(url: str, name: str) -> NatsBus:
    bus = NatsBus(url, name)
    await bus.start()
    return bus


async def test_everything_is_heard_again_after_the_server_came_back() -> None:
    async with real.nats() as server:
        one, two = await opened(server.url, "one"), await opened(server.url, "two")
        heard: list[bytes] = []
        await two.handle("ebb.wake", lambda _, data: heard.append(data))
        queued = await two.subscribe("ebb.story")

        async def echo(data: bytes) -> bytes:
            return data

        await two.respond("ebb.ask", echo)
        for round_ in range(3):
            server.kill()
            await eventually(lambda: not one.connected and not two.connected)
            lost = one.lost
            one.publish("ebb.wake", b"into the void")
            assert one.lost == lost + 1
            with pytest.raises(BusUnavailable):
                await one.request("ebb.ask", b"", timeout_s=5)
            await server.restart()
            await eventually(lambda: one.connected and two.connected, timeout_s=10)
            one.publish("ebb.wake", str(round_).encode())
            one.publish("ebb.story", str(round_).encode())
            assert await one.request("ebb.ask", b"back", timeout_s=5) == b"back"
        await eventually(lambda: len(heard) == 3)
        assert heard == [b"0", b"1", b"2"]
        story = [data async for _, data in _first(queued, 3)]
        assert story == [b"0", b"1", b"2"]
        await one.close()
        await two.close()


async def test_a_bus_opens_without_a_server_and_finds_it_later() -> None:
    async with real.nats() as server:
        server.kill()
        begin = time.monotonic()
        bus = NatsBus(server.url, "early")
        await bus.start(wait_s=0.2)
        assert time.monotonic() - begin < 5
        assert not bus.connected
        heard: list[bytes] = []
        await bus.handle("ebb.wake", lambda _, data: heard.append(data))
        await server.restart()
        await eventually(lambda: bus.connected)
        bus.publish("ebb.wake", b"hello")
        await eventually(lambda: heard == [b"hello"])
        await bus.close()


async def test_a_server_that_does_not_read_costs_messages_and_no_time() -> None:
    async with real.nats() as server:
        bus = await opened(server.url, "patient")
        server.pause()
        begin = time.monotonic()
        for _ in range(40):
            bus.publish("ebb.samples", b"x" * 500_000)
        assert time.monotonic() - begin < 5
        assert bus.lost > 0
        server.resume()
        await bus.close()


async def test_more_than_the_server_takes_is_lost_and_the_connection_stays() -> None:
    async with real.nats() as server:
        bus = await opened(server.url, "big")
        bus.publish("ebb.samples", b"x" * 2_000_000)
        assert bus.lost == 1
        assert bus.connected
        await bus.close()


async def test_what_was_published_before_the_close_goes_out() -> None:
    async with real.nats() as server:
        one, two = await opened(server.url, "one"), await opened(server.url, "two")
        heard: list[bytes] = []
        await two.handle("ebb.story", lambda _, data: heard.append(data))
        for number in range(500):
            one.publish("ebb.story", str(number).encode())
        await one.close()
        await eventually(lambda: len(heard) == 500)
        await two.close()


async def test_nothing_is_left_running_after_the_close() -> None:
    before = asyncio.all_tasks()
    async with real.nats() as server:
        bus = await opened(server.url, "tidy")
        await bus.handle("ebb.a", lambda *_: None)
        await bus.subscribe("ebb.b")
        await bus.respond("ebb.c", _forever)
        await bus.close()

        async def tidy() -> bool:
            await asyncio.sleep(0)
            return asyncio.all_tasks() == before

        await eventually_async(tidy)


async def _forever(_: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def _first(listening: object, count: int):  # type: ignore[no-untyped-def]
    async for message in listening:  # type: ignore[attr-defined]
        yield message
        count -= 1
        if not count:
            return


async def test_the_end_of_a_server_that_speaks_tls_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster = real.Cluster(tmp_path)
    async with real.secure_nats(cluster, Who("ingress", "a")) as server:
        bus = NatsBus(server.url, "one", cluster.identity("ingress", "a"))
        await bus.start()
        assert bus.connected
        with caplog.at_level(logging.WARNING, "asyncio"):
            server.kill()
            await eventually(lambda: not bus.connected)
        await bus.close()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
