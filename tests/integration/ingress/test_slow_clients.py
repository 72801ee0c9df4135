"""Clients that mean harm by being slow (slowhttptest): the others are answered, and who is too slow is ended."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ingress.gate import Bounds
from tests.children import Child
from tests.eventually import eventually
from tests.integration.ingress.door import Door, instance, open_door, read_head

HOST = "127.0.0.1"
CLIENTS = 200
MODES = {
    "slow heads": ("-H",),
    "slow bodies": ("-B", "-s", "100000"),
    "ranges": ("-R",),
    "slow readers": ("-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"),
}


async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads what comes, and answers with a lot, or little for /quick."""
    while head := await read_head(reader):
        if b"content-length: " in head.lower():
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        body = b"quick" if b" /quick " in head else bytes(2**18)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


@asynccontextmanager
async def attacked(door: Door, *mode: str) -> AsyncIterator[None]:
    """While it lasts, `CLIENTS` slow connections are held against `door`."""
    flags = ("-c", str(CLIENTS), "-r", "1000", "-i", "1", "-l", "60", "-x", "8", "-p", "60", "-v", "0")
    argv = ["slowhttptest", *mode, *flags, "-u", f"http://{HOST}:{door.port}/"]
    child = Child(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.kill()
        await child.wait()


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
async def test_the_others_are_answered_while_slow_clients_hold_on(mode: tuple[str, ...]) -> None:
    async with open_door(bounds=Bounds(header_time_s=20)) as door, instance(large) as port:
        await door.route(host=HOST)
        await door.ready("i1", port)
        async with attacked(door, *mode):
            await eventually(lambda: door.ingress.metrics.connections_total >= CLIENTS, "the attack has begun")
            for _ in range(20):
                begun = time.monotonic()
                answer = await door.get("/quick", host=HOST)
                assert answer.endswith(b"quick"), answer
                assert time.monotonic() - begun < 5


async def test_heads_that_do_not_end_are_ended() -> None:
    async with open_door(bounds=Bounds(header_time_s=0.5)) as door:
        await door.route(host=HOST)
        async with attacked(door, *MODES["slow heads"]):
            await eventually(lambda: door.ingress.metrics.refusals.get("header-timeout", 0) >= CLIENTS, "each is answered 408")
            await eventually(lambda: len(door.ingress.listener) == 0, "and closed")


async def test_bodies_that_drip_are_ended_and_give_their_slots_back() -> None:
    async with open_door(bounds=Bounds(body_look_s=0.5)) as door, instance(large) as port:
        await door.route(host=HOST)
        await door.ready("i1", port)
        async with attacked(door, *MODES["slow bodies"]):
            await eventually(
                lambda: door.ingress.metrics.stats("default/r1").refusals.get("body-timeout", 0) >= CLIENTS,
                "each is answered 408",
            )
            await eventually(lambda: door.ingress.admitter.throttler("default/r1").in_flight == 0, "no slot is held")


async def test_a_body_that_nobody_asked_for_yet_or_that_we_do_not_read_is_not_slow() -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lets the client wait for its 100, and reads nothing for a while."""
        await read_head(reader)
        await asyncio.sleep(0.5)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.5)
        await reader.readexactly(20_000_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with open_door(bounds=Bounds(body_look_s=0.1)) as door, instance(patient) as port:
        await door.route(host=HOST)
        await door.ready("i1", port)
        reader, writer = await door.connect()
        head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 20000000\r\n\r\n"
        writer.write(head.encode())
        assert b" 100 " in await read_head(reader)
        writer.write(bytes(20_000_000))
        assert b" 200 " in await read_head(reader)
        writer.close()
