"""`python -m ingress` as it runs in a cluster: real etcd, real NATS, real signals."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import grpc
import grpc.aio

from deploy.ports import free_port
from ingress.metrics import BOUNDS
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.connect import open_store
from store.lifecycle import Phase
from store.messages import Wake
from store.model import Instance, Limits, RouteEntry, TrafficTarget, decode, encode
from tests import real
from tests.children import Child
from tests.eventually import eventually, eventually_async
from tests.integration.ingress.door import HOST, Recorder, instance, open_door
from tests.integration.ingress.grpc_echo import channel, echo_instance

ROUTE = RouteEntry(
    project="default", route="hello", hosts={HOST: [TrafficTarget(revision="r1", percent=100)]}, limits={"r1": Limits()}
)


def news(port: int, seq: int = 1) -> Instance:
    return Instance(
        instance="i1", project="default", revision="r1", node="n1", phase=Phase.READY, address=f"127.0.0.1:{port}", seq=seq
    )


@asynccontextmanager
async def ingress(etcd: str, nats: str, port: int, member: str, drain_s: float = 5, *more: str) -> AsyncIterator[Child]:
    """A front door that accepts on `port`; ended with SIGTERM, and it must exit 0. `more` are flags."""
    argv = ["-m", "ingress", "--etcd", etcd, "--nats", nats, "--listen", f"127.0.0.1:{port}", "--member", member]
    child = Child([sys.executable, *argv, "--drain-timeout-s", str(drain_s), *more])
    try:
        await eventually_async(lambda: accepts(port), "it listens")
        yield child
        if child.returncode is None:
            child.terminate()
        assert await child.wait() == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def get(session: aiohttp.ClientSession, port: int) -> int:
    async with session.get(f"http://127.0.0.1:{port}/", headers={"Host": HOST}) as answer:
        await answer.read()
        return answer.status


async def test_cold_then_warm_through_real_etcd_and_nats(store: Store, bus: Bus, etcd: real.Server, nats: real.Server) -> None:
    port, wakes = free_port(), []
    await bus.handle(messages.WAKE, lambda _, data: wakes.append(decode(Wake, data)))
    async with ingress(etcd.address, nats.url, port, "a"), instance(Recorder()) as backend, aiohttp.ClientSession() as session:
        assert await get(session, port) == 404
        await store.put(keys.route("default", "hello"), encode(ROUTE))
        request = asyncio.create_task(get(session, port))
        await eventually(lambda: wakes or request.done())
        if request.done():  # the route was not seen yet
            request = asyncio.create_task(get(session, port))
            await eventually(lambda: wakes)
        bus.publish(messages.instance(news(backend).node), encode(news(backend)))
        await store.put(keys.instance("n1", "i1"), encode(news(backend)))
        assert await request == 200
        assert [await get(session, port) for _ in range(20)] == [200] * 20
        assert await store.get(keys.member("ingress", "a")) is not None
    assert await store.get(keys.member("ingress", "a")) is None


async def test_etcd_and_nats_may_go_and_warm_requests_do_not_notice() -> None:
    async with real.etcd() as etcd, real.nats() as nats:
        store = await open_store(etcd.address)
        port = free_port()
        async with (
            ingress(etcd.address, nats.url, port, "a"),
            instance(Recorder()) as backend,
            aiohttp.ClientSession() as session,
        ):
            await store.put(keys.route("default", "hello"), encode(ROUTE))
            await store.put(keys.instance("n1", "i1"), encode(news(backend)))

            async def served() -> bool:
                return await get(session, port) == 200

            await eventually_async(served, "the route is there")
            etcd.kill()
            nats.kill()
            for _ in range(100):
                assert await get(session, port) == 200
                await asyncio.sleep(0.01)
            await etcd.restart()
            await nats.restart()
            assert await get(session, port) == 200
        await store.close()


async def test_rolling_the_front_door_under_load_loses_no_request(store: Store, etcd: real.Server, nats: real.Server) -> None:
    """Successor first (SO_REUSEPORT), then SIGTERM, four times; kept and new connections."""
    await store.put(keys.route("default", "hello"), encode(ROUTE))
    port, done, failures = free_port(), asyncio.Event(), []
    served = 0

    async def load(kept: bool) -> None:
        nonlocal served
        while not done.is_set():
            connector = aiohttp.TCPConnector(force_close=not kept)
            async with aiohttp.ClientSession(connector=connector) as session:
                for _ in range(50):
                    if done.is_set():
                        break
                    try:
                        status = await get(session, port)
                        if status != 200:
                            failures.append(status)
                        served += 1
                    except (aiohttp.ClientError, OSError) as error:
                        failures.append(repr(error))

    async with instance(Recorder()) as backend:
        await store.put(keys.instance("n1", "i1"), encode(news(backend)))
        doors = ingress(etcd.address, nats.url, port, "d0")
        await doors.__aenter__()
        clients = [asyncio.create_task(load(kept=place % 2 == 0)) for place in range(6)]
        for turn in range(1, 5):
            # The successor shares the port: both listen before the first one is told to go.
            successor = ingress(etcd.address, nats.url, port, f"d{turn}")
            await successor.__aenter__()

            async def there(turn: int = turn) -> bool:
                return await store.get(keys.member("ingress", f"d{turn}")) is not None

            await eventually_async(there, "the successor is a member")
            before = served
            await eventually(lambda before=before: served > before + 100)
            await doors.__aexit__(None, None, None)
            doors = successor
        done.set()
        await asyncio.gather(*clients)
        await doors.__aexit__(None, None, None)
    assert served > 400
    assert failures == []


async def test_rolling_the_front_door_loses_no_grpc_call(store: Store, etcd: real.Server, nats: real.Server) -> None:
    """As above, with calls on kept channels and on new ones; the old door says GOAWAY and finishes what it has."""
    limits = {"r1": Limits(protocol="h2c")}
    route = RouteEntry(
        project="default", route="echo", hosts={HOST: [TrafficTarget(revision="r1", percent=100)]}, limits=limits
    )
    await store.put(keys.route("default", "echo"), encode(route))
    port, done, failures = free_port(), asyncio.Event(), []
    served = 0

    async def load(kept: bool) -> None:
        nonlocal served
        while not done.is_set():
            async with channel(port, HOST) as client:
                for _ in range(10**6 if kept else 10):
                    if done.is_set():
                        break
                    try:
                        await client.unary_unary("/echo.Echo/Slow")(b"x", timeout=10)
                        served += 1
                    except grpc.aio.AioRpcError as error:
                        failures.append(f"{error.code()}: {error.details()}")

    async with echo_instance() as (_, backend):
        await store.put(keys.instance("n1", "i1"), encode(news(backend)))
        doors = ingress(etcd.address, nats.url, port, "d0")
        await doors.__aenter__()
        clients = [asyncio.create_task(load(kept=place % 2 == 0)) for place in range(6)]
        for turn in range(1, 4):
            successor = ingress(etcd.address, nats.url, port, f"d{turn}")
            await successor.__aenter__()

            async def there(turn: int = turn) -> bool:
                return await store.get(keys.member("ingress", f"d{turn}")) is not None

            await eventually_async(there, "the successor is a member")
            before = served
            await eventually(lambda before=before: served > before + 50)
            await doors.__aexit__(None, None, None)
            doors = successor
        done.set()
        await asyncio.gather(*clients)
        await doors.__aexit__(None, None, None)
    assert served > 200
    assert failures == []


async def test_a_stalled_event_loop_is_seen_and_survived() -> None:
    async with open_door() as door, instance(Recorder()) as backend:
        await door.route()
        await door.ready("i1", backend)
        late = door.ingress.metrics.loop_late
        stalls = BOUNDS.index(0.25) + 1
        await eventually(lambda: sum(late.counts) > 1, "the watch runs")
        before = sum(late.counts[stalls:])
        time.sleep(0.5)  # noqa: ASYNC251
        await eventually(lambda: sum(late.counts[stalls:]) > before, "a stall of half a second is counted")
        assert (await door.get()).startswith(b"HTTP/1.1 200")
