"""What is refused with 400 and a closed connection before anything reaches an instance: one row for each rule."""

import pytest
from msgspec import structs

from ingress.gate import Bounds
from store import keys
from store.lifecycle import Phase
from store.model import Limits, RouteEntry, TrafficTarget, encode
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door, Recorder, instance, open_door

LINE = b"POST / HTTP/1.1\r\n"
NAME = b"Host: " + HOST.encode() + b"\r\n"
CHUNKS = LINE + NAME + b"Transfer-Encoding: chunked\r\n\r\n"
RULES = {
    "no Host": LINE + b"\r\n",
    "empty Host": LINE + b"Host: \r\n\r\n",
    "Host twice": LINE + NAME + NAME + b"\r\n",
    "ill-formed Host": LINE + b"Host: a..b\r\n\r\n",
    "userinfo in Host": LINE + b"Host: user@" + HOST.encode() + b"\r\n\r\n",
    "path in Host": LINE + b"Host: " + HOST.encode() + b"/x\r\n\r\n",
    "length and chunks": LINE + NAME + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length twice": LINE + NAME + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "odd length": LINE + NAME + b"Content-Length: +3\r\n\r\nabc",
    "encoding that is not chunked": LINE + NAME + b"Transfer-Encoding: gzip\r\n\r\n",
    "chunked and more": LINE + NAME + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "folded field": LINE + NAME + b"X: a\r\n b\r\n\r\n",
    "bare LF": LINE + NAME + b"X: a\n\r\n",
    "bare CR": LINE + NAME + b"X: a\rb\r\n\r\n",
    "NUL": LINE + NAME + b"X: a\0b\r\n\r\n",
    "bad chunk size": CHUNKS + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKS + b"+1\r\na\r\n0\r\n\r\n",
    "bad chunk extension": CHUNKS + b"1;a\0\r\na\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKS + b"1\r\nab\r\n0\r\n\r\n",
    "bad trailer": CHUNKS + b"0\r\nX : a\r\n\r\n",
    "space before the colon": LINE + NAME + b"X : a\r\n\r\n",
    "GET *": b"GET * HTTP/1.1\r\n" + NAME + b"\r\n",
    "a target that disagrees with Host": b"GET http://other.example/ HTTP/1.1\r\n" + NAME + b"\r\n",
}


@pytest.mark.parametrize("data", RULES.values(), ids=RULES.keys())
async def test_what_is_not_plain_http_is_refused_and_the_connection_closed(data: bytes) -> None:
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await door.send(data + b"GET /smuggled HTTP/1.1\r\n" + NAME + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert answer.count(b"HTTP/1.1") == 1
        assert b"Connection: close\r\n" in answer
        await eventually(lambda: door.ingress.admitter.throttler("default/r1").in_flight == 0)
    assert not recorder.bodies, "no request was whole for the instance"


@pytest.mark.parametrize(
    ("most", "of_service", "status"), [(0, 100, b"413"), (50, 0, b"413"), (50, 200, b"413"), (0, 0, b"200")]
)
async def test_a_body_is_bounded_by_its_service_and_by_the_front_door(most: int, of_service: int, status: bytes) -> None:
    async with open_door(bounds=Bounds(max_body_bytes=most)) as door, instance(Recorder()) as port:
        await door.route(max_body_bytes=of_service)
        await door.ready("i1", port)
        answer = await door.send(LINE + NAME + b"Connection: close\r\nContent-Length: 150\r\n\r\n" + bytes(150))
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_connections_to_instances_are_never_shared_between_projects() -> None:
    """Two projects whose instances are at one address: even then each has connections of its own."""
    recorder = Recorder()
    async with open_door() as door, instance(recorder) as port:
        for project, host in (("default", HOST), ("other", "other.localhost")):
            hosts = {host: [TrafficTarget(revision="r1", percent=100)]}
            entry = RouteEntry(project=project, route="r", hosts=hosts, limits={"r1": Limits()})
            news = structs.replace(door.news(project, Phase.READY, f"127.0.0.1:{port}"), project=project)
            await door.store.put(keys.route(project, "r"), encode(entry))
            await door.store.put(keys.instance("n1", project), encode(news))
        for _ in range(4):
            assert (await door.get()).startswith(b"HTTP/1.1 200")
            assert (await door.get(host="other.localhost")).startswith(b"HTTP/1.1 200")
        assert recorder.connections == 2
        assert {each.target.instance for each in door.ingress.gate.upstreams} == {"default", "other"}


@pytest.mark.parametrize(("trusted", "limit"), [("", 20_000), ("127.0.0.0/8, 10.0.0.0/8", 1)])
async def test_a_trusted_proxy_says_who_its_client_is_and_nobody_else_does(trusted: str, limit: int) -> None:
    recorder = Recorder()
    bounds = Bounds(trusted_proxies=trusted, max_connections_per_address=limit)
    async with open_door(bounds=bounds) as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        _, other = await door.connect()
        for client in ("203.0.113.7", "198.51.100.9"):
            await door.get("/", f"X-Forwarded-For: 6.6.6.6, {client}, 10.1.1.1", "X-Forwarded-Proto: https")
        other.close()
    for client, head in zip(("203.0.113.7", "198.51.100.9"), recorder.heads, strict=True):
        chain, scheme = (f"{client}, 10.1.1.1, 127.0.0.1", "https") if trusted else ("127.0.0.1", "http")
        assert f"\r\nX-Forwarded-For: {chain}\r\nX-Forwarded-Proto: {scheme}\r\n".encode() in head
        assert b"6.6.6.6" not in head
        assert f"Forwarded: for={client if trusted else '127.0.0.1'};".encode() in head


@pytest.mark.parametrize(("trusted", "location"), [("127.0.0.1/32", ""), ("", f"https://{HOST}/a")])
async def test_who_came_to_a_trusted_proxy_by_tls_is_not_sent_to_tls_again(trusted: str, location: str) -> None:
    """A proxy before us that ends TLS would send its clients back and forth for ever."""
    door = Door(bounds=Bounds(trusted_proxies=trusted))
    await door.ingress.start("127.0.0.1:0", https_port=443)
    try:
        async with instance(Recorder()) as port:
            targets = [TrafficTarget(revision="r1", percent=100)]
            entry = RouteEntry(
                project="default", route=HOST, hosts={HOST: targets}, limits={"r1": Limits()}, main=HOST, redirects=True
            )
            await door.store.put(keys.route("default", HOST), encode(entry))
            await door.ready("i1", port)
            by_tls = await door.get("/a", "X-Forwarded-Proto: https")
            assert (f"Location: {location}\r\n".encode() in by_tls) if location else by_tls.endswith(b"ok 1")
            for plain in (await door.get("/a", "X-Forwarded-Proto: http"), await door.get("/a")):
                assert f"Location: https://{HOST}/a\r\n".encode() in plain
    finally:
        await door.ingress.drain(0.5)
