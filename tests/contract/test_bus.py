"""What every Bus does."""

import asyncio

import pytest

from store.bus import Bus
from store.errors import NoResponder
from tests.eventually import eventually

pytestmark = pytest.mark.real
Buses = tuple[Bus, Bus]


async def test_a_handler_hears_what_is_published_in_order(buses: Buses) -> None:
    one, two = buses
    heard: list[tuple[str, bytes]] = []
    await two.handle("ebb.wake", lambda subject, data: heard.append((subject, data)))
    for number in range(1000):
        one.publish("ebb.wake", str(number).encode())
    await eventually(lambda: len(heard) == 1000)
    assert heard == [("ebb.wake", str(number).encode()) for number in range(1000)]


async def test_a_client_hears_itself(buses: Buses) -> None:
    heard: list[bytes] = []
    await buses[0].handle("ebb.wake", lambda _, data: heard.append(data))
    buses[0].publish("ebb.wake", b"me")
    await eventually(lambda: heard == [b"me"])


async def test_wildcards_stand_for_one_token_or_for_the_rest(buses: Buses) -> None:
    one, two = buses
    heard: dict[str, list[str]] = {}
    for pattern in ("ebb.logs.*.hello", "ebb.logs.>", "ebb.logs.p.hello", "ebb.logs"):
        heard[pattern] = []
        await two.handle(pattern, lambda subject, _, into=heard[pattern]: into.append(subject))  # type: ignore[misc]
    for subject in ("ebb.logs", "ebb.logs.p.hello", "ebb.logs.q.hello", "ebb.logs.p.other", "ebb.logs.p.q.r"):
        one.publish(subject, b"")
    await eventually(lambda: len(heard["ebb.logs.>"]) == 4)
    assert heard == {
        "ebb.logs.*.hello": ["ebb.logs.p.hello", "ebb.logs.q.hello"],
        "ebb.logs.>": ["ebb.logs.p.hello", "ebb.logs.q.hello", "ebb.logs.p.other", "ebb.logs.p.q.r"],
        "ebb.logs.p.hello": ["ebb.logs.p.hello"],
        "ebb.logs": ["ebb.logs"],
    }


async def test_a_handler_that_fails_harms_nobody(buses: Buses) -> None:
    one, two = buses
    heard: list[bytes] = []

    def fragile(_: str, data: bytes) -> None:
        heard.append(data)
        raise RuntimeError("broken")

    await two.handle("ebb.wake", fragile)
    await two.handle("ebb.wake", lambda _, data: heard.append(data))
    one.publish("ebb.wake", b"1")
    one.publish("ebb.wake", b"2")
    await eventually(lambda: len(heard) == 4)


async def test_a_closed_subscription_hears_nothing_more(buses: Buses) -> None:
    one, two = buses
    heard: list[bytes] = []
    listening = await two.handle("ebb.wake", lambda _, data: heard.append(data))
    last: list[bytes] = []
    await two.handle("ebb.last", lambda _, data: last.append(data))
    await listening.close()
    await listening.close()
    one.publish("ebb.wake", b"late")
    one.publish("ebb.last", b"")
    await eventually(lambda: last)
    assert heard == []


async def test_a_subscription_is_iterated_in_order_and_ends_when_closed(buses: Buses) -> None:
    one, two = buses
    listening = await two.subscribe("ebb.*")
    for number in range(10):
        one.publish("ebb.x", bytes([number]))
    got = []
    async for subject, data in listening:
        got.append((subject, data))
        if len(got) == 10:
            await listening.close()
    assert got == [("ebb.x", bytes([number])) for number in range(10)]
    assert listening.dropped == 0


async def test_a_slow_consumer_loses_the_oldest_and_the_loss_is_counted(buses: Buses) -> None:
    one, two = buses
    listening = await two.subscribe("ebb.x", bound=10)
    for number in range(25):
        one.publish("ebb.x", bytes([number]))
    await eventually(lambda: listening.dropped == 15)
    got = []
    async for _, data in listening:
        got.append(data[0])
        if len(got) == 10:
            await listening.close()
    assert got == list(range(15, 25))


async def test_a_request_is_answered(buses: Buses) -> None:
    async def upper(data: bytes) -> bytes:
        return data.upper()

    await buses[1].respond("ebb.ask", upper)
    assert await buses[0].request("ebb.ask", b"hello", timeout_s=5) == b"HELLO"


async def test_a_responder_is_asked_from_the_moment_it_responds_and_not_after_its_close(buses: Buses) -> None:
    async def echo(data: bytes) -> bytes:
        return data

    for number in range(100):
        listening = await buses[1].respond(f"ebb.ask.{number}", echo)
        assert await buses[0].request(f"ebb.ask.{number}", b"x", timeout_s=5) == b"x"
        await listening.close()
    with pytest.raises(NoResponder):
        await buses[0].request("ebb.ask.99", b"x", timeout_s=1)


async def test_of_several_responders_one_is_asked(buses: Buses) -> None:
    asked: list[str] = []

    async def first(_: bytes) -> bytes:
        asked.append("first")
        return b"1"

    async def second(_: bytes) -> bytes:
        asked.append("second")
        return b"2"

    await buses[0].respond("ebb.ask", first)
    await buses[1].respond("ebb.ask", second)
    answers = [await buses[0].request("ebb.ask", b"", timeout_s=5) for _ in range(60)]
    assert len(asked) == 60
    assert set(answers) == {b"1", b"2"}


async def test_a_responder_answers_64_at_once_and_then_the_next(buses: Buses) -> None:
    one, two = buses
    running, most, go = 0, 0, asyncio.Event()

    async def slow(data: bytes) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return data

    await two.respond("ebb.ask", slow)
    requests = [asyncio.create_task(one.request("ebb.ask", str(n).encode(), timeout_s=20)) for n in range(100)]
    await eventually(lambda: running == 64)
    go.set()
    assert sorted(int(answer) for answer in await asyncio.gather(*requests)) == list(range(100))
    assert most == 64


async def test_a_request_nobody_answers_fails_at_once(buses: Buses) -> None:
    begin = asyncio.get_running_loop().time()
    with pytest.raises(NoResponder, match="nobody"):
        await buses[0].request("ebb.nobody", b"", timeout_s=10)
    assert asyncio.get_running_loop().time() - begin < 5


async def test_a_request_answered_too_late_fails_at_its_deadline(buses: Buses) -> None:
    async def never(_: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    await buses[1].respond("ebb.ask", never)
    with pytest.raises(NoResponder, match=r"0\.2 s"):
        await buses[0].request("ebb.ask", b"", timeout_s=0.2)


async def test_a_responder_that_fails_lets_the_requester_run_into_its_deadline_and_answers_the_next(buses: Buses) -> None:
    async def fragile(data: bytes) -> bytes:
        if data == b"bad":
            raise RuntimeError("broken")
        return data

    await buses[1].respond("ebb.ask", fragile)
    with pytest.raises(NoResponder):
        await buses[0].request("ebb.ask", b"bad", timeout_s=0.2)
    assert await buses[0].request("ebb.ask", b"good", timeout_s=5) == b"good"


async def test_a_subject_that_would_end_the_command_is_refused(buses: Buses) -> None:
    for subject in ("ebb.a b", "ebb.a\r\nPUB x 0", "ebb.\t"):
        with pytest.raises(ValueError, match="not allowed"):
            buses[0].publish(subject, b"")


async def test_big_and_empty_messages_arrive(buses: Buses) -> None:
    heard: list[int] = []
    await buses[1].handle("ebb.x", lambda _, data: heard.append(len(data)))
    for size in (0, 1, 65_536, 1_000_000):
        buses[0].publish("ebb.x", b"\r\n" * (size // 2) + b"x" * (size % 2))
    await eventually(lambda: heard == [0, 1, 65_536, 1_000_000])
