"""Workers of the front door die, come and roll under load: what the oracle inside the instances has seen decides."""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets
from grpc.aio import insecure_channel

from store.backend import Store
from tests import real
from tests.chaos.workers_world import IDS, Judge, Score, Workers, clients, clients_of, fetch, waited_s
from tests.eventually import eventually, eventually_async
from tests.integration.ingress.grpc_echo import echo_instance

ROLLS = int(os.environ.get("EBB_ROLLS", "8"))
"""Of two workers each: sixteen are replaced."""


def say(what: str) -> None:
    sys.stderr.write(f"\n    {what}\n")


@pytest.fixture
async def workers(etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[Workers]:
    made = Workers(etcd, nats, tmp_path / "peers")
    try:
        await asyncio.gather(made.start(), made.start())
        yield made
    finally:
        await made.close()


@pytest.fixture(params=[1, 5])
async def judge(request: pytest.FixtureRequest, store: Store, workers: Workers) -> AsyncIterator[Judge]:
    """Two oracles behind one host, with a limit of 1, then of 5."""
    made = Judge(store, f"limit-{request.param}", request.param)
    try:
        await made.route()
        await asyncio.gather(made.instance(), made.instance())
        await answers(workers, made)
        yield made
    finally:
        await made.close()


async def answers(workers: Workers, judge: Judge) -> None:
    async def good() -> bool:
        return (await fetch(workers.port, judge.host, "/"))[9:12] == b"200"

    await eventually_async(good, "it answers", timeout_s=15)


async def verdict(judge: Judge, score: Score, lost_most: int) -> None:
    most, ran = await judge.record()
    counts = score.counts
    say(f"limit {judge.limit}: most inside {most}, outcomes {dict(counts)}")
    assert most <= judge.limit
    score.agree(ran)
    assert set(counts) <= {"200", "lost"}
    assert counts["lost"] <= lost_most


async def test_of_two_workers_one_killed_loses_what_was_in_it_alone(workers: Workers, judge: Judge) -> None:
    """Of ten clients with a request each, one lost by each at most: of four thousand requests 99.5 % are good."""
    most_lost = 0
    async with clients(workers, judge, kept=8, anew=2, ms=1) as score:
        for turn in range(1, 3):
            await eventually(lambda turn=turn: len(score.outcomes) > turn * 500, "they are served", timeout_s=60)
            victim = workers.running[0]
            inside = clients_of(victim.pid, workers.port)
            others = {each: each.lost for each in score.kept if each.port and each.port not in inside}
            workers.kill(victim)
            most_lost += len(score.kept) - len(others) + 2
            await workers.start()
            assert {each: each.lost for each in others} == others, "who was at the other worker lost nothing"
        await eventually(lambda: len(score.outcomes) >= 4000, "enough requests", timeout_s=60)
    await verdict(judge, score, lost_most=most_lost)
    good = score.counts["200"] / len(score.outcomes)
    say(f"{good:.2%} good; lost {score.counts['lost']}, inside were {most_lost} at most")
    assert good >= 0.995


async def test_all_workers_killed_serve_again_within_moments(workers: Workers, judge: Judge) -> None:
    async with clients(workers, judge, kept=8, anew=2, ms=10) as score:
        await asyncio.sleep(0.5)
        for worker in list(workers.running):
            workers.kill(worker)
        began = time.monotonic()
        await asyncio.gather(workers.start(), workers.start())
        await answers(workers, judge)
        took_s = time.monotonic() - began
        without_core_s = max(waited_s(each.pid) for each in workers.running)
        say(f"serving again after {took_s:.2f} s, {without_core_s:.2f} of them without a core")
        assert took_s - without_core_s < 2
        settled = score.counts["lost"]
        await asyncio.sleep(1)
        assert score.counts["lost"] == settled
    await verdict(judge, score, lost_most=len(score.outcomes))


async def test_workers_replaced_one_by_one_under_load_lose_nothing(workers: Workers, store: Store) -> None:
    judge, sockets, calls = Judge(store, "rolled", 20), Counter[str](), Counter[str]()
    websocket, grpc = Judge(store, "rolled-ws", 0), Judge(store, "rolled-grpc", 10)
    stop = asyncio.Event()

    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def talk() -> None:
        while not stop.is_set():
            async with websockets.connect(f"ws://{websocket.host}/", host="127.0.0.1", port=workers.port) as one:
                try:
                    while not stop.is_set():
                        await one.send("x")
                        sockets["sent"] += 1
                        await one.recv()
                        await asyncio.sleep(0.02)
                except websockets.ConnectionClosed as closed:
                    sockets["sent"] -= 1
                    sockets[f"closed {closed.rcvd.code if closed.rcvd else 'without a word'}"] += 1

    async def call() -> None:
        options = [("grpc.default_authority", grpc.host), ("grpc.use_local_subchannel_pool", 1)]
        async with insecure_channel(f"127.0.0.1:{workers.port}", options=options) as made:
            unary = made.unary_unary("/echo.Echo/Unary")
            while not stop.is_set():
                calls["good" if await unary(b"x", timeout=20) == b"x" else "bad"] += 1

    async with echo_instance() as (_, grpc_port), websockets.serve(echo, "127.0.0.1", 0) as server:
        for each, protocol in ((judge, ""), (websocket, ""), (grpc, "h2c")):
            await each.route(protocol=protocol)
        await asyncio.gather(judge.instance(), judge.instance())
        await websocket.ready(next(iter(server.sockets)).getsockname()[1])
        await grpc.ready(grpc_port)
        await answers(workers, judge)
        try:
            async with clients(workers, judge, kept=6, anew=3, ms=1) as score:
                others = [asyncio.create_task(each) for each in (talk(), talk(), call(), call())]
                for _ in range(ROLLS):
                    await workers.roll()
                await eventually(lambda: len(score.outcomes) >= 10_000, "enough requests", timeout_s=60, every_s=0.1)
                stop.set()
                await asyncio.gather(*others)
            await verdict(judge, score, lost_most=0)
        finally:
            stop.set()
            await judge.close()
    say(f"{ROLLS} rolls of two workers: {len(score.outcomes)} requests, {calls['good']} gRPC calls, WebSockets {dict(sockets)}")
    assert len(score.outcomes) >= 10_000
    assert set(calls) == {"good"}
    assert set(sockets) <= {"sent", "closed 1001"}


async def test_clients_that_leave_while_they_wait_are_out_of_every_line_at_once(workers: Workers, judge: Judge) -> None:
    running = [
        asyncio.create_task(fetch(workers.port, judge.host, f"/work?id={next(IDS)}&ms=4000")) for _ in range(2 * judge.limit)
    ]

    async def full() -> bool:
        return len((await judge.record())[1]) == 2 * judge.limit

    await eventually_async(full, "there is no room inside any more")
    leaving = [asyncio.create_task(fetch(workers.port, judge.host, f"/work?id=left-{next(IDS)}&ms=1")) for _ in range(200)]
    await asyncio.sleep(0.5)
    for each in leaving:
        each.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    stays = asyncio.create_task(fetch(workers.port, judge.host, f"/work?id=stays-{next(IDS)}&ms=1"))
    assert {answer[9:12] for answer in await asyncio.gather(*running, stays)} == {b"200"}
    most, ran = await judge.record()
    assert most == judge.limit
    assert not [request for request in ran if request.startswith("left")]
