"""Rules of a host through a real front door: paths, tags, sessions, mirrors, shares, and tables that change under load."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest

from ingress import strangers
from store import keys
from store.lifecycle import Phase
from store.model import Domain, Limits, Mirror, PathRule, RouteEntry, TrafficTarget, encode
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door, Recorder, instance, open_door

pytestmark = pytest.mark.real
SHOP = "shop.example"


class Named(Recorder):
    """An instance that answers with its name."""

    def __init__(self, name: str, delay_s: float = 0.0) -> None:
        super().__init__(delay_s)
        self.name = name

    def answer(self) -> bytes:
        return self.name.encode()


class Town:
    """A front door, and instances that say who they are."""

    def __init__(self, door: Door, stack: AsyncExitStack) -> None:
        self.door, self._stack = door, stack
        self.at: dict[str, Named] = {}

    async def instance(self, name: str, revision: str, delay_s: float = 0.0) -> Named:
        made = self.at[name] = Named(name, delay_s)
        await self.door.ready(name, await self._stack.enter_async_context(instance(made)), revision)
        return made

    async def route(
        self, shares: dict[str, int], name: str = "hello", limits: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """The route `name`, seen by the door; `limits` are those of all its revisions."""
        host = f"{name}.default.localhost"
        targets = [TrafficTarget(revision=revision, percent=percent) for revision, percent in shares.items()]
        named = [*shares, *([more["mirror"].revision] if "mirror" in more else [])]
        known = {revision: Limits(**(limits or {})) for revision in named}
        entry = RouteEntry(project="default", route=name, main=host, hosts={host: targets}, limits=known, **more)
        routes = self.door.ingress.gate.routes
        before = routes.find(host.encode())
        await self.door.store.put(keys.route("default", name), encode(entry))
        await eventually(lambda: routes.find(host.encode()) is not before, "the route is seen")

    async def domain(self, host: str, route: str, **more: Any) -> None:
        await self.door.store.put(keys.domain(host), encode(Domain(project="default", route=route, **more)))
        await eventually(lambda: self.door.ingress.gate.routes.find(host.replace("*", "x").encode()), "the domain is seen")

    async def who(self, path: str = "/", *fields: str, host: str = HOST) -> str:
        """The name of the instance that answered."""
        return (await self.door.get(path, *fields, host=host)).rpartition(b"\r\n\r\n")[2].decode()


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(open_door())
        door.ingress.gate.chance = Random(7).random
        yield Town(door, stack)


async def test_a_domain_and_all_below_it_lead_to_services_by_path(town: Town) -> None:
    for name in ("shop", "api"):
        seen = await town.instance(name, f"{name}-1")
        await town.route({f"{name}-1": 100}, name)
    rules = [PathRule(prefix="/api", route="api", strip=True)]
    await town.domain(SHOP, "shop", paths=rules)
    await town.domain("*.shop.example", "api")
    assert await town.who("/apis", host=SHOP) == "shop"
    assert await town.who("/api/x?y=1", "X-Forwarded-Prefix: /forged", host=SHOP) == "api"
    head = seen.heads[-1]
    assert head.startswith(b"GET /x?y=1 HTTP/1.1\r\nHost: shop.example\r\n")
    assert re.findall(rb"(?i)x-forwarded-prefix: (.*)\r\n", head) == [b"/api"]
    assert await town.who(host="any.thing.shop.example") == "api"
    assert b"no-route" in await town.door.get(host="other.example")


async def test_a_tag_in_a_header_counts_only_where_it_is_asked_for(town: Town) -> None:
    old, new = await town.instance("old", "r1"), await town.instance("new", "r2")
    await town.route({"r1": 100, "r2": 0})
    assert await town.who("/", "Knative-Serving-Tag: next") == "old"
    assert b"serving-tag" not in old.heads[-1].lower()
    await town.route({"r1": 100, "r2": 0}, tags={"next": "r2"})
    assert await town.who("/", "Knative-Serving-Tag: next") == "new"
    assert b"\r\nKnative-Serving-Tag: next\r\n" in new.heads[-1]
    for unknown in ("other", "next,next", "NEXT"):
        assert await town.who("/", f"knative-serving-tag: {unknown}") == "old"
    assert await town.who("/", "Knative-Serving-Tag: next", "Knative_Serving_Tag: next") == "new"
    assert await town.who("/", "Knative-Serving-Tag: next", "Knative-Serving-Tag: next") == "old"
    assert b"serving-tag" not in old.heads[-1].lower()


STICKY: dict[str, Any] = {"limits": {"session_affinity": True, "container_concurrency": 1}, "affinity_key": "k"}


async def session(town: Town, cookie: str = "") -> tuple[str, str]:
    """Who answered, and the cookie that a browser has after it."""
    answer = await town.door.get("/", *([f"Cookie: theme=dark; {cookie}"] if cookie else []))
    made = re.search(rb"(?i)set-cookie: (ebb-affinity-[^;]*);[^\r]*HttpOnly", answer)
    return answer.rpartition(b"\r\n\r\n")[2].decode(), made[1].decode() if made else cookie


async def test_a_session_stays_at_its_instance_and_yields_when_that_is_full_dies_or_loses_its_share(town: Town) -> None:
    for name, revision in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        await town.instance(name, revision, delay_s=0.02)
    await town.route({"a": 50, "b": 50}, **STICKY)
    sessions = [await session(town) for _ in range(12)]
    assert {name[0] for name, _ in sessions} == {"a", "b"}, "new ones are shared out"
    for name, cookie in sessions:
        assert [await session(town, cookie) for _ in range(3)] == [(name, cookie)] * 3
    name, cookie = sessions[0]
    crowd = await asyncio.gather(*(session(town, cookie) for _ in range(8)))
    assert {who[0] for who, _ in crowd} == {name[0]}, "its revision is kept"
    assert len({who for who, _ in crowd}) == 2, "what does not fit goes to the other"
    assert max(each.most for each in town.at.values()) == 1, "and no limit is exceeded"
    town.door.tell(town.door.news(name, Phase.STOPPED, revision=name[0]))
    other = f"{name[0]}{3 - int(name[1])}"
    targets = town.door.ingress.admitter.throttler(f"default/{name[0]}").targets
    await eventually(lambda: name not in targets, "it is gone")
    assert (await session(town, cookie))[0] == other
    rest = "b" if name[0] == "a" else "a"
    await town.route({rest: 100}, **STICKY)
    assert (await session(town, cookie))[0][0] == rest


async def test_a_mirror_gets_copies_and_nobody_waits_for_it(town: Town) -> None:
    town.at["r1"] = await town.instance("one", "r1")
    await town.route({"r1": 100}, mirror=Mirror(revision="r2", percent=100))
    counts = town.door.ingress.metrics.mirror
    body, large = b"x" * 1000, b"y" * 100_000

    async def post(data: bytes) -> bytes:
        head = f"POST /p HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nX-Ebb-Mirror: forged\r\nContent-Length: {len(data)}\r\n\r\n"
        return await town.door.send(head.encode() + data, timeout_s=5)

    for _ in range(3):
        assert (await post(body)).endswith(b"one"), "the mirror has no instance yet, and that is nobody's business"
    mirror = await town.instance("two", "r2")
    await eventually(lambda: counts.get("answered") == 3, "the copies waited in the mirror's own line")
    assert mirror.bodies == [body] * 3
    assert all(head.startswith(b"POST /p") and head.count(b"X-Ebb-Mirror: true") == 1 for head in mirror.heads)
    assert all(b"forged" not in head for head in mirror.heads + town.at["one"].heads)
    chunked = b"POST /c HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert (await town.door.send(chunked % HOST.encode())).endswith(b"one")
    assert await town.who() == "one"
    await eventually(lambda: counts.get("answered") == 5, "chunked and without a body too")
    assert mirror.bodies[3:] == [b"abc", b""]
    assert (await post(large)).endswith(b"one")
    assert counts == {"answered": 5, "too-large": 1}
    town.door.ingress.gate.chance = lambda: 0.5
    await town.route({"r1": 100}, mirror=Mirror(revision="r2", percent=50))
    assert await town.who() == "one"
    assert not town.door.ingress.gate.copies
    assert len(mirror.heads) == 5


async def test_a_mirror_gets_the_whole_of_a_request_that_came_before_its_host_had_a_route(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "HOLD_S", 10.0)  # So that a slow machine lets go of none.
    one, two = await town.instance("one", "r1"), await town.instance("two", "r2")
    gate = town.door.ingress.gate
    pieces = [b"a" * 1000, b"b" * 1000, b"c" * 1000]
    length = b"Content-Length: %d\r\n\r\n" % sum(map(len, pieces))
    head = b"POST /p HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n" % HOST.encode()
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    requests = {
        "all at once": ([head + length + b"".join(pieces)], []),
        "in parts": ([head + length, pieces[0]], pieces[1:]),
        "in chunks": ([head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked], []),
    }
    for number, (how, (early, late)) in enumerate(requests.items(), 1):
        reader, writer = await town.door.connect()
        for piece in early:
            writer.write(piece)
        body = len(b"".join(early).partition(b"\r\n\r\n")[2])
        held = gate.strangers._held
        await eventually(lambda held=held, body=body: any(each.received_bytes or not body for each in held), "it is held")
        await town.route({"r1": 100}, mirror=Mirror(revision="r2", percent=100))
        for piece in late:
            writer.write(piece)
        assert (await reader.read()).endswith(b"one"), how
        writer.close()
        await eventually(lambda number=number: gate.metrics.mirror.get("answered") == number, f"its copy is answered: {how}")
        assert two.bodies[-1] == b"".join(pieces), how
        assert all(piece in one.bodies[-1] for piece in pieces), how
        await town.door.store.delete(keys.route("default", "hello"))
        await eventually(lambda: gate.routes.find(HOST.encode()) is None, "the host has no route again")


async def test_a_mirror_that_does_not_answer_is_given_up_at_its_own_time(town: Town) -> None:
    await town.instance("one", "r1")
    await town.instance("two", "r2", delay_s=5)
    await town.route({"r1": 100}, limits={"timeout_s": 0.3}, mirror=Mirror(revision="r2", percent=100))
    assert await town.who() == "one"
    gate = town.door.ingress.gate
    assert len(gate.copies) == 1
    await eventually(lambda: not gate.copies, "its time is over")
    assert gate.metrics.mirror == {"refused": 1}
    assert town.door.ingress.admitter.throttler("default/r2").in_flight == 0


async def test_shares_stay_inside_the_binomial_interval(town: Town) -> None:
    shares = {"r1": 1, "r2": 29, "r3": 70}
    for name in shares:
        await town.instance(name, name)
    await town.route(shares)
    most, counts = 4000, Counter[str]()

    async def client(requests: int) -> None:
        reader, writer = await town.door.connect()
        for _ in range(requests):
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            counts[(await reader.readexactly(2)).decode()] += 1
        writer.close()

    await asyncio.gather(*(client(most // 8) for _ in range(8)))
    for name, percent in shares.items():
        p = percent / 100
        assert abs(counts[name] - most * p) <= 3.29 * (most * p * (1 - p)) ** 0.5, counts


async def test_a_table_that_changes_under_load_is_never_seen_in_parts(town: Town) -> None:
    """Each version of the route sends its host, its domain and its path to two revisions of its own."""
    versions = 12
    for version in range(versions):
        for side in "ab":
            await town.instance(f"{side}{version:02}", f"{side}{version:02}")

    async def program(version: int) -> None:
        shares = {f"a{version:02}": 30, f"b{version:02}": 70}
        await town.route(shares, paths=[PathRule(prefix="/path", route="hello")])

    await program(0)
    await town.domain(SHOP, "hello")
    now, done, seen = [0], False, Counter[int]()

    async def client(host: str, path: str) -> None:
        while not done:
            before = now[0]
            name = await town.who(path, host=host)
            version = int(name[1:])
            assert before <= version <= now[0] + 1, f"{name} answered between versions {before} and {now[0]}"
            seen[version] += 1

    clients = [asyncio.create_task(client(host, path)) for host in (HOST, SHOP) for path in ("/", "/path") for _ in range(2)]
    for version in range(1, versions):
        await eventually(lambda: seen[now[0]] >= 12, "the version was used")
        await program(version)
        now[0] = version
    await eventually(lambda: seen[versions - 1] >= 12, "the last version was used")
    done = True
    await asyncio.gather(*clients)
    assert len(seen) == versions
