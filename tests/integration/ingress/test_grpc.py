"""gRPC through the front door, with grpcio at both ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from store import messages
from store.lifecycle import Phase
from store.messages import Refusal
from store.model import encode
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, REVISION, Door, open_door
from tests.integration.ingress.grpc_echo import Echo, channel, echo_instance


@asynccontextmanager
async def world(**limits: float) -> AsyncIterator[tuple[Door, Echo, grpc.aio.Channel]]:
    async with open_door() as door, echo_instance() as (echo, port):
        await door.route(protocol="h2c", **limits)
        await door.ready("i1", port)
        async with channel(door.port, HOST) as client:
            yield door, echo, client


async def test_unary_calls_carry_metadata_both_ways() -> None:
    async with world() as (_, echo, client):
        call = client.unary_unary("/echo.Echo/Unary")(b"hello", metadata=(("x-text", "a b"), ("x-raw-bin", b"\x00\xff")))
        assert await call == b"hello"
        first = dict(await call.initial_metadata())
        last = dict(await call.trailing_metadata())
    assert first["x-initial"] == "first"
    assert first["x-bits-bin"] == b"\x00\x01\xff"
    assert last["x-trailing"] == "last"
    assert last["x-end-bin"] == b"\xfe\x00"
    (seen,) = echo.metadata
    assert seen["x-text"] == "a b"
    assert seen["x-raw-bin"] == b"\x00\xff"
    assert seen["x-forwarded-host"] == HOST
    assert "x-request-id" in seen


async def test_every_kind_of_stream_passes() -> None:
    async with world() as (_, _echo, client):
        assert [each async for each in client.unary_stream("/echo.Echo/ServerStream")(b"500")] == [
            b"%d" % n for n in range(500)
        ]

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(300):
                yield bytes(1000)

        assert await client.stream_unary("/echo.Echo/ClientStream")(pieces()) == b"300000"
        bidi = client.stream_stream("/echo.Echo/Bidi")()
        for number in range(50):
            await bidi.write(b"%d" % number)
            assert await bidi.read() == b"%d" % number
        await bidi.done_writing()
        assert await bidi.read() == grpc.aio.EOF
        assert await bidi.code() is grpc.StatusCode.OK


async def test_large_messages_pass_whole() -> None:
    async with world() as (_, _echo, client):
        message = bytes(range(256)) * 4096 * 10
        assert await client.unary_unary("/echo.Echo/Unary")(message) == message


@pytest.mark.parametrize("code", [1, 3, 5, 7, 8, 13, 14, 16])
async def test_the_instances_own_status_arrives(code: int) -> None:
    async with world() as (_, _echo, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary_unary("/echo.Echo/Fail")(b"%d" % code)
    assert caught.value.code().value[0] == code
    assert caught.value.details() == f"as asked: ünïcode {code}"


async def test_an_unknown_method_is_unimplemented() -> None:
    async with world() as (_, _echo, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary_unary("/echo.Echo/Nope")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_cancelled_call_is_cancelled_at_the_instance() -> None:
    async with world() as (door, echo, client):
        call = client.unary_unary("/echo.Echo/Hang")(b"")
        await eventually(lambda: echo.begun == 1)
        call.cancel()
        await eventually(lambda: echo.cancelled == 1)
        await eventually(lambda: door.ingress.admitter.throttler(REVISION).in_flight == 0)
        assert await client.unary_unary("/echo.Echo/Unary")(b"next") == b"next"


async def test_a_deadline_reaches_the_instance_and_ends_there_too() -> None:
    async with world() as (_, echo, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary_unary("/echo.Echo/Hang")(b"", timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0 < echo.left_s[0] <= 0.5
        await eventually(lambda: echo.cancelled == 1)


async def test_the_services_own_timeout_is_a_deadline_too() -> None:
    async with world(timeout_s=0.3) as (_, echo, client):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary_unary("/echo.Echo/Hang")(b"")
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: echo.cancelled == 1)


async def test_our_refusals_have_a_grpc_status_and_say_why() -> None:
    async with open_door() as door, channel(door.port, "nobody.example") as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.unary_unary("/echo.Echo/Unary")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "no-route" in (caught.value.details() or "")
    async with open_door() as door, channel(door.port, HOST) as client:
        await door.route(protocol="h2c")
        call = client.unary_unary("/echo.Echo/Unary")(b"")
        await eventually(lambda: len(door.ingress.admitter.throttler(REVISION).line) == 1)
        door.bus.publish(messages.REFUSAL, encode(Refusal(revision=REVISION, reason="ImagePullFailed", message="not there")))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "ImagePullFailed: not there" in (caught.value.details() or "")


async def test_a_cold_call_wakes_waits_and_is_served() -> None:
    async with open_door() as door, echo_instance() as (_, port), channel(door.port, HOST) as client:
        await door.route(protocol="h2c")
        call = client.unary_unary("/echo.Echo/Unary")(bytes(300_000))
        await eventually(lambda: len(door.ingress.admitter.throttler(REVISION).line) == 1)
        door.tell(door.news("i1", Phase.READY, f"127.0.0.1:{port}"))
        assert await call == bytes(300_000)


async def test_streams_are_admitted_like_requests_and_none_is_lost() -> None:
    async with world(container_concurrency=3) as (_, echo, client):
        calls = [client.unary_unary("/echo.Echo/Slow")(b"%d" % number) for number in range(150)]
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(150)]
        assert echo.most == 3


async def test_one_instance_gets_more_calls_than_one_connection_carries() -> None:
    async with world() as (door, echo, first), channel(door.port, HOST) as second, channel(door.port, HOST) as third:
        clients = (first, second, third)
        calls = [client.unary_unary("/echo.Echo/Held")(b"x") for client in clients for _ in range(90)]
        await eventually(lambda: echo.now == 270, "all are at the instance at once")
        echo.go.set()
        assert await asyncio.gather(*calls) == [b"x"] * 270
        assert 3 <= door.ingress.metrics.upstream_connects <= 270
        assert len(door.ingress.gate.upstreams) <= 4


async def test_a_client_that_does_not_read_stops_the_instance_and_no_other_call() -> None:
    async with world() as (_, echo, client):
        flood = client.unary_stream("/echo.Echo/Flood")(b"100000")
        await flood.read()
        last = -1

        def still() -> bool:
            nonlocal last
            same, last = echo.sent == last, echo.sent
            return same

        await eventually(still, "the instance waits")
        assert await client.unary_unary("/echo.Echo/Unary")(bytes(500_000)) == bytes(500_000)
        assert echo.sent * 100_000 < 8 * 2**20
        flood.cancel()
        await eventually(lambda: echo.cancelled == 1)


async def test_an_instance_that_dies_makes_its_calls_unavailable() -> None:
    async with open_door() as door, channel(door.port, HOST) as client:
        await door.route(protocol="h2c")
        async with echo_instance() as (echo, port):
            await door.ready("i1", port)
            call = client.unary_unary("/echo.Echo/Hang")(b"")
            await eventually(lambda: echo.begun == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)


async def test_draining_lets_calls_end_and_sends_new_ones_elsewhere() -> None:
    async with echo_instance() as (_, port), open_door() as door:
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        async with channel(door.port, HOST) as client:
            bidi = client.stream_stream("/echo.Echo/Bidi")()
            await bidi.write(b"a")
            assert await bidi.read() == b"a"
            draining = asyncio.create_task(door.ingress.drain(5))
            await eventually(lambda: door.ingress.gate.closing)
            await bidi.write(b"b")
            assert await bidi.read() == b"b"
            await bidi.done_writing()
            assert await bidi.read() == grpc.aio.EOF
            assert await bidi.code() is grpc.StatusCode.OK
            await draining
