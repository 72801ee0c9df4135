"""Waiting, waking, refusing: requests that meet no free instance, and what is told of them."""

import asyncio
import re
import statistics
import time

import pytest

from ingress import strangers
from store import keys, messages
from store.lifecycle import Phase
from store.messages import Refusal, SampleReport, StoryEvents, Wake
from store.model import decode, encode
from store.story import TOGETHER_S
from tests.eventually import eventually, eventually_async
from tests.integration.ingress.door import HOST, REVISION, Door, Recorder, instance, open_door, read_head


class Unknown:
    """As much of a held request as its holder looks at. Its client has left by the time it is let go."""

    held = False
    ended = True


def waiting(door: Door) -> int:
    return len(door.ingress.admitter.throttler(REVISION).line)


async def test_an_unknown_host_is_404() -> None:
    async with open_door() as door:
        answer = await door.get()
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"x-ebb-reason: no-route\r\n" in answer
    assert HOST.encode() in answer


async def test_a_request_that_comes_a_moment_before_its_route_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "HOLD_S", 20.0)  # However busy the machine is, the moment is not over.
    async with open_door() as door, instance(Recorder()) as port:
        request = asyncio.create_task(door.get())
        await asyncio.sleep(0.05)
        assert not request.done()
        await door.route()
        await door.ready("i1", port)
        assert (await request).startswith(b"HTTP/1.1 200 OK")


async def test_a_flood_of_unknown_hosts_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "HOLD_S", 60.0)  # Whoever were held would not be answered in this test.
    async with open_door() as door:
        held = [door.ingress.gate.strangers.hold(Unknown()) for _ in range(strangers.MOST + 1)]
        answer = await door.get()
    assert held == [True] * strangers.MOST + [False]
    assert b"x-ebb-reason: no-route\r\n" in answer


def told(door: Door) -> list[str]:
    """The steps of the story of the request me-1."""
    events = [event for said in door.said(StoryEvents, messages.STORY) for event in said.events]
    return [event.what for event in events if event.cause_id == "me-1"]


async def test_a_cold_request_wakes_waits_and_is_served_when_the_bus_says_ready() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        request = asyncio.create_task(door.get("/", "X-Request-Id: me-1"))
        await eventually(lambda: len(door.said(Wake, messages.WAKE)) >= 2, "a wake, and again")
        (wake, again, *_) = door.said(Wake, messages.WAKE)
        assert (wake.revision, wake.waiting, wake.sender, wake.cause_id) == (REVISION, 1, "door", "me-1")
        assert again.at - wake.at >= 0.2
        await eventually(lambda: door.said(SampleReport, messages.SAMPLES), "the report of a second")
        (report, *_) = door.said(SampleReport, messages.SAMPLES)
        assert (report.samples[0].queued, report.samples[0].requests) == (1, 1)
        assert report.interval_s > 0, "none at once: the wake says that somebody came"
        door.tell(door.news("i1", Phase.READY, f"127.0.0.1:{port}"))
        answer = await request
        await eventually(lambda: "first byte" in told(door), "the story")
        story = told(door)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"x-ebb-cause: me-1\r\n" in answer
    assert [each for each in story if each != "wake sent"] == ["request waiting", "dispatched", "first byte"]
    assert story.index("request waiting") < story.index("wake sent") < story.index("dispatched")


async def test_a_warm_request_tells_no_story_and_names_no_cause() -> None:
    async with open_door() as door, instance(Recorder()) as port:
        await door.route()
        await door.ready("i1", port)
        assert b"x-ebb-cause" not in await door.get()
        await asyncio.sleep(2 * TOGETHER_S)
        assert door.said(StoryEvents, messages.STORY) == []


async def test_without_the_bus_the_wake_goes_through_the_store() -> None:
    async with open_door() as door, instance(Recorder()) as port:
        await door.route()
        door.hub.up = False
        request = asyncio.create_task(door.get())

        async def stored() -> bool:
            return await door.store.get(keys.wake("default", "r1")) is not None

        await eventually_async(stored, "a wake in the store")
        entry = await door.store.get(keys.wake("default", "r1"))
        assert entry is not None
        assert entry.lease
        assert decode(Wake, entry.value).waiting == 1
        await door.ready("i1", port)
        assert (await request).startswith(b"HTTP/1.1 200 OK")


async def test_when_it_cannot_start_everybody_hears_why_at_once() -> None:
    async with open_door() as door:
        await door.route()
        requests = [asyncio.create_task(door.get()) for _ in range(5)]
        await eventually(lambda: waiting(door) == 5)
        refusal = Refusal(revision=REVISION, reason="ImagePullFailed", message="hello:v9 is not there", retry_after_s=4)
        door.bus.publish(messages.REFUSAL, encode(refusal))
        for answer in await asyncio.gather(*requests):
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"x-ebb-reason: cannot-start\r\n" in answer
            assert b"Retry-After: 4\r\n" in answer
            assert b"ImagePullFailed: hello:v9 is not there" in answer


async def test_above_the_queue_bound_a_request_is_turned_away_within_50_ms_with_when_to_come_again() -> None:
    async with open_door(queue_bound=100) as door:
        await door.route()
        held = [asyncio.create_task(door.get()) for _ in range(100)]
        await eventually(lambda: waiting(door) == 100)
        took_s = []
        for _ in range(21):
            begun = time.monotonic()
            answer = await door.get()
            took_s.append(time.monotonic() - begun)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"x-ebb-reason: queue-full\r\n" in answer
            assert b"Retry-After: 1\r\n" in answer
        assert statistics.median(took_s) < 0.05
        for each in held:
            each.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_a_request_that_waits_too_long_is_a_504() -> None:
    async with open_door() as door:
        await door.route(timeout_s=0.2)
        answer = await door.get()
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert b"x-ebb-reason: timeout\r\n" in answer


async def test_five_hundred_clients_at_once_on_a_cold_service_are_all_served_five_times() -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()

        async def many(count: int) -> int:
            reader, writer = await door.connect()
            served = 0
            for _ in range(count):
                writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                if (await read_head(reader)).startswith(b"HTTP/1.1 200"):
                    await reader.readuntil(b"ok")
                    served += 1
                    await reader.read(16)
            writer.close()
            return served

        clients = [asyncio.create_task(many(5)) for _ in range(500)]
        await eventually(lambda: waiting(door) == 500)
        await door.ready("i1", port)
        assert sum(await asyncio.gather(*clients)) == 2500


async def test_shares_change_between_two_requests_and_no_request_is_lost() -> None:
    recorders = {name: Recorder() for name in ("r1", "r2")}
    async with open_door() as door, instance(recorders["r1"]) as first, instance(recorders["r2"]) as second:
        await door.route({"r1": 100})
        await door.ready("a1", first, "r1")
        await door.ready("b1", second, "r2")
        for _ in range(20):
            assert (await door.get()).startswith(b"HTTP/1.1 200")
        await door.route({"r1": 50, "r2": 50})
        await eventually(lambda: door.ingress.gate.routes.find(HOST.encode()).only is None)
        for _ in range(100):
            assert (await door.get()).startswith(b"HTTP/1.1 200")
        assert 20 < len(recorders["r2"].heads) < 80
        before = len(recorders["r1"].heads)
        await door.route({"r2": 100})
        await eventually(lambda: door.ingress.gate.routes.find(HOST.encode()).only is not None)
        for _ in range(20):
            await door.get()
        assert len(recorders["r1"].heads) == before


async def test_samples_follow_traffic_and_end_with_a_zero() -> None:
    async with open_door() as door, instance(Recorder(delay_s=0.2)) as port:
        await door.route()
        await door.ready("i1", port)
        begun = time.monotonic()
        await door.get()
        took_s = time.monotonic() - begun
        await eventually(lambda: len(door.said(SampleReport, messages.SAMPLES)) >= 3, "a first, a second, a zero")
        samples = [report.samples[0] for report in door.said(SampleReport, messages.SAMPLES)]
        assert samples[0].in_flight == 1
        assert sum(sample.requests for sample in samples) == 1
        assert samples[-1].concurrency == 0
        assert samples[-1].by_instance == {"i1": 0}
        busy = sum(sample.concurrency for sample in samples[1:])
        assert 0.15 < busy < took_s + 0.1


async def test_draining_finishes_what_runs_and_takes_the_member_away() -> None:
    recorder = Recorder(delay_s=0.3)
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        assert await door.store.get(keys.member("ingress", "door")) is not None
        idle_reader, idle_writer = await door.connect()
        reader, writer = await door.connect()
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await eventually(lambda: recorder.now == 1)
        port_then = door.port
        drained = asyncio.create_task(door.ingress.drain(5))
        assert await idle_reader.read() == b""
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
        await drained
        assert await door.store.get(keys.member("ingress", "door")) is None
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port_then)
        writer.close()
        idle_writer.close()


async def test_an_answer_says_where_its_time_went_when_its_service_wants_it() -> None:
    async with open_door() as door, instance(Recorder(delay_s=0.05)) as port:
        await door.route(server_timing=True)
        cold = asyncio.create_task(door.get())
        await eventually(lambda: waiting(door) == 1)
        await asyncio.sleep(0.05)
        await door.ready("i1", port)
        said = re.search(rb"\r\nServer-Timing: queue;dur=([0-9.]+), connect;dur=([0-9.]+), app;dur=([0-9.]+)\r\n", await cold)
        assert said is not None
        queue_ms, connect_ms, app_ms = map(float, said.groups())
        assert queue_ms >= 50
        assert 0 < connect_ms < 50 <= app_ms
        await door.route()
        assert b"Server-Timing" not in await door.get()
