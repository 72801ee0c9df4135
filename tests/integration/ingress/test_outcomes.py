"""Each request ends once: what its client got and what the access log says are the same, request by request."""

import asyncio
import json

import pytest

from tests.eventually import eventually
from tests.integration.ingress.door import HOST, instance, open_door, read_head

OF_EACH = 12


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Dies at /dies…, never answers /waits…, and answers all else."""
    while head := await read_head(reader):
        if b" /dies" in head:
            return
        if b" /waits" in head:
            await reader.read()  # until who asked is gone
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def test_each_request_has_one_outcome_and_the_access_log_tells_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    outcomes: dict[str, int] = {}

    async with open_door(access_log="full") as door, instance(app) as port:
        await door.route(container_concurrency=50, timeout_s=5)
        await door.ready("i1", port)

        async def asks(path: str, host: str = HOST) -> None:
            answer = await door.get(path, host=host)
            assert answer.count(b"HTTP/1.1 ") == 1
            outcomes[path] = int(answer.split(b" ", 2)[1])

        async def leaves(path: str) -> None:
            _, writer = await door.connect()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await asyncio.sleep(0.1)
            writer.transport.abort()
            outcomes[path] = 499

        await asyncio.gather(
            *(asks(f"/good-{n}") for n in range(OF_EACH)),
            *(asks(f"/dies-{n}") for n in range(OF_EACH)),
            *(asks(f"/nowhere-{n}", "nowhere.default.localhost") for n in range(OF_EACH)),
            *(leaves(f"/waits-{n}") for n in range(OF_EACH)),
        )
        await eventually(lambda: door.ingress.admitter.throttler("default/r1").in_flight == 0)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    told = {line["target"]: line["status"] for line in lines}
    assert len(lines) == len(outcomes) == 4 * OF_EACH
    assert told == outcomes
    assert {outcomes[f"/{kind}-0"] for kind in ("good", "dies", "nowhere")} == {200, 502, 404}
