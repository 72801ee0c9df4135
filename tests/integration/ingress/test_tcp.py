"""Connections of raw TCP services: admitted like requests, bytes both ways."""

import asyncio
import socket

import pytest

from deploy.ports import free_port
from store import messages
from store.lifecycle import Phase
from store.messages import Refusal, Wake
from store.model import encode
from tests.eventually import eventually
from tests.integration.ingress.door import REVISION, Door, instance
from tests.integration.ingress.tcp_door import connect, cut, echo, in_flight, opened, serving, still, waiting


async def test_a_connection_wakes_its_service_and_what_was_said_before_is_not_lost() -> None:
    async with opened() as (door, port), instance(echo) as at:
        reader, writer = await connect(port)
        writer.write(b"said before anyone listened")
        await eventually(lambda: door.said(Wake, messages.WAKE), "a wake")
        assert waiting(door) == 1
        door.tell(door.news("i1", Phase.READY, f"127.0.0.1:{at}"))
        assert await reader.readexactly(27) == b"said before anyone listened"
        writer.write_eof()
        assert await reader.read() == b"=27"
        writer.close()


async def test_an_instance_may_speak_first() -> None:
    async def greeter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        assert await reader.readline() == b"QUIT\r\n"
        writer.write(b"221 bye\r\n")

    async with serving(greeter) as (_, port):
        reader, writer = await connect(port)
        assert await reader.readline() == b"220 ready\r\n"
        writer.write(b"QUIT\r\n")
        assert await reader.read() == b"221 bye\r\n"
        writer.close()


async def test_a_client_that_has_said_all_before_it_is_served_still_hears_the_answer() -> None:
    async with opened() as (door, port), instance(echo) as at:
        reader, writer = await connect(port)
        writer.write(b"all")
        writer.write_eof()
        await eventually(lambda: waiting(door) == 1)
        await door.ready("i1", at)
        assert await reader.read() == b"all=3"
        writer.close()
        await eventually(lambda: in_flight(door) == 0, "the slot is free")


async def test_an_instance_may_end_its_half_and_hear_on() -> None:
    heard: list[bytes] = []

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all from me")
        writer.write_eof()
        heard.append(await reader.read())

    async with serving(half) as (_, port):
        reader, writer = await connect(port)
        assert await reader.read() == b"that is all from me"
        writer.write(b"but not from me")
        writer.write_eof()
        await eventually(lambda: heard == [b"but not from me"])
        writer.close()


@pytest.mark.parametrize("side", ["client", "instance"])
async def test_a_reset_on_one_side_is_a_reset_on_the_other(side: str) -> None:
    ends: list[str] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half an ans")
        await reader.readexactly(2)
        if side == "instance":
            cut(writer)
            return
        try:
            await reader.read()
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")

    async with serving(handler) as (door, port):
        reader, writer = await connect(port)
        await reader.readexactly(11)
        writer.write(b"go")
        if side == "client":
            await writer.drain()
            await asyncio.sleep(0.05)  # The two bytes must be read before the reset throws them away.
            cut(writer)
            await eventually(lambda: ends == ["reset"])
        else:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()
        await eventually(lambda: in_flight(door) == 0, "the slot is free")


async def test_connections_are_concurrency_and_never_above_the_limit() -> None:
    now = most = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        writer.write(await reader.readline())
        await asyncio.sleep(0.01)
        now -= 1

    async def one(port: int, number: int) -> bytes:
        reader, writer = await connect(port)
        writer.write(b"%d\n" % number)
        answer = await reader.read()
        writer.close()
        return answer

    async with serving(counting, container_concurrency=3) as (door, port):
        assert await asyncio.gather(*(one(port, n) for n in range(40))) == [b"%d\n" % n for n in range(40)]
        assert most == 3
        await eventually(lambda: in_flight(door) == 0)
        assert door.ingress.metrics.stats(REVISION).tcp == 40


async def test_who_cannot_be_served_is_reset_and_counted() -> None:
    async with opened(queue_bound=1, timeout_s=0.4) as (door, port):
        first = await connect(port)
        await eventually(lambda: waiting(door) == 1)
        second = await connect(port)
        with pytest.raises(ConnectionResetError):
            await second[0].read()
        assert door.ingress.metrics.stats(REVISION).refusals["queue-full"] == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(first[0].read(), 5)
        assert door.ingress.metrics.stats(REVISION).refusals["timeout"] == 1
        third = await connect(port)
        await eventually(lambda: waiting(door) == 1)
        door.bus.publish(messages.REFUSAL, encode(Refusal(revision=REVISION, reason="ImagePullFailed", message="not there")))
        with pytest.raises(ConnectionResetError):
            await third[0].read()
        assert door.ingress.metrics.stats(REVISION).refusals["cannot-start"] == 1
        assert len(door.ingress.ports.open[port]) == 0
        for _, writer in (first, second, third):
            writer.close()


async def test_a_client_that_breaks_off_leaves_the_line_at_once() -> None:
    async with opened() as (door, port):
        _, writer = await connect(port)
        await eventually(lambda: waiting(door) == 1)
        cut(writer)
        await eventually(lambda: waiting(door) == 0)


async def test_an_instance_that_cannot_be_reached_is_passed_over() -> None:
    async with opened() as (door, port), instance(echo) as at:
        await door.ready("dead", free_port())
        reader, writer = await connect(port)
        writer.write(b"x")
        await eventually(lambda: door.ingress.metrics.upstream_failures > 0)
        await door.ready("i1", at)
        assert await reader.readexactly(1) == b"x"
        writer.close()


async def test_a_side_that_does_not_read_stops_the_other_and_little_is_kept() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    def kept(door: Door) -> int:
        (client,) = door.ingress.ports.open[port]._clients
        return sum(half.transport.get_write_buffer_size() for half in (client, client.other)) + len(client._early)

    async with serving(flood) as (door, port):
        sock = socket.create_connection(("127.0.0.1", port))
        await eventually(lambda: sent > 0)
        await still(lambda: sent)
        assert kept(door) < 2**20
        sock.close()
    async with serving(deaf) as (door, port):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        gone = 0

        def push() -> int:
            nonlocal gone
            try:
                while True:
                    gone += sock.send(bytes(65_536))
            except BlockingIOError:
                return gone

        await still(push)
        assert kept(door) < 2**20
        sock.close()


async def test_megabytes_pass_whole_both_ways_through_a_wake() -> None:
    size = 20_000_000
    async with opened() as (door, port), instance(echo) as at:
        reader, writer = await connect(port)
        data = bytes(range(256)) * (size // 256)

        async def talk() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        talking = asyncio.create_task(talk())
        await eventually(lambda: waiting(door) == 1)
        await door.ready("i1", at)
        heard = await reader.read()
        await talking
        assert heard == data + b"=%d" % len(data)
        writer.close()


async def test_a_connection_on_which_nobody_speaks_is_ended() -> None:
    async with serving(echo, idle_timeout_s=0.8) as (door, port):
        reader, writer = await connect(port)
        for _ in range(4):
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            await asyncio.sleep(0.3)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert door.ingress.metrics.stats(REVISION).refusals["timeout"] == 1
        writer.close()
        await eventually(lambda: in_flight(door) == 0)


async def test_draining_lets_connections_end_and_cuts_what_is_left() -> None:
    async with serving(echo) as (door, port):
        ending, staying = await connect(port), await connect(port)
        for reader, writer in (ending, staying):
            writer.write(b"x")
            await reader.readexactly(1)
        draining = asyncio.create_task(door.ingress.drain(0.6))
        await eventually(lambda: door.ingress.gate.closing)
        ending[1].write(b"y")
        ending[1].write_eof()
        assert await ending[0].read() == b"y=2"
        with pytest.raises(ConnectionResetError):
            await staying[0].read()
        await draining
        with pytest.raises(ConnectionRefusedError):
            await connect(port)
        for _, writer in (ending, staying):
            writer.close()
