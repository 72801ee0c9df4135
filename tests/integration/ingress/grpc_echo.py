"""A gRPC service of bytes, and a client of it: every kind of call, without generated code."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

SERVICE = "echo.Echo"
LARGE = [("grpc.max_receive_message_length", 64 * 2**20), ("grpc.max_send_message_length", 64 * 2**20)]


class Echo(grpc.GenericRpcHandler):
    """A method for each kind of call and end; it records what came in and what was cancelled. `Held` waits for `go`."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str | bytes]] = []
        self.cancelled = 0
        self.begun = 0
        self.now = 0
        self.most = 0
        self.left_s: list[float] = []
        self.sent = 0
        self.go = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        service, _, name = handler_call_details.method.rpartition("/")
        if service != f"/{SERVICE}":
            return None
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Say": grpc.unary_unary_rpc_method_handler(self.say),
            "SayStream": grpc.stream_stream_rpc_method_handler(self.say_stream),
            "Sizes": grpc.unary_stream_rpc_method_handler(self.sizes),
            "Endless": grpc.stream_stream_rpc_method_handler(self.endless),
            "Held": grpc.unary_unary_rpc_method_handler(self.held),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(self.bidi),
        }
        return kinds.get(name)

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.metadata.append(dict(context.invocation_metadata()))
        await context.send_initial_metadata((("x-initial", "first"), ("x-bits-bin", b"\x00\x01\xff")))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-end-bin", b"\xfe\x00")))
        return request

    async def say(self, request: bytes, context: Any) -> bytes:
        """Fails with the request as its message."""
        await context.abort(grpc.StatusCode.UNKNOWN, request.decode(), (("x-why", "said"),))
        raise AssertionError

    async def say_stream(self, request: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in request:
            await context.abort(grpc.StatusCode.UNKNOWN, "test status message")
        yield b""

    async def sizes(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Messages of the sizes asked for, `9,100`."""
        for size in request.split(b","):
            yield bytes(int(size))

    async def endless(self, request: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Echoes once, then says nothing until it is cancelled."""
        self.left_s.append(context.time_remaining() or 0)
        try:
            async for each in request:
                yield each
                await asyncio.sleep(60)
        finally:
            self.cancelled += 1

    async def held(self, request: bytes, context: Any) -> bytes:
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go.wait()
        self.now -= 1
        return request

    async def slow(self, request: bytes, context: Any) -> bytes:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.05)
        self.now -= 1
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        code = {each.value[0]: each for each in grpc.StatusCode}[int(request)]
        await context.abort(code, f"as asked: ünïcode {int(request)}")
        raise AssertionError

    async def hang(self, request: bytes, context: Any) -> bytes:
        self.begun += 1
        self.left_s.append(context.time_remaining() or 0)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""

    async def server_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def flood(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                self.sent += 1
                yield bytes(int(request))
        finally:
            self.cancelled += 1

    async def client_stream(self, request: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([len(each) async for each in request])

    async def bidi(self, request: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Echoes; metadata that asks for it comes back at both ends."""
        given = context.invocation_metadata()
        await context.send_initial_metadata([pair for pair in given if pair[0].endswith("-echo-initial")])
        context.set_trailing_metadata([pair for pair in given if pair[0].endswith("-echo-trailing-bin")])
        async for each in request:
            yield each


@asynccontextmanager
async def echo_instance(options: list[tuple[str, Any]] | None = None) -> AsyncIterator[tuple[Echo, int]]:
    """(the service, its port), ended at the end."""
    echo = Echo()
    server = grpc.aio.server(options=LARGE + (options or []))
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield echo, port
    finally:
        await server.stop(0)


@asynccontextmanager
async def channel(port: int, host: str) -> AsyncIterator[grpc.aio.Channel]:
    """A client of the door at `port` that asks for `host`, on a connection of its own."""
    options = [*LARGE, ("grpc.default_authority", host), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as made:
        yield made
