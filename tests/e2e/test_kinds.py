"""Four real images of different kinds, none made for this engine."""

import asyncio
import contextlib
import gzip
import time

import pytest
import websockets

from tests.e2e.engine import Engine, until

SHORT = {"window": "6s"}


@pytest.mark.parametrize(
    ("image", "port", "says"),
    [
        ("static", None, "a static page"),
        ("nginx", 80, "Welcome to nginx!"),
        ("flask", None, '"hello":"world"'),
        ("node", None, '"node":"v'),
    ],
)
def test_an_unmodified_image_serves_and_wakes_again(engine: Engine, app: str, image: str, port: int | None, says: str) -> None:
    engine.deploy(app, f"test/{image}:v1", port=port, annotations=SHORT)
    assert says in engine.get(app).text.replace(": ", ":")
    engine.at_zero(app, 40)
    assert says in engine.get(app).text.replace(": ", ":")


async def test_a_websocket_carries_text_and_megabytes_from_zero(engine: Engine, app: str) -> None:
    await asyncio.to_thread(engine.deploy, app, "test/node:v1", annotations=SHORT)
    await asyncio.to_thread(engine.at_zero, app, 40)
    async with websockets.connect(
        f"ws://{engine.host(app)}/", host="127.0.0.1", port=engine.http_port, max_size=2**22
    ) as socket:
        await socket.send("from zero")
        assert await socket.recv() == "from zero"
        big = gzip.compress(b"x" * 100) * 5000
        await socket.send(big)
        assert await socket.recv() == big


async def test_an_open_websocket_keeps_its_instance(engine: Engine, app: str) -> None:
    await asyncio.to_thread(engine.deploy, app, "test/node:v1", annotations=SHORT)
    async with websockets.connect(f"ws://{engine.host(app)}/", host="127.0.0.1", port=engine.http_port) as socket:
        await asyncio.sleep(12)  # Twice the window: only what is in flight can keep the instance.
        await socket.send("still here")
        assert await socket.recv() == "still here"
    await asyncio.to_thread(engine.at_zero, app, 40)


async def test_a_websocket_whose_instance_is_taken_away_runs_to_its_limit_and_ends_with_1001(engine: Engine, app: str) -> None:
    """Two instances with one WebSocket each, where one instance would do: the other is drained under its own."""
    limit_s = 30.0
    annotations = {"window": "6s", "target": "4", "max-scale": "2"}
    spec = {"timeoutSeconds": int(limit_s)}
    await asyncio.to_thread(engine.deploy, app, "test/node:v1", annotations=annotations, spec=spec)

    def phases() -> list[str]:
        return sorted(i["phase"] for i in engine.instances(service=app, phases=("Ready", "Draining")))

    async def talk(socket: websockets.ClientConnection) -> tuple[int, float]:
        """Until it is closed: with which code, and how long after the first word."""
        began = time.monotonic()
        try:
            while True:
                await socket.send("still here")
                assert await socket.recv() == "still here"
                await asyncio.sleep(0.1)
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0, time.monotonic() - began

    async with contextlib.AsyncExitStack() as crowd, contextlib.AsyncExitStack() as kept:
        seen: dict[str, asyncio.Task[tuple[int, float]]] = {}
        for n in range(40):  # Three are more than one instance is to have; who comes when a second is there goes to that.
            socket = await websockets.connect(f"ws://{engine.host(app)}/", host="127.0.0.1", port=engine.http_port)
            instance = socket.response.headers["X-Instance"]
            await (crowd if instance in seen else kept).enter_async_context(socket)
            if instance not in seen:
                seen[instance] = asyncio.create_task(talk(socket))
            if len(seen) == 2:
                break
            await asyncio.sleep(0 if n < 3 else 0.25)
        assert len(seen) == 2
        await crowd.aclose()
        await asyncio.to_thread(until, lambda: phases() == ["Draining", "Ready"], "one is taken away", 20)
        assert not any(each.done() for each in seen.values())
        for code, took_s in await asyncio.gather(*seen.values()):
            assert code == 1001
            assert limit_s - 1 < took_s < limit_s + 5
    await asyncio.to_thread(until, lambda: "Draining" not in phases(), "the instance is gone", 5)


def test_an_image_is_deployed_by_digest_and_keeps_it(engine: Engine, app: str) -> None:
    service = engine.deploy(app, "test/static:v1")
    name = service["status"]["latestReadyRevisionName"]
    revision = engine.api.get(f"/apis/serving.knative.dev/v1/namespaces/default/revisions/{name}").json()
    digest = revision["status"]["containerStatuses"][0]["imageDigest"]
    assert "@sha256:" in digest
    until(lambda: engine.get(app).status_code == 200, "an answer", 5)
