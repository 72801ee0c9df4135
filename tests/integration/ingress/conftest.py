"""These tests run on the loop that the ingress runs on; and a front door for all examples of a module."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from tests.integration.ingress.door import Door, open_door
from tests.integration.ingress.one_request import Bench, Log


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    loop: Any = uvloop.new_event_loop()
    log = Log()

    async def start() -> tuple[Any, Door, asyncio.Server]:
        opening = open_door()
        door = await opening.__aenter__()
        server = await asyncio.start_server(log, "127.0.0.1", 0)
        await door.route()
        await door.ready("i1", server.sockets[0].getsockname()[1])
        return opening, door, server

    async def stop() -> None:
        await opening.__aexit__(None, None, None)
        server.close()
        for _ in range(10):
            await asyncio.sleep(0.01)

    opening, door, server = loop.run_until_complete(start())
    yield Bench(loop, door, log)
    loop.run_until_complete(stop())
    loop.close()
