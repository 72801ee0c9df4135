"""A front door with one TCP service, and what stands at both its ends."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from deploy.ports import free_port
from tests.eventually import eventually
from tests.integration.ingress.door import REVISION, Door, Handler, instance, open_door

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it hears, and at the end how much that was."""
    heard = 0
    while data := await reader.read(65_536):
        heard += len(data)
        writer.write(data)
        await writer.drain()
    writer.write(b"=%d" % heard)


@asynccontextmanager
async def opened(**limits: Any) -> AsyncIterator[tuple[Door, int]]:
    """A door with one TCP service that has no instance yet, and its port."""
    settings = {name: limits.pop(name) for name in ("queue_bound", "bounds") if name in limits}
    async with open_door(**settings) as door:
        port = free_port()
        await door.route_port(port, **limits)
        await eventually(lambda: port in door.ingress.ports.open, "the port is open")
        yield door, port


@asynccontextmanager
async def serving(handler: Handler, **limits: Any) -> AsyncIterator[tuple[Door, int]]:
    async with opened(**limits) as (door, port), instance(handler) as at:
        await door.ready("i1", at)
        yield door, port


async def connect(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


def cut(writer: asyncio.StreamWriter) -> None:
    """Close with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def waiting(door: Door) -> int:
    return door.ingress.admitter.throttler(REVISION).line.waiting


def in_flight(door: Door) -> int:
    return door.ingress.admitter.throttler(REVISION).in_flight


async def still(look: Callable[[], int]) -> int:
    """The value of `look` once it has stopped to change."""
    last = -1

    def same() -> bool:
        nonlocal last
        before, last = last, look()
        return before == last

    await eventually(same, "it stands still", every_s=0.1)
    return last
