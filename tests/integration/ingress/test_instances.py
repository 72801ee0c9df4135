"""What an instance does to its requests: it is full, slow, draining, out of reach, or dies."""

import asyncio
import time

import pytest

from store import messages
from store.lifecycle import Phase
from store.messages import Drained
from tests.eventually import eventually
from tests.integration.ingress.door import REVISION, Recorder, instance, open_door, read_head


@pytest.mark.parametrize(
    "limits", [{"timeout_s": 0.3}, {"timeout_s": 9, "response_start_timeout_s": 0.3}, {"timeout_s": 9, "idle_timeout_s": 0.3}]
)
async def test_an_instance_that_does_not_begin_in_time_is_a_504(limits: dict[str, float]) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with open_door() as door, instance(silent) as port:
        await door.route(**limits)
        await door.ready("i1", port)
        begun = time.monotonic()
        answer = await door.get()
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert 0.25 < time.monotonic() - begun < 2
        assert door.ingress.admitter.throttler(REVISION).in_flight == 0


@pytest.mark.parametrize("limits", [{"timeout_s": 0.4}, {"timeout_s": 9, "idle_timeout_s": 0.4}])
async def test_an_answer_over_its_time_is_cut_visibly(limits: dict[str, float]) -> None:
    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()

    async with open_door() as door, instance(stuck) as port:
        await door.route(**limits)
        await door.ready("i1", port)
        answer = await door.get()
    assert answer.endswith(b"5\r\nhello\r\n")


async def test_a_slow_start_of_the_answer_does_not_count_against_its_rest() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.2)
            writer.write(b"a")

    async with open_door() as door, instance(slow) as port:
        await door.route(timeout_s=9, response_start_timeout_s=0.7, idle_timeout_s=2)
        await door.ready("i1", port)
        assert (await door.get()).endswith(b"\r\n\r\naaaaa")


async def test_inside_an_instance_there_are_never_more_than_its_limit() -> None:
    recorders = [Recorder(delay_s=0.005) for _ in range(3)]
    async with (
        open_door() as door,
        instance(recorders[0]) as first,
        instance(recorders[1]) as second,
        instance(recorders[2]) as third,
    ):
        await door.route(container_concurrency=2)
        requests = [asyncio.create_task(door.get(f"/{place}")) for place in range(200)]
        for place, port in enumerate((first, second, third)):
            await asyncio.sleep(0.02)
            await door.ready(f"i{place}", port)
        answers = await asyncio.gather(*requests)
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        assert sum(len(recorder.heads) for recorder in recorders) == 200
        assert [recorder.most for recorder in recorders] == [2, 2, 2]


async def test_a_draining_instance_is_called_drained_when_its_last_request_is_over() -> None:
    go = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    other = Recorder()
    async with open_door() as door, instance(held) as old, instance(other) as new:
        await door.route()
        await door.ready("i1", old)
        request = asyncio.create_task(door.get())
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 1)
        await door.ready("i2", new)
        door.tell(door.news("i1", Phase.DRAINING, f"127.0.0.1:{old}"))
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).targets["i1"].state.value == "draining")
        for _ in range(5):
            assert (await door.get()).startswith(b"HTTP/1.1 200")
        assert len(other.heads) == 5
        assert door.said(Drained, messages.drained("n1")) == []
        go.set()
        assert (await request).endswith(b"old")
        await eventually(lambda: door.said(Drained, messages.drained("n1")) == [Drained(instance="i1", sender="door", seq=2)])


async def test_an_instance_that_cannot_be_reached_costs_no_request() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route(container_concurrency=1)
        await door.ready("dead", 1)
        await door.ready("i1", port)
        answers = await asyncio.gather(*(door.get() for _ in range(20)))
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        assert door.ingress.metrics.upstream_failures >= 1


async def test_who_cannot_be_reached_is_waited_for_and_not_forever() -> None:
    async with open_door() as door:
        await door.route(timeout_s=1)
        await door.ready("dead", 1)
        answer = await door.get()
    assert answer.startswith((b"HTTP/1.1 504 ", b"HTTP/1.1 502 "))


async def test_an_instance_that_dies_before_its_answer_is_a_502_and_nothing_is_sent_twice() -> None:
    count = 0

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await read_head(reader)
        count += 1

    async with open_door() as door, instance(dies) as first, instance(dies) as second:
        await door.route()
        await door.ready("i1", first)
        await door.ready("i2", second)
        answer = await door.get()
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"x-ebb-reason: instance-failed\r\n" in answer
    assert count == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_an_instance_that_dies_in_its_answer_is_seen_as_that_and_nothing_is_sent_twice(framing: bytes) -> None:
    count = 0

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        await read_head(reader)
        count += 1
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    async with open_door() as door, instance(dies) as first, instance(dies) as second:
        await door.route()
        await door.ready("i1", first)
        await door.ready("i2", second)
        answer = await door.get()
        assert b"0\r\n\r\n" not in answer
        assert len(answer) < 200
        assert count == 1
        assert door.ingress.admitter.throttler(REVISION).in_flight == 0


async def test_a_kept_connection_that_the_instance_closed_is_not_trusted() -> None:
    """The instance closes after each answer without saying so; 30 requests in a row see no error."""
    served = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_head(reader)
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with open_door() as door, instance(once) as port:
        await door.route()
        await door.ready("i1", port)
        for turn in range(1, 31):
            assert (await door.get()).endswith(b"hi")
            await eventually(lambda turn=turn: served == turn)
            await asyncio.sleep(0.002)
