"""The admin endpoint of every process: /healthz (alive), /readyz (may be used), /metrics; a process adds routes of its own."""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiohttp import web

from process import metrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Check = Callable[[], str | None]
"""Says what is wrong (`etcd: no answer for 4 s`), or None."""


class Admin:
    """A small HTTP server on its own port.

    `checks`: name → Check, asked on /readyz; 503 with one line a failing check, 200 when all are well.
    /healthz is 200 whenever the event loop turns.
    """

    def __init__(self, checks: Mapping[str, Check], routes: Iterable[tuple[str, str, Handler]] = ()) -> None:
        self._checks = dict(checks)
        self._routes = list(routes)
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, address: str) -> None:
        """Listen on `host:port`; `self.port` is the port taken. Raises OSError when it is in use."""
        app = web.Application(client_max_size=2**20)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        for method, path, handler in self._routes:
            app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        site = web.TCPSite(self._runner, host, int(port))
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; waits at most a second for open answers."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        wrong = [f"{name}: {problem}" for name, check in self._checks.items() if (problem := check())]
        return web.Response(text="\n".join(wrong or ["ok"]) + "\n", status=503 if wrong else 200)

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        body, content_type = metrics.exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})
