"""HTTP/2 clients that ask too much, read too little or say nothing: nobody else feels it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import h2.events
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
)

from ingress.gate import Bounds
from tests.eventually import eventually
from tests.integration.ingress.door import REVISION, Recorder, instance, open_door, read_head
from tests.integration.ingress.http2_peer import Peer, peer


def rss_mb() -> float:
    """Memory of this process, where the front door runs too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def resets(client: Peer) -> None:
    for _ in range(700):
        id = client.request("/")
        client.h2.reset_stream(id)
    client.flush()


def pings(client: Peer) -> None:
    client.frame(*[PingFrame(0, b"12345678") for _ in range(1200)])


def settings(client: Peer) -> None:
    client.frame(*[SettingsFrame(0) for _ in range(1200)])


def empties(client: Peer) -> None:
    id = client.request("/", method="POST", end=False)
    client.frame(*[DataFrame(id) for _ in range(1200)])


def priorities(client: Peer) -> None:
    client.frame(*[PriorityFrame(1, depends_on=3) for _ in range(1200)])


def continuations(client: Peer) -> None:
    client.frame(HeadersFrame(1, b"\0" * 100), *[ContinuationFrame(1, b"\0" * 16000) for _ in range(5)])


def short_continuations(client: Peer) -> None:
    client.frame(HeadersFrame(1, b"\0" * 100), *[ContinuationFrame(1, b"") for _ in range(1200)])


def bomb(client: Peer) -> None:
    """One large field, then named again and again: 1 byte each."""
    client.h2.encoder.header_table_size = 4096
    block = client.h2.encoder.encode([("x-large", "x" * 4000)]) + b"\xbe" * 15000
    client.frame(HeadersFrame(1, block, flags=["END_HEADERS"]))


def too_large(client: Peer) -> None:
    client.frame(DataFrame(1, bytes(20000)))


def too_many_streams(client: Peer) -> None:
    client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000
    client.h2.remote_settings.acknowledge()
    for _ in range(101):
        client.request("/", method="POST", end=False)


@pytest.mark.parametrize(
    "flood",
    [resets, pings, settings, empties, priorities, continuations, short_continuations, bomb, too_large, too_many_streams],
)
async def test_a_flood_ends_its_connection_and_nothing_else(flood: Callable[[Peer], None]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with open_door() as door, instance(silent) as port, peer(door) as client, peer(door) as other:
        await door.route()
        await door.ready("i1", port)
        await eventually(lambda: client.of(h2.events.RemoteSettingsChanged))
        flood(client)
        await eventually(lambda: client.closed, "the connection is cut")
        assert client.goaways[0] != ErrorCodes.NO_ERROR
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 0)
        assert (await other.answer(other.request(host="nobody.example")))[0][":status"] == "404"


async def test_ordinary_cancels_and_pings_are_no_flood() -> None:
    async with open_door() as door, instance(Recorder()) as port, peer(door) as client:
        await door.route()
        await door.ready("i1", port)
        for _ in range(3):
            for _ in range(60):
                client.h2.reset_stream(client.request("/"))
            client.frame(*[PingFrame(0, b"12345678") for _ in range(20)])
            answer = await client.answer(client.request("/"))
            assert answer[0][":status"] == "200", answer


async def test_a_slow_client_holds_its_own_stream_and_memory_stays_flat() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/small" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with (
        open_door() as door,
        instance(endless) as port,
        peer(door, settings={SettingCodes.INITIAL_WINDOW_SIZE: 20_000}) as client,
    ):
        await door.route()
        await door.ready("i1", port)
        client.eager = False
        before = rss_mb()
        large = client.request("/large")
        await eventually(lambda: client.bodies.get(large) == 20_000, "its window is full")
        assert (await client.answer(client.request("/small")))[1] == b"ok"
        assert client.bodies[large] == 20_000
        assert rss_mb() - before < 10


async def test_idle_connections_are_closed() -> None:
    async with open_door(bounds=Bounds(header_time_s=0.2, idle_time_s=0.2)) as door, peer(door) as client:
        await eventually(lambda: client.closed, timeout_s=3)
