"""An instance that is stopped, black-holed or broken holds up nobody but who is already there."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nodeagent.network.nft import Nft
from tests.children import Child
from tests.eventually import eventually
from tests.integration.ingress.door import REVISION, Door, Recorder, instance, open_door, read_head
from tests.integration.netns_world import Machine, run_on_a_machine

SERVER = """
import asyncio
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@asynccontextmanager
async def process() -> AsyncIterator[tuple[Child, int]]:
    """An instance in a process of its own, and its port."""
    child = Child([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        yield child, int(await asyncio.to_thread(child.stdout.readline))
    finally:
        child.kill()
        await child.wait()


async def paced(door: Door, count: int, every_s: float = 0.01) -> list[float]:
    """Start `count` requests, one each `every_s`; how long those took that were answered, those still unanswered left alone."""

    async def one() -> float:
        begun = time.monotonic()
        assert (await door.get()).startswith(b"HTTP/1.1 200")
        return time.monotonic() - begun

    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(every_s)
    done, held = await asyncio.wait(tasks, timeout=2)
    for task in held:
        task.cancel()
    return [task.result() for task in done] + [float("inf")] * len(held)


async def holds_nobody_up(door: Door, sick: str, cut: Callable[[], None], mend: Callable[[], None]) -> None:
    """Three instances are ready; `sick` is cut off by `cut` under load, and whole again by `mend`."""
    target = door.ingress.admitter.throttler(REVISION).targets[sick]
    await paced(door, 30)
    cut()
    pressing = asyncio.create_task(paced(door, 250))
    await eventually(lambda: target.ejected_until, "it is out", timeout_s=5)
    held = target.in_flight
    took = await pressing
    assert sum(each == float("inf") for each in took) <= held + 1, "one probe at most found it still cut off"
    answered = sorted(each for each in took if each != float("inf"))
    assert answered[int(len(answered) * 0.9)] < 0.25
    assert len(answered) > 240
    mend()
    await eventually(lambda: not target.doubted or not target.in_flight, "what it held is over")
    for _ in range(200):
        await door.get()
        if not target.doubted:
            break
        await asyncio.sleep(0.02)
    assert not target.ejected_until


async def test_a_stopped_instance_among_others_holds_nobody_up_and_is_back_when_it_goes_on() -> None:
    """Its kernel takes connections and bytes all the while."""
    async with open_door() as door, process() as (stopped, port), instance(Recorder()) as second, instance(Recorder()) as third:
        await door.route()
        for name, where in (("i1", port), ("i2", second), ("i3", third)):
            await door.ready(name, where)
        await holds_nobody_up(
            door, "i1", lambda: stopped.send_signal(signal.SIGSTOP), lambda: stopped.send_signal(signal.SIGCONT)
        )


def test_an_instance_whose_packets_are_dropped_holds_nobody_up_and_is_back_when_they_pass() -> None:
    """Nothing answers there: no connection is made and none is refused. In a network namespace of the test's own."""

    async def on_the_machine(machine: Machine) -> None:
        async with (
            open_door() as door,
            instance(Recorder()) as first,
            instance(Recorder()) as second,
            instance(Recorder()) as third,
        ):
            await door.route()
            for name, where in (("i1", first), ("i2", second), ("i3", third)):
                await door.ready(name, where)
            nft = Nft()
            drop = f"table inet hole {{ chain in {{ type filter hook input priority 0; tcp dport {first} drop\n}}\n}}\n"
            try:
                await holds_nobody_up(door, "i1", lambda: nft.apply(drop), lambda: nft.apply("delete table inet hole"))
            finally:
                nft.close()

    run_on_a_machine(on_the_machine)


async def test_an_instance_that_fails_every_request_gets_one_in_a_while() -> None:
    asked = 0

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_head(reader)
        asked += 1

    async with open_door() as door, instance(dies) as bad, instance(Recorder()) as good:
        await door.route()
        await door.ready("bad", bad)
        await door.ready("good", good)
        answers = [await door.get() for _ in range(60)]
    failed = [answer for answer in answers if answer.startswith(b"HTTP/1.1 502")]
    assert len(failed) == asked
    assert 3 <= asked <= 4
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers if answer not in failed)


async def test_where_all_instances_fail_none_is_hidden() -> None:
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with open_door() as door, instance(dies) as first:
        await door.route(timeout_s=2)
        await door.ready("i1", first)
        answers = [await door.get() for _ in range(10)]
    assert all(b"x-ebb-reason: instance-failed" in answer for answer in answers), "the app's failure, at once, not a wait"


async def test_a_long_upload_or_a_slow_answer_is_no_silence() -> None:
    """One instance reads an upload for longer than silence may last, while another answers."""

    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await reader.readexactly(20)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with open_door() as door, instance(reads) as slow, instance(Recorder()) as other:
        await door.route()
        await door.ready("i1", slow)
        reader, writer = await door.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: hello.default.localhost\r\nContent-Length: 20\r\n\r\n")
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 1)
        await door.ready("i2", other)
        for _ in range(20):
            writer.write(b"a")
            await door.get()
            await asyncio.sleep(0.08)
        assert not door.ingress.admitter.throttler(REVISION).targets["i1"].doubted
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
