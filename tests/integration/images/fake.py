"""A registry that misbehaves on request, and counts: what a real one cannot be told to do."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.archives import Image


class FakeRegistry:
    """Serves images over the v2 protocol on loopback. Knobs are plain attributes, to be set by tests."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        """`repository:tag` → image; by digest everything of every image is served."""
        self.asked: Counter[str] = Counter()
        """Requests by `METHOD last-path-segment`."""
        self.answers: list[int] = []
        """Statuses to answer with before behaving."""
        self.cut: dict[str, int] = {}
        """Digest → after how many bytes the connection is dropped, once."""
        self.ranges: list[str] = []
        self.ignore_range = False
        self.replaced: dict[str, bytes] = {}
        """Digest → what is sent in its place."""
        self.blobs_at = ""
        """Where to blobs are redirected."""
        self.token = ""
        """When set: a bearer token that must be fetched from /token first."""
        self.basic = ""
        """When set: the Authorization header that must be sent."""
        self.gate: asyncio.Event | None = None
        """When set: blobs wait for it."""
        self.seen_authorization: list[str] = []
        self.token_queries: list[dict[str, str]] = []
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def blob(self, digest: str) -> bytes | None:
        return next((image.blobs[digest] for image in self.images.values() if digest in image.blobs), None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked[f"{request.method} {request.path.rpartition('/')[2]}"] += 1
        self.seen_authorization.append(request.headers.get("Authorization", ""))
        if request.path == "/token":
            self.token_queries.append(dict(request.query))
            return web.json_response({"token": self.token, "expires_in": 60})
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            realm = f'Bearer realm="http://{self.host}/token",service="fake",scope="repository:hello:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        if self.basic and request.headers.get("Authorization") != self.basic:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="fake"'})
        if self.answers:
            return web.Response(status=self.answers.pop(0))
        _, _, rest = request.path.partition("/v2/")
        repository, kind, target = rest.rsplit("/", 2)
        if kind == "manifests":
            return self._manifest(repository, target)
        if self.blobs_at:
            return web.Response(status=307, headers={"Location": f"{self.blobs_at}{request.path}"})
        return await self._blob(request, target)

    def _manifest(self, repository: str, target: str) -> web.StreamResponse:
        if ":" in target:
            digest = target
        elif (image := self.images.get(f"{repository}:{target}")) is not None:
            digest = image.manifest
        else:
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        data = self.replaced.get(digest) or self.blob(digest)
        if data is None:
            return web.Response(status=404)
        kind = "index" if b'"manifests"' in data else "manifest"
        media_type = f"application/vnd.oci.image.{kind}.v1+json"
        return web.Response(body=data, headers={"Docker-Content-Digest": digest, "Content-Type": media_type})

    async def _blob(self, request: web.Request, digest: str) -> web.StreamResponse:
        if self.gate is not None:
            await self.gate.wait()
        data = self.replaced.get(digest) or self.blob(digest)
        if data is None:
            return web.Response(status=404)
        wanted = request.headers.get("Range", "")
        start = 0
        headers = {}
        if wanted:
            self.ranges.append(wanted)
            if not self.ignore_range:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        response = web.StreamResponse(status=206 if headers else 200, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        stop = self.cut.pop(digest, None)
        await response.write(body[:stop])
        if stop is not None:
            assert request.transport is not None
            await asyncio.sleep(0)
            request.transport.close()
            return response
        await response.write_eof()
        return response


@asynccontextmanager
async def fake_registry(**images: Image) -> AsyncIterator[FakeRegistry]:
    """A running fake with `images` under `name:latest`."""
    fake = FakeRegistry()
    fake.images = {f"{name}:latest": image for name, image in images.items()}
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        await runner.cleanup()
