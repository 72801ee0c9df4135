"""HTTP/2 with peers that others wrote: curl, nghttp and h2load in front, Node behind."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.children import Child, output
from tests.integration.ingress.door import HOST, Recorder, instance, open_door

NODE = """
const server = require('http2').createServer((request, response) => {
  let size = 0
  request.on('data', piece => { size += piece.length })
  request.on('end', () => {
    response.writeHead(200, { 'x-version': request.httpVersion, 'x-path': request.url, 'x-size': String(size) })
    response.end(request.url === '/large' ? Buffer.alloc(3000000, 'x') : 'hello')
  })
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
"""


@asynccontextmanager
async def node() -> AsyncIterator[int]:
    """The port of a Node server that speaks HTTP/2 without TLS."""
    child = Child(["node", "-e", NODE], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        yield int(await asyncio.wait_for(asyncio.to_thread(child.stdout.readline), 20))
    finally:
        child.kill()
        await child.wait()


async def curl(*argv: str, data: bytes = b"") -> bytes:
    return await output("curl", "-sS", "--max-time", "20", *argv, data=data)


async def test_curl_and_node_speak_http2_through_the_door() -> None:
    async with open_door() as door, node() as port:
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        url = f"http://127.0.0.1:{door.port}"
        ask = ("--http2-prior-knowledge", "-H", f"Host: {HOST}")
        answer = await curl(*ask, "-i", f"{url}/a?b=c")
        assert answer.startswith(b"HTTP/2 200")
        assert b"x-version: 2.0\r\n" in answer
        assert b"x-path: /a?b=c\r\n" in answer
        assert answer.endswith(b"hello")
        assert len(await curl(*ask, f"{url}/large")) == 3_000_000
        answer = await curl(*ask, "-i", "--data-binary", "@-", f"{url}/", data=bytes(2_000_000))
        assert b"x-size: 2000000\r\n" in answer
        assert (await curl(*ask, "-I", f"{url}/")).startswith(b"HTTP/2 200")
        # The same instance by HTTP/1.1, all on one connection. (curl 7.88 cannot use its own of HTTP/2 twice, with any server.)
        assert b"x-version: 2.0\r\n" in await curl("-i", "-H", f"Host: {HOST}", f"{url}/")
        assert door.ingress.metrics.upstream_connects == 1


async def test_curl_by_http2_reaches_an_instance_of_http1() -> None:
    async with open_door() as door, instance(Recorder()) as port:
        await door.route()
        await door.ready("i1", port)
        answer = await curl("--http2-prior-knowledge", "-i", "-H", f"Host: {HOST}", f"http://127.0.0.1:{door.port}/")
        assert answer.startswith(b"HTTP/2 200")
        assert answer.endswith(b"ok 1")


async def test_nghttp_sends_continuations_trailers_and_padding_through_a_tiny_window(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(300_000))
    async with open_door() as door, node() as port:
        await door.route(protocol="h2c")
        await door.ready("i1", port)
        ask = ("nghttp", f"-H:authority: {HOST}", "--continuation", "-b", "100", "-w", "10", "-W", "12")
        said = await output(*ask, "-v", "-n", "-d", str(upload), "--trailer", "x-sum: 1", f"http://127.0.0.1:{door.port}/up")
        assert b":status: 200" in said
        assert b"x-size: 300000" in said
        assert len(await output(*ask, f"http://127.0.0.1:{door.port}/large")) == 3_000_000


async def test_h2load_is_answered_without_an_error_on_many_streams() -> None:
    async with open_door() as door, instance(Recorder()) as port:
        await door.route(container_concurrency=50)
        await door.ready("i1", port)
        where = (f"--connect-to=127.0.0.1:{door.port}", f"http://{HOST}/")
        said = await output("h2load", "-n", "3000", "-c", "6", "-m", "100", *where)
        assert b"3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout" in said
