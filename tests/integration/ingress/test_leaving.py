"""Clients that leave: in line, in the middle of what they send, in the middle of what they get. Nobody works on for them."""

import asyncio
import socket
import statistics
import time

import pytest
from h2.errors import ErrorCodes

from activator.throttler import WAKE_AGAIN_S
from store import messages
from store.messages import SampleReport, Wake
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, REVISION, Door, Recorder, instance, open_door, read_head
from tests.integration.ingress.http2_peer import peer

TRIES = 15
"""The bounds are the median's: what one try takes also depends on what else the machine does."""


def waiting(door: Door) -> int:
    return len(door.ingress.admitter.throttler(REVISION).line)


def in_flight(door: Door) -> int:
    return door.ingress.admitter.throttler(REVISION).in_flight


async def test_a_client_that_leaves_the_line_is_out_of_it_within_100_ms_and_never_dispatched() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        writers = []
        for place in range(100):
            _, writer = await door.connect()
            writer.write(f"GET /{place} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            writers.append(writer)
        await eventually(lambda: waiting(door) == 100)
        stays, took_s = writers.pop(23), []
        for left, writer in enumerate(writers, 1):
            begun = time.monotonic()
            writer.transport.abort()
            await eventually(lambda left=left: waiting(door) == 100 - left, every_s=0.001)
            took_s.append(time.monotonic() - begun)
        assert statistics.median(took_s) < 0.1
        assert max(took_s) < 2
        await door.ready("i1", port)
        await eventually(lambda: recorder.heads)
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 0)
        assert [head.split(b" ")[1] for head in recorder.heads] == [b"/23"]
        stays.close()
        await eventually(lambda: len(door.ingress.listener) == 0)


async def test_ten_thousand_clients_that_left_the_line_leave_nothing_and_nobody_is_started_for_them() -> None:
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    async with open_door() as door:
        await door.route()

        def wave() -> None:
            """Five hundred come and go; blocking."""
            socks = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(500)]
            for sock in socks:
                sock.send(request)
            deadline = time.monotonic() + 20
            while waiting(door) < 500 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert waiting(door) == 500
            for sock in socks:
                sock.close()

        for _ in range(20):
            await asyncio.to_thread(wave)
            await eventually(lambda: not waiting(door) and not len(door.ingress.listener))
        assert door.ingress.metrics.connections_total == 10_000
        assert door.ingress.gate.addresses == {}
        throttler = door.ingress.admitter.throttler(REVISION)
        assert throttler.in_flight == throttler.foreign == len(throttler.line) == 0
        assert not throttler.restless

        def last() -> tuple[float, int]:
            sample = door.said(SampleReport, messages.SAMPLES)[-1].samples[0]
            return sample.concurrency, sample.queued

        await eventually(lambda: last() == (0, 0), "the autoscaler is told that nobody waits")
        woken = len(door.said(Wake, messages.WAKE))
        await asyncio.sleep(2 * WAKE_AGAIN_S)
        assert len(door.said(Wake, messages.WAKE)) == woken, "no wake for those who left"


async def test_a_client_that_breaks_off_its_body_frees_the_slot_within_100_ms_and_what_it_sent_is_no_request() -> None:
    """What the instance got of it has no end, its connection is over, and no other request comes on that."""
    begun_with: list[bytes] = []
    ends: list[bytes] = []

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        try:
            while more := await reader.read(65536):
                if not data:
                    begun_with.append(more)
                data += more
        except ConnectionResetError:
            pass
        ends.append(data)

    took_s = []
    async with open_door() as door, instance(counts) as port:
        await door.route(container_concurrency=1)
        await door.ready("i1", port)
        for turn in range(TRIES):
            _, writer = await door.connect()
            framing = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" if turn % 2 else "Content-Length: 9\r\n\r\nabc"
            writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}".encode())
            await eventually(lambda: len(begun_with) == turn + 1)  # noqa: B023
            begun = time.monotonic()
            writer.transport.abort()
            await eventually(lambda: in_flight(door) == 0, every_s=0.001)
            took_s.append(time.monotonic() - begun)
        await eventually(lambda: len(ends) == TRIES, "each had a connection of its own, which is over")
    assert all(data.count(b"POST ") == 1 and b"0\r\n\r\n" not in data for data in ends)
    assert statistics.median(took_s) < 0.1


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_a_client_that_goes_away_in_the_middle_of_its_answer_frees_the_slot_within_100_ms(http2: bool) -> None:
    gone: list[bool] = []

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"1\r\na\r\n")
                await writer.drain()
                await asyncio.sleep(0.005)
        except (ConnectionError, RuntimeError):  # The second is uvloop's word for a write after the end.
            gone.append(True)

    took_s = []
    async with open_door() as door, instance(endless) as port:
        await door.route(container_concurrency=1)
        await door.ready("i1", port)
        for turn in range(1, TRIES + 1):
            if http2:
                async with peer(door) as client:
                    stream = client.request("/")
                    await eventually(lambda client=client, stream=stream: client.bodies.get(stream))
                    begun = time.monotonic()
                    client.h2.reset_stream(stream, ErrorCodes.CANCEL)
                    client.flush()
                    await eventually(lambda: in_flight(door) == 0, every_s=0.001)
                    took_s.append(time.monotonic() - begun)
            else:
                reader, writer = await door.connect()
                writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                await reader.readuntil(b"1\r\na\r\n")
                assert in_flight(door) == 1
                begun = time.monotonic()
                writer.transport.abort()
                await eventually(lambda: in_flight(door) == 0, every_s=0.001)
                took_s.append(time.monotonic() - begun)
            await eventually(lambda turn=turn: len(gone) == turn, "the instance hears of it: its connection is over")
    assert statistics.median(took_s) < 0.1
