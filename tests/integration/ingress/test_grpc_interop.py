"""gRPC's interoperability cases (grpc/doc/interop-test-descriptions.md) through the front door, grpcio at both ends."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from ingress.metrics import Stats
from tests.eventually import eventually
from tests.integration.ingress.door import HOST, open_door
from tests.integration.ingress.grpc_echo import Echo, channel, echo_instance

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = (27_182, 8, 1_828, 45_904)
ANSWERS = (31_415, 9, 2_653, 58_979)
GZIP = 2
"""What the instance compresses its answers with, for clients that can read it."""
WEIRD = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n 100%25"

World = tuple[Echo, grpc.aio.Channel, Stats]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with open_door() as door, echo_instance([("grpc.default_compression_algorithm", GZIP)]) as (echo, port):
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        async with channel(door.port, HOST) as client:
            yield echo, client, door.ingress.metrics.stats("default/r1")


async def sent(sizes: tuple[int, ...]) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


async def test_empty_unary(world: World) -> None:
    assert await world[1].unary_unary("/echo.Echo/Unary")(b"") == b""


@pytest.mark.parametrize("size", [1, 271_828, 4 * 2**20 - 5, 4 * 2**20, 5 * 2**20 + 1])
async def test_large_unary(world: World, size: int) -> None:
    message = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert await world[1].unary_unary("/echo.Echo/Unary")(message) == message


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_client_and_server_compressed(world: World, compression: grpc.Compression) -> None:
    _, client, stats = world
    before = stats.received_bytes, stats.sent_bytes
    answer = await client.unary_unary("/echo.Echo/Unary")(bytes(271_828), compression=compression)
    assert answer == bytes(271_828)
    passed = stats.received_bytes - before[0], stats.sent_bytes - before[1]
    assert 0 < max(passed) < 5_000, "it was compressed on the way, and nobody unpacked it"
    answers = client.stream_stream("/echo.Echo/Bidi")(sent(REQUESTS), compression=compression)
    assert [len(each) async for each in answers] == list(REQUESTS)


async def test_client_streaming(world: World) -> None:
    assert await world[1].stream_unary("/echo.Echo/ClientStream")(sent(REQUESTS)) == b"74922"


async def test_empty_client_streaming(world: World) -> None:
    assert await world[1].stream_unary("/echo.Echo/ClientStream")(sent(())) == b"0"


async def test_server_streaming(world: World) -> None:
    wanted = ",".join(map(str, ANSWERS)).encode()
    assert [len(each) async for each in world[1].unary_stream("/echo.Echo/Sizes")(wanted)] == list(ANSWERS)


async def test_ping_pong(world: World) -> None:
    call = world[1].stream_stream("/echo.Echo/Bidi")()
    for size in REQUESTS:
        await call.write(bytes(size))
        assert await call.read() == bytes(size)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(world: World) -> None:
    call = world[1].stream_stream("/echo.Echo/Bidi")()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_cancel_after_begin(world: World) -> None:
    call = world[1].stream_unary("/echo.Echo/ClientStream")()
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_first_response(world: World) -> None:
    echo, client, _ = world
    before = echo.cancelled
    call = client.stream_stream("/echo.Echo/Endless")()
    await call.write(bytes(27_182))
    assert len(await call.read()) == 27_182
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await eventually(lambda: echo.cancelled == before + 1, "the instance hears of it")


async def test_timeout_on_sleeping_server(world: World) -> None:
    echo, client, _ = world
    before = echo.cancelled
    call = client.stream_stream("/echo.Echo/Endless")(timeout=0.3)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0 < echo.left_s[-1] < 0.31, "grpc-timeout came along"
    await eventually(lambda: echo.cancelled == before + 1, "the instance hears of it")


async def test_custom_metadata(world: World) -> None:
    echo, client, _ = world
    metadata = (("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"))
    call = client.stream_stream("/echo.Echo/Bidi")(sent((1,)), metadata=metadata)
    assert [each async for each in call] == [b"\0"]
    assert dict(await call.initial_metadata())["x-grpc-test-echo-initial"] == "test_initial_metadata_value"
    assert dict(await call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\xab\xab\xab"
    unary = client.unary_unary("/echo.Echo/Unary")(b"", metadata=(("x-many", "a"), ("x-many", "b"), ("x-bin", b"\0\n\xff")))
    await unary
    assert echo.metadata[-1]["x-many"] == "b", "both came, the last is kept by the dict"
    assert echo.metadata[-1]["x-bin"] == b"\0\n\xff"


async def test_status_code_and_message(world: World) -> None:
    for kind in ("unary_unary", "stream_stream"):
        call = getattr(world[1], kind)("/echo.Echo/" + ("Say" if kind == "unary_unary" else "SayStream"))
        made = call(b"test status message") if kind == "unary_unary" else call(sent((0,)))
        assert await made.code() is grpc.StatusCode.UNKNOWN
        assert await made.details() == "test status message"


async def test_special_status_message(world: World) -> None:
    call = world[1].unary_unary("/echo.Echo/Say")(WEIRD.encode())
    assert await call.code() is grpc.StatusCode.UNKNOWN
    assert await call.details() == WEIRD


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_code(world: World, code: grpc.StatusCode) -> None:
    call = world[1].unary_unary("/echo.Echo/Fail")(b"%d" % code.value[0])
    assert await call.code() is code


async def test_trailers_only(world: World) -> None:
    """An error before anything else: head and trailers are one frame, and nothing is made of it on the way."""
    call = world[1].unary_unary("/echo.Echo/Say")(b"at once")
    assert await call.code() is grpc.StatusCode.UNKNOWN
    assert len(await call.initial_metadata()) == 0, "what there is came as trailers"
    assert dict(await call.trailing_metadata())["x-why"] == "said"


async def test_unimplemented_method_and_service(world: World) -> None:
    for path in ("/echo.Echo/Nope", "/echo.Unknown/Unary"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world[1].unary_unary(path)(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
