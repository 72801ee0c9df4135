"""A node agent's HTTP, played: what the registry asks of nodes."""

import asyncio

from aiohttp import web

from store.messages import LogLine
from store.model import encode


class Agent:
    """A node agent's HTTP: keeps what it is given, and says lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.images: dict[str, int] = {}
        self.projects: list[str | None] = []
        """For whom each request about images was."""
        self.lines: list[LogLine] = []
        self.broken = False
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/images/import", self._import)
        app.router.add_get("/images", self._list)
        app.router.add_delete("/images", self._delete)
        app.router.add_get("/logs", self._logs)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _import(self, request: web.Request) -> web.StreamResponse:
        self.projects.append(request.query.get("project"))
        data = await request.read()
        if self.broken:
            return web.json_response({"reason": "BadArchive", "message": "not an OCI archive"}, status=400)
        name = request.query.get("name", "of-its-index")
        self.images[name] = len(data)
        return web.json_response({"images": [{"name": name, "digest": "sha256:1"}]})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.projects.append(request.query.get("project"))
        return web.json_response(
            [
                {"name": n, "digest": "sha256:1", "size_bytes": s, "unpacked": True, "in_use": False}
                for n, s in self.images.items()
            ]
        )

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        self.projects.append(request.query.get("project"))
        if self.images.pop(request.query["name"], None) is None:
            return web.json_response({"reason": "ImageNotFound", "message": "no such image"}, status=404)
        return web.json_response({})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        sent = 0
        while True:
            for line in self.lines[sent:]:
                await answer.write(encode_line(line))
            sent = len(self.lines)
            if request.query.get("follow") != "true":
                return answer
            await asyncio.sleep(0.02)


def encode_line(line: LogLine) -> bytes:
    return encode(line) + b"\n"
