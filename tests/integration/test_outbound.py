"""Registries that lead the node agent astray: to its own loopback, by whatever spelling, redirect or change of mind of a name server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from deploy.ports import free_port
from nodeagent.images.errors import RegistryUnavailable, Unauthorized
from nodeagent.images.registry import Registry
from process.outbound import NotAllowed, Outbound
from store.imageref import parse

ALLOWED = "127.0.0.2"
"""Plays the internet: the one address that may be reached."""
VICTIM = "127.0.0.1"


@asynccontextmanager
async def server(address: str, port: int, answer: Any) -> AsyncIterator[list[str]]:
    """An HTTP server that answers with `answer(request)`; what it was asked."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return answer(request)  # type: ignore[no-any-return]

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def astray(answer: Any) -> AsyncIterator[tuple[Registry, int, list[str]]]:
    """A registry at ALLOWED that answers so, a port where VICTIM listens too, and what VICTIM was asked."""
    port = free_port()
    registry = Registry(outbound=Outbound([f"{ALLOWED}/32"]))
    try:
        async with server(VICTIM, port, lambda _: web.Response(text="secret")) as asked, server(ALLOWED, port, answer):
            yield registry, port, asked
    finally:
        await registry.close()


async def no_credential(_: str) -> None:
    return None


@pytest.mark.parametrize(
    "host",
    [
        VICTIM,
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("status", [302, 307])
async def test_no_redirect_leads_to_the_machine_itself(host: str, status: int) -> None:
    where = {}

    def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"http://{host}:{where['port']}/v2/secret"})

    async with astray(answer) as (registry, port, asked):
        where["port"] = port
        with pytest.raises(RegistryUnavailable, match=r"is not reached on a user's behalf|is not a canonical IPv4 address"):
            await registry.resolve(parse(f"{ALLOWED}:{port}/hello"), no_credential)
        assert asked == []


async def test_a_redirect_that_names_a_user_is_not_followed() -> None:
    async with astray(lambda _: web.Response(status=302, headers={"Location": "http://registry.example@127.0.0.1/"})) as made:
        registry, port, asked = made
        with pytest.raises(RegistryUnavailable, match="without a user"):
            await registry.resolve(parse(f"{ALLOWED}:{port}/hello"), no_credential)
        assert asked == []


async def test_an_image_of_the_machines_own_loopback_is_not_asked_for() -> None:
    async with astray(lambda _: web.Response()) as (registry, port, asked):
        with pytest.raises(RegistryUnavailable, match="--allow-private-registries"):
            await registry.resolve(parse(f"{VICTIM}:{port}/hello"), no_credential)
        assert asked == []


async def test_tokens_are_not_fetched_there_either() -> None:
    where = {}

    def answer(_: web.Request) -> web.Response:
        challenge = f'Bearer realm="http://{VICTIM}:{where["port"]}/token",service="x"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with astray(answer) as (registry, port, asked):
        where["port"] = port
        with pytest.raises((RegistryUnavailable, Unauthorized), match="is not reached"):
            await registry.resolve(parse(f"{ALLOWED}:{port}/hello"), no_credential)
        assert asked == []


async def test_a_registry_named_insecure_may_be_anywhere() -> None:
    port = free_port()
    registry = Registry(frozenset({f"{VICTIM}:{port}"}))
    digest = "sha256:" + "0" * 64
    try:
        async with server(VICTIM, port, lambda _: web.Response(headers={"Docker-Content-Digest": digest})):
            assert await registry.resolve(parse(f"{VICTIM}:{port}/hello"), no_credential) == digest
    finally:
        await registry.close()


class Rebinding(AbstractResolver):
    """A name server that says something else the second time."""

    def __init__(self) -> None:
        self.said = 0

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.said += 1
        address = ALLOWED if self.said == 1 else VICTIM
        return [ResolveResult(hostname=host, host=address, port=port, family=2, proto=0, flags=0)]

    async def close(self) -> None: ...


async def test_a_name_that_is_bound_anew_is_judged_anew_and_the_first_address_is_the_one_that_is_used() -> None:
    port, names = free_port(), Rebinding()
    connector = Outbound([f"{ALLOWED}/32"]).connector(resolver=names, use_dns_cache=False, force_close=True)
    async with (
        server(VICTIM, port, lambda _: web.Response(text="secret")) as asked,
        server(ALLOWED, port, lambda _: web.Response(text="public")),
        aiohttp.ClientSession(connector=connector) as session,
    ):
        async with session.get(f"http://rebind.example:{port}/") as answer:
            assert await answer.text() == "public"
        assert names.said == 1
        with pytest.raises(aiohttp.ClientConnectorError, match=NotAllowed.WORDS):
            await session.get(f"http://rebind.example:{port}/")
        assert asked == []
