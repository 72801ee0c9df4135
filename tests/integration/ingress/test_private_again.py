"""A head that comes again at a private service is not looked through again, but for as long only as it would be let in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from store import keys
from store.access import Binding, binding_key
from store.model import Access, PathRule, RouteEntry, TrafficTarget, encode
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door
from tests.integration.ingress.test_private import PRIVATE, a_door, bearer, put, token

Ask = Callable[[], Awaitable[tuple[int, bytes]]]


@asynccontextmanager
async def client(door: Door, field: str, *, host: str = HOST, path: str = "/") -> AsyncIterator[Ask]:
    """Asks with the same head on one connection, and has done so three times: since then the head is known."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n".encode()

    async def ask() -> tuple[int, bytes]:
        writer.write(head)
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = answer.lower().split(b"\r\n")
            length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
            return int(answer.split()[1]), await reader.readexactly(length)

    for _ in range(3):
        status, said = await ask()
        assert status == 200
        assert said.count(b"X-Ebb-Principal: user:ana\r\n") == 1
    yield ask
    writer.close()


def remembered(door: Door) -> int:
    split = door.ingress.gate.routes.find(HOST.encode())
    return len(split._seen)  # type: ignore[union-attr]


async def refused(ask: Ask, status: int) -> None:
    """Within five seconds."""
    for _ in range(250):
        if (await ask())[0] == status:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not answered {status}")


async def test_each_request_has_the_principal_once_and_other_heads_are_looked_at() -> None:
    async with a_door(PRIVATE) as door, client(door, bearer(token())) as ask:
        assert remembered(door) == 1
        for _ in range(5):
            assert (await ask())[1].count(b"X-Ebb-Principal: user:ana\r\n") == 1
        async with client(door, bearer(token(life_s=601))):
            assert remembered(door) == 2
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        for _ in range(4):
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n{bearer('no.such.token')}\r\n\r\n".encode())
            assert b" 401 " in (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0]
            await reader.readuntil(b"\n")
        writer.close()
        assert remembered(door) == 2


async def test_it_ends_when_the_token_does() -> None:
    async with a_door(PRIVATE) as door, client(door, bearer(token(life_s=3))) as ask:
        assert remembered(door) == 1
        await refused(ask, 401)


async def test_it_ends_when_the_key_is_gone() -> None:
    async with a_door(PRIVATE) as door, client(door, bearer(token())) as ask:
        await door.store.delete(keys.identity("k1"))
        await refused(ask, 401)


async def test_it_ends_when_the_role_is_gone() -> None:
    role = Binding(project="default", principal="user:ana", roles=("invoker",))
    async with a_door(Access(private=True)) as door:
        await door.store.put(binding_key(role), encode(role))
        identities = door.ingress.gate.identities
        await eventually(lambda: identities.may_invoke("default", "user:ana"), "the role is seen")
        async with client(door, bearer(token())) as ask:
            await door.store.delete(binding_key(role))
            await refused(ask, 403)


async def test_it_ends_when_the_route_lets_others_in() -> None:
    async with a_door(PRIVATE) as door, client(door, bearer(token())) as ask:
        await put(door, Access(private=True, invokers=["user:ben"]))
        await refused(ask, 403)


async def test_a_rule_that_gives_it_another_target_from_now_on_is_followed() -> None:
    main = "main.default.localhost"

    def entry(strip: bool) -> RouteEntry:
        rules = [PathRule(prefix="/pay", route="hello", strip=strip)]
        hosts = {main: [TrafficTarget(revision="r1", percent=100)]}
        return RouteEntry(project="default", route="main", hosts=hosts, main=main, paths=rules)

    async with a_door(PRIVATE) as door:
        await door.store.put(keys.route("default", "main"), encode(entry(False)))
        routes = door.ingress.gate.routes
        await eventually(lambda: routes._entry(keys.route("default", "main")), "the rules are seen")
        async with client(door, bearer(token()), host=main, path="/pay/now") as ask:
            assert (await ask())[1].startswith(b"GET /pay/now ")
            await door.store.put(keys.route("default", "main"), encode(entry(True)))
            await eventually(lambda: routes._entry(keys.route("default", "main")) == entry(True), "they are others")
            status, said = await ask()
            assert (status, said[:9], said.count(b"X-Ebb-Principal")) == (200, b"GET /now ", 1)
