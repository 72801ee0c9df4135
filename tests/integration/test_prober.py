"""Probes against real servers on loopback: every kind, what it says when it fails, and how soon a start is noticed."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from itertools import pairwise
from typing import Any

import grpc
import pytest

from deploy.ports import free_port
from nodeagent import checks
from nodeagent.prober import STARTING_PER_S, Prober
from nodeagent.readiness import Became, Verdict
from process.clock import SystemClock
from process.run import Jobs
from store.model import Probe, Revision
from tests.eventually import eventually

HERE = "127.0.0.1"


def revision(port: int, **fields: Any) -> Revision:
    return Revision(project="default", name="p-1", image="x", port=port, **fields)


@contextlib.asynccontextmanager
async def answering(answer: bytes, port: int = 0) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that sends the same bytes to everyone; gives its port and what it was asked."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HERE, port)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def probers() -> AsyncIterator[tuple[Prober, list[Verdict], Callable[[str, Verdict], None]]]:
    jobs, told = Jobs("test"), []
    try:
        yield Prober(SystemClock(), jobs), told, lambda instance, verdict: told.append(verdict)
    finally:
        await jobs.cancel()


async def test_a_port_nobody_listens_on_is_named_with_the_cure() -> None:
    port = free_port()
    assert await checks.check(Probe(), HERE, port, None) == f"nothing listens on port {port} (does it listen on 0.0.0.0:$PORT?)"


async def test_a_port_that_never_answers_fails_at_its_timeout() -> None:
    with socket.socket() as full:
        full.bind((HERE, 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            assert await checks.check(Probe(timeout_s=0.1), HERE, full.getsockname()[1], None) == "no answer within 0.1s"
        finally:
            for each in waiting:
                each.close()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", None),
        (b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n", "answered 400, want 200 to 399"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "ended before its head was whole"),
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP/1.1"),
        (b"", "ended before its head was whole"),
    ],
)
async def test_an_http_probe_judges_the_status(answer: bytes, problem: str | None) -> None:
    async with answering(answer) as (port, heads):
        probe = Probe(kind="http", path="/health?deep=1", headers=[("X-Probe", "yes")], host="app.example")
        why = await checks.check(probe, HERE, port, None)
        assert why is None if problem is None else problem in (why or "")
        assert heads[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\nhost: app.example\r\n")
        assert b"\r\nx-probe: yes\r\n" in heads[0]


async def test_a_probe_may_have_a_port_of_its_own() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _):
        assert await checks.check(Probe(kind="http", port=port), HERE, free_port(), None) is None


async def test_a_header_cannot_smuggle_a_second_request() -> None:
    why = await checks.check(Probe(kind="http", headers=[("a", "b\r\n\r\nGET /x")]), HERE, 1, None)
    assert why == "its path or headers hold characters that HTTP does not allow"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (0, None),
        (3, "'true' exited with 3"),
        (TimeoutError(), "no answer within"),
        (RuntimeError("gone"), "could not be run: gone"),
    ],
)
async def test_an_exec_probe_judges_the_exit_code(code: int | Exception, problem: str | None) -> None:
    async def run(argv: list[str], timeout_s: float) -> int:
        assert (argv, timeout_s) == (["true"], 1)
        if isinstance(code, Exception):
            raise code
        return code

    why = await checks.check(Probe(kind="exec", command=["true"]), HERE, 1, run)
    assert why is None if problem is None else problem in (why or "")


@contextlib.contextmanager
def health_server(answers: dict[bytes, bytes]) -> Any:
    """A real gRPC server with the health service; `answers` by the raw request."""

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[request]

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port(f"{HERE}:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


async def test_a_grpc_probe_asks_the_health_service() -> None:
    serving, not_serving = b"\x08\x01", b"\x08\x02"
    with health_server({b"": serving, b"\x0a\x02up": serving, b"\x0a\x04down": not_serving}) as port:
        for service, problem in {"": None, "up": None, "down": "'down' is not SERVING", "what": "ended with status 5"}.items():
            why = await checks.check(Probe(kind="grpc", service=service, timeout_s=5), HERE, port, None)
            assert why is None if problem is None else problem in (why or ""), service


async def test_a_grpc_probe_of_something_else_fails_with_words() -> None:
    async with answering(b"HTTP/1.1 400 Bad\r\n\r\n") as (port, _):
        why = await checks.check(Probe(kind="grpc"), HERE, port, None)
        assert "does not speak gRPC" in (why or "")


async def test_an_app_that_begins_to_listen_is_ready_within_milliseconds() -> None:
    took, loop = [], asyncio.get_running_loop()
    for _ in range(3):
        port = free_port()
        async with probers() as (prober, told, tell):
            prober.start("a", revision(port), HERE, None, tell)
            await asyncio.sleep(0.03)
            assert told == []
            with socket.create_server((HERE, port)):
                began = loop.time()
                await eventually(lambda: told, "ready", every_s=0.0005)
                took.append(loop.time() - began)
            assert told[0].became is Became.READY
    assert min(took) < 0.05, "some 2 ms; the machine is shared"


async def test_a_crowd_that_starts_is_not_probed_more_often_all_together_and_one_alone_is_not_held_up() -> None:
    asked: list[str] = []
    asked_at: list[float] = []
    now = asyncio.get_running_loop().time

    async def run(instance: str, argv: list[str], timeout_s: float) -> int:
        asked.append(instance)
        asked_at.append(now())
        return 1

    async def probed(instances: int, seconds: float) -> float:
        """For how long they really were, `seconds` or a little more."""
        asked.clear()
        asked_at.clear()
        began = now()
        fast = revision(1, readiness_probe=Probe(kind="exec", command=["false"], period_s=0))
        async with probers() as (prober, _, tell):
            for number in range(instances):
                prober.start(f"i{number}", fast, HERE, run, tell)
            await asyncio.sleep(seconds)
        return now() - began

    crowd = 80
    took_s = await probed(crowd, 0.4)
    assert len(asked) <= crowd + 1.2 * STARTING_PER_S * took_s
    assert max(asked.count(each) for each in asked) <= 2 * min(asked.count(each) for each in asked), "all alike"
    await probed(1, 0.3)
    gaps_s = sorted(after - before for before, after in pairwise(asked_at))
    assert gaps_s[2] < 0.01, "every 2 ms, as far as this machine gets to it"


async def test_an_instance_that_fails_for_good_is_probed_no_more() -> None:
    async with probers() as (prober, told, tell):
        startup = Probe(kind="tcp", period_s=0.02, failure_threshold=2)
        prober.start("a", revision(free_port(), startup_probe=startup), HERE, None, tell)
        await eventually(lambda: told)
        assert told[0].became is Became.STARTUP_FAILED
        assert "nothing listens" in told[0].message
        await eventually(lambda: "a" not in prober)


async def test_a_paused_instance_is_not_probed_and_goes_on_where_it_was() -> None:
    asked = 0

    async def run(instance: str, argv: list[str], timeout_s: float) -> int:
        nonlocal asked
        asked += 1
        return 0

    async with probers() as (prober, told, tell):
        probe = Probe(kind="exec", command=["true"], period_s=0.01)
        prober.start("a", revision(1, readiness_probe=probe), HERE, run, tell)
        await eventually(lambda: asked >= 3)
        prober.pause("a")
        before = asked
        await asyncio.sleep(0.1)
        assert asked <= before + 1
        prober.resume("a")
        await eventually(lambda: asked >= before + 3)
        prober.stop("a")
        assert [verdict.became for verdict in told] == [Became.READY]


async def test_a_hundred_ready_instances_cost_next_to_nothing() -> None:
    async with probers() as (prober, told, tell):
        with socket.create_server((HERE, 0), backlog=512) as server:
            for number in range(100):
                prober.start(f"i{number}", revision(server.getsockname()[1]), HERE, None, tell)
            await eventually(lambda: len(told) == 100)
            before = resource.getrusage(resource.RUSAGE_SELF)
            await asyncio.sleep(1)
            after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.05
