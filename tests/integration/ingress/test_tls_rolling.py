"""TLS while everything changes: front doors roll and certificates are replaced, and no request is lost."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp

from deploy.ports import free_port
from store import keys
from store.backend import Store
from store.model import encode
from tests import real
from tests.certificates import World
from tests.eventually import eventually, eventually_async
from tests.integration.ingress.door import HOST, Recorder, instance
from tests.integration.ingress.test_process import ROUTE, ingress, news
from tests.integration.ingress.test_tls import WILDCARD


async def test_rolling_the_front_door_and_its_certificate_loses_no_request_by_tls(
    store: Store, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> None:
    """Successor first (SO_REUSEPORT), then a new certificate, then SIGTERM; twice, with kept and new connections."""
    world, done, failures, served = World(tmp_path), asyncio.Event(), list[str](), 0
    plain, secure = free_port(), free_port()
    flags = ("--listen-tls", f"127.0.0.1:{secure}", "--certificate-key-file", str(world.keys))
    verify: dict[str, Any] = {
        "ssl": ssl.create_default_context(cafile=world.ca),
        "server_hostname": HOST,
        "headers": {"Host": HOST},
    }
    await store.put(keys.route("default", "hello"), encode(ROUTE))

    async def certify() -> None:
        await store.put(keys.certificate("default", "local:default"), encode(world.record(WILDCARD)))

    async def load(kept: bool) -> None:
        nonlocal served
        while not done.is_set():
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=not kept)) as session:
                for _ in range(50):
                    if done.is_set():
                        break
                    try:
                        async with session.get(f"https://127.0.0.1:{secure}/", **verify) as answer:
                            await answer.read()
                            if answer.status != 200:
                                failures.append(str(answer.status))
                        served += 1
                    except (aiohttp.ClientError, OSError) as error:
                        failures.append(repr(error))

    await certify()
    async with instance(Recorder()) as backend:
        await store.put(keys.instance("n1", "i1"), encode(news(backend)))
        doors = ingress(etcd.address, nats.url, plain, "d0", 5, *flags)
        await doors.__aenter__()
        clients = [asyncio.create_task(load(kept=place % 2 == 0)) for place in range(4)]
        for turn in range(1, 3):
            successor = ingress(etcd.address, nats.url, plain, f"d{turn}", 5, *flags)
            await successor.__aenter__()

            async def there(turn: int = turn) -> bool:
                return await store.get(keys.member("ingress", f"d{turn}")) is not None

            await eventually_async(there, "the successor is a member")
            await certify()
            before = served
            await eventually(lambda before=before: served > before + 60, "requests are served")
            await doors.__aexit__(None, None, None)
            doors = successor
        done.set()
        await asyncio.gather(*clients)
        await doors.__aexit__(None, None, None)
    assert served > 120
    assert failures == []
