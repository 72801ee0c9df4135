"""TLS at the front door: names and certificates, ALPN, what goes on above it, and clients that do it wrong."""

import asyncio
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from ingress.gate import Bounds
from ingress.handshake import unraised
from store import keys
from store.certificates import ENGINE, Certificate
from store.model import encode
from tests.certificates import World
from tests.children import output
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, Door, Recorder, instance, read_head
from tests.integration.ingress.grpc_echo import echo_instance
from tests.integration.ingress.test_http2_others import curl
from tests.integration.ingress.test_streaming import echo

WILDCARD = "*.default.localhost"
OTHER = "shop.example.localhost"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class TlsDoor(Door):
    """A front door that also speaks TLS."""

    def __init__(self, world: World, **settings: Any) -> None:
        super().__init__(ring=world.ring, **settings)
        self.world = world

    @property
    def tls_port(self) -> int:
        assert self.ingress.tls is not None
        return self.ingress.tls.port

    async def start(self) -> None:
        await self.ingress.start("127.0.0.1:0", listen_tls="127.0.0.1:0")

    async def certify(self, record: Certificate) -> None:
        """`record` is in the store, and the front door has seen it."""
        await self.store.put(keys.certificate(record.project, record.name), encode(record))
        book = self.ingress.certificates
        assert book is not None
        await eventually(lambda: record in book, "the certificate is seen")

    def context(self, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.world.ca)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    async def secure(self, name: str = HOST, *alpn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A verified connection to `name`."""
        return await asyncio.open_connection("127.0.0.1", self.tls_port, ssl=self.context(*alpn), server_hostname=name)

    async def curl(self, *argv: str, host: str = HOST, data: bytes = b"") -> bytes:
        """What curl prints for https://`host`, which it verifies."""
        where = ("--cacert", str(self.world.ca), "--connect-to", f"::127.0.0.1:{self.tls_port}")
        return await curl(*where, *argv, f"https://{host}/", data=data)


@asynccontextmanager
async def serving(world: World, **settings: Any) -> AsyncIterator[tuple[TlsDoor, Recorder]]:
    """A door with one service and one instance behind it, and the project's certificate."""
    door, app = TlsDoor(world, **settings), Recorder()
    await door.start()
    try:
        async with instance(app) as port:
            await door.route()
            await door.ready("i1", port)
            await door.certify(world.record(WILDCARD))
            yield door, app
    finally:
        await door.ingress.drain(0.5)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = HOST) -> bytes:
    """The head of the answer to one GET."""
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
    return head


async def test_curl_verifies_the_certificate_and_chooses_http2_or_http1_by_alpn(world: World) -> None:
    async with serving(world) as (door, app):
        answer = await door.curl("-i")
        assert answer.startswith(b"HTTP/2 200")
        assert (await door.curl("-i", "--http1.1")).startswith(b"HTTP/1.1 200 OK")
        big = await door.curl("-i", "--data-binary", "@-", data=bytes(2_000_000))
        assert big.startswith(b"HTTP/2 200")
        assert b"x-forwarded-proto: https\r\n" in app.heads[0].lower()
        assert f"forwarded: for=127.0.0.1;host={HOST};proto=https\r\n".encode() in app.heads[1].lower()


async def test_h2load_over_tls_is_answered_without_an_error(world: World) -> None:
    async with serving(world) as (door, _):
        where = (f"--connect-to=127.0.0.1:{door.tls_port}", f"https://{HOST}/")
        said = await output("h2load", "-n", "500", "-c", "3", "-m", "50", *where)
        assert b"Application protocol: h2" in said
        assert b"500 done, 500 succeeded, 0 failed, 0 errored, 0 timeout" in said


async def test_a_body_that_drips_is_ended_in_tls_too(world: World) -> None:
    async with serving(world, bounds=Bounds(body_look_s=0.2)) as (door, _):
        reader, writer = await door.secure(HOST, "http/1.1")
        writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\n1".encode())
        assert b" 408 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def test_an_exact_name_goes_before_a_wildcard_and_what_nobody_has_is_refused(world: World) -> None:
    async with serving(world) as (door, _):
        await door.certify(world.record(HOST, name="secret:own"))
        await door.certify(world.record("localhost", "127.0.0.1", project=ENGINE, name="local:engine"))
        for asked, names in ((HOST, {HOST}), ("new.default.localhost", {WILDCARD}), ("127.0.0.1", {"localhost", "127.0.0.1"})):
            _, writer = await door.secure(asked)  # (an address is no server name: none is sent)
            shown = writer.get_extra_info("peercert")["subjectAltName"]
            assert {value for _, value in shown} == names
            writer.close()
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await door.secure("nobody.example.localhost")
        assert door.ingress.metrics.handshakes == {"full": 3, "unknown-name": 1}


async def test_a_server_name_that_is_no_ascii_is_refused_without_a_word_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", unraised)
    async with serving(world) as (door, _):
        ask = ["openssl", "s_client", "-connect", f"127.0.0.1:{door.tls_port}", "-servername", "é.localhost"]
        done = await asyncio.to_thread(subprocess.run, ask, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        assert b"alert internal error" in done.stderr
        assert door.ingress.metrics.handshakes == {"unknown-name": 1}
    assert "Unicode" not in capfd.readouterr().err


async def test_a_secret_of_another_project_is_not_shown_for_this_ones_host(world: World) -> None:
    async with serving(world) as (door, _):
        await door.certify(world.record(HOST, name="secret:theft", project="thief"))
        _, writer = await door.secure()
        assert writer.get_extra_info("peercert")["subjectAltName"] == (("DNS", WILDCARD),)
        writer.close()


async def test_hosts_of_one_certificate_share_a_connection_and_others_are_misdirected(world: World) -> None:
    async with serving(world) as (door, _):
        await door.route(host="twin.default.localhost")
        await door.route(host=OTHER)
        reader, writer = await door.secure()
        assert (await ask(reader, writer)).startswith(b"HTTP/1.1 200")
        assert (await ask(reader, writer, "twin.default.localhost")).startswith(b"HTTP/1.1 200")
        head = await ask(reader, writer, OTHER)
        assert head.startswith(b"HTTP/1.1 421 Misdirected Request")
        assert b"x-ebb-reason: misdirected" in head
        assert await reader.read() == b""
        writer.close()
        assert (await door.curl("-i", "-H", f"Host: {OTHER}")).startswith(b"HTTP/2 421")


async def test_a_certificate_is_changed_without_losing_a_connection(world: World) -> None:
    async with serving(world) as (door, _):
        old = [await door.secure() for _ in range(5)]
        before = [writer.get_extra_info("ssl_object").getpeercert(True) for _, writer in old]
        await door.certify(world.record(WILDCARD))
        for reader, writer in old:
            assert (await ask(reader, writer)).startswith(b"HTTP/1.1 200")
        _, fresh = await door.secure()
        assert fresh.get_extra_info("ssl_object").getpeercert(True) not in before
        await door.store.delete(keys.certificate("default", "local:default"))
        await eventually(lambda: not len(door.ingress.certificates or ()), "the certificate is gone")
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await door.secure()
        for reader, writer in old:
            assert (await ask(reader, writer)).startswith(b"HTTP/1.1 200")
            writer.close()
        fresh.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_resumed_also_after_its_certificate_was_changed(world: World, version: ssl.TLSVersion) -> None:
    def visit(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with socket.create_connection(("127.0.0.1", door.tls_port)) as plain:
            with context.wrap_socket(plain, server_hostname=HOST, session=session) as tls:
                tls.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                assert tls.recv(100).startswith(b"HTTP/1.1 200")
                return tls.session, bool(tls.session_reused)

    async with serving(world) as (door, _):
        context = door.context()
        context.maximum_version = version
        session, reused = await asyncio.to_thread(visit, None)
        assert not reused
        await door.certify(world.record(WILDCARD))
        assert (await asyncio.to_thread(visit, session))[1]
        assert door.ingress.metrics.handshakes == {"full": 1, "resumed": 1}


async def test_old_versions_and_ciphers_are_refused(world: World) -> None:
    async with serving(world) as (door, _):
        for version, ciphers in (
            (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
            (ssl.TLSVersion.TLSv1_2, "AES128-SHA:@SECLEVEL=0"),
        ):
            context = door.context()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
            context.set_ciphers(ciphers)
            with pytest.raises(ssl.SSLError, match="ALERT"):
                await asyncio.open_connection("127.0.0.1", door.tls_port, ssl=context, server_hostname=HOST)


async def test_plain_http_at_the_tls_port_is_told_so(world: World) -> None:
    async with serving(world) as (door, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.tls_port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request")
        assert b"plain-http: this port speaks TLS: use https://\n" in answer
        writer.close()


async def test_a_handshake_that_does_not_come_to_an_end_is_cut_and_counted_as_a_connection(world: World) -> None:
    async with serving(world, bounds=Bounds(header_time_s=0.3)) as (door, _):
        silent = await asyncio.open_connection("127.0.0.1", door.tls_port)
        half = await asyncio.open_connection("127.0.0.1", door.tls_port)
        half[1].write(b"\x16\x03\x01\x02\x00\x01")
        await eventually(lambda: door.ingress.metrics.connections == 2, "both are counted")
        for reader, writer in (silent, half):
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        await eventually(lambda: door.ingress.metrics.connections == 0, "none is left")
        assert door.ingress.metrics.handshakes == {"timeout": 2}


async def test_what_is_no_tls_after_the_first_byte_ends_with_an_alert_and_nothing_else(world: World) -> None:
    async with serving(world) as (door, _):
        for garbage in (b"\x16" * 600, b"\x16\x03\x01\x00\x05" + bytes(5), b"\x80\x2e\x01\x03\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.tls_port)
            writer.write(garbage)
            writer.write_eof()
            assert len(await asyncio.wait_for(reader.read(), 10)) <= 7
            writer.close()
        assert (await door.curl("-i")).startswith(b"HTTP/2 200")


async def test_websockets_go_through_tls(world: World) -> None:
    async with serving(world) as (door, _), serve(echo, "127.0.0.1", 0, max_size=2**22) as server:
        host = "socket.default.localhost"
        await door.route({"r2": 100}, host=host)
        await door.ready("i2", server.sockets[0].getsockname()[1], "r2")
        options: dict[str, Any] = {"host": "127.0.0.1", "port": door.tls_port, "ssl": door.context(), "server_hostname": host}
        async with connect(f"wss://{host}/ws", proxy=None, max_size=2**22, **options) as socket_:
            for message in ("hello", bytes(1_000_000)):
                await socket_.send(message)
                assert await socket_.recv() == message


async def test_grpc_goes_through_tls(world: World) -> None:
    async with serving(world) as (door, _), echo_instance() as (_, port):
        host = "echo.default.localhost"
        await door.route({"r2": 100}, host=host, protocol="h2c")
        await door.ready("i2", port, "r2")
        credentials = grpc.ssl_channel_credentials(world.ca.read_bytes())
        name = [("grpc.ssl_target_name_override", host), ("grpc.default_authority", host)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{door.tls_port}", credentials, name) as channel:
            assert await channel.unary_unary("/echo.Echo/Unary")(b"x" * 100_000, timeout=10) == b"x" * 100_000
            pieces = [piece async for piece in channel.stream_stream("/echo.Echo/Bidi")(iter([b"a", b"b"]), timeout=10)]
            assert pieces == [b"a", b"b"]


async def test_a_slow_reader_stops_its_instance_and_gets_all(world: World) -> None:
    size = 30_000_000

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            writer.write(bytes(100_000))
            await writer.drain()
            sent.append(100_000)

    def shake(context: ssl.SSLContext, plain: socket.socket) -> ssl.SSLSocket:
        return context.wrap_socket(plain, server_hostname="large.default.localhost", suppress_ragged_eofs=False)

    sent: list[int] = []
    async with serving(world) as (door, _), instance(large) as port:
        await door.route({"r2": 100}, host="large.default.localhost")
        await door.ready("i2", port, "r2")
        with socket.create_connection(("127.0.0.1", door.tls_port)) as plain:
            with await asyncio.to_thread(shake, door.context(), plain) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: large.default.localhost\r\nConnection: close\r\n\r\n")
                stalled = -1
                while stalled != sum(sent):
                    stalled = sum(sent)
                    await asyncio.sleep(0.2)
                assert stalled < size
                answer = await asyncio.to_thread(lambda: b"".join(iter(lambda: tls.recv(2**20), b"")))
        assert len(answer.partition(b"\r\n\r\n")[2]) == size


async def test_draining_finishes_what_runs_in_tls(world: World) -> None:
    async with serving(world) as (door, app):
        app.delay_s = 0.5
        reader, writer = await door.secure()
        asked = asyncio.create_task(ask(reader, writer))
        two = asyncio.create_task(door.curl("-i"))
        await eventually(lambda: app.now == 2, "both are at the instance")
        await door.ingress.drain(5)
        head = await asked
        assert head.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in head
        assert (await two).startswith(b"HTTP/2 200")
        writer.close()
