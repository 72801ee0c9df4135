"""Bodies larger than any buffer pass through the real process, and it does not grow, whoever is slow.

`EBB_TEST_BODY_MB` says how large (1024 for the whole claim; 100 is far above every buffer).
"""

import asyncio
import os
from pathlib import Path

from deploy.ports import free_port
from store import keys
from store.backend import Store
from store.model import encode
from tests import real
from tests.integration.ingress.door import HOST, instance, read_head
from tests.integration.ingress.test_process import ROUTE, ingress, news

BODY = int(os.environ.get("EBB_TEST_BODY_MB", "100")) * 2**20
GROWTH_MB = 10
PIECE = bytes(256 * 1024)
SLOW_PIECES, PAUSE_S = 8, 0.05
"""So many of the first pieces are read or sent with a pause after each: the other side is far ahead by then."""


def peak_mb(pid: int) -> float:
    """The largest resident set since it was last reset."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def send(writer: asyncio.StreamWriter, *, slow: bool) -> None:
    for place in range(BODY // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
        if slow and place < SLOW_PIECES:
            await asyncio.sleep(PAUSE_S)


async def take(reader: asyncio.StreamReader, *, slow: bool) -> int:
    taken = pieces = 0
    while taken < BODY and (data := await reader.read(len(PIECE))):
        taken += len(data)
        pieces += 1
        if slow and pieces < SLOW_PIECES:
            await asyncio.sleep(PAUSE_S)
    return taken


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """GET /fast and /slow send a body, POST /fast and /slow take one."""
    head = await read_head(reader)
    slow = b"/slow" in head
    if head.startswith(b"POST"):
        body = b"%d" % await take(reader, slow=slow)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    elif head:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        await send(writer, slow=slow)


async def exchange(port: int, method: str, path: str, *, slow: bool) -> int:
    """One request; how many bytes of the body arrived at its other end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    length = f"Content-Length: {BODY}\r\n" if method == "POST" else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{length}\r\n".encode())
    if method == "POST":
        await send(writer, slow=slow)
    head = await read_head(reader)
    assert head.startswith(b"HTTP/1.1 200")
    arrived = int(await reader.read()) if method == "POST" else await take(reader, slow=slow)
    writer.close()
    return arrived


async def test_large_bodies_pass_both_ways_in_flat_memory(store: Store, etcd: real.Server, nats: real.Server) -> None:
    port = free_port()
    await store.put(keys.route("default", "hello"), encode(ROUTE))
    async with instance(app) as at, ingress(etcd.address, nats.url, port, "w1") as process:
        await store.put(keys.instance("n1", "i1"), encode(news(at)))
        grown = {}
        for method, path, slow in (
            ("GET", "/fast", True), ("GET", "/slow", False), ("POST", "/fast", True), ("POST", "/slow", False)
        ):  # fmt: skip
            reset_peak(process.pid)
            before_mb = peak_mb(process.pid)
            assert await exchange(port, method, path, slow=slow) == BODY
            grown[method, path] = peak_mb(process.pid) - before_mb
    assert max(grown.values()) < GROWTH_MB, grown
