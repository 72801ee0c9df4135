"""What the registry asks of this node by HTTP: logs, instances, images. With an identity by TLS, and of a registry alone."""

import time
from collections.abc import Iterable

import msgspec
from aiohttp import web

from nodeagent.admin_routes import Handler
from process import logs
from process.identity import Identity, caller, when_renewed
from process.run import Jobs
from process.settings import BadSettings, loopback

log = logs.get("nodeagent")

ASKS = "registry"
"""Who may ask."""


class Server:
    """`await start(address, jobs)`; then `port` is the one taken. Without an `identity` everybody who reaches it may ask."""

    def __init__(self, identity: Identity | None, routes: Iterable[tuple[str, str, Handler]]) -> None:
        self._identity = identity
        self._app = web.Application(client_max_size=2**20, middlewares=[self._known] if identity is not None else [])
        for method, path, handler in routes:
            self._app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=1)
        self.port = 0

    async def start(self, address: str, jobs: Jobs) -> None:
        """Listen on `host:port`. Raises BadSettings, BadIdentity, and OSError when the port is in use."""
        context = None
        if self._identity is not None:
            identity, context = self._identity, self._identity.server()
            jobs.start(when_renewed(identity, lambda: identity.reload(context)), "renew TLS of the registry's door", fatal=True)
        elif not loopback(address):
            raise BadSettings(
                f"--listen {address}: beyond loopback everybody could read logs and bring images; "
                "give --identity DIR (python -m deploy.identities issue), or listen on 127.0.0.1:0"
            )
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        await web.TCPSite(self._runner, host, int(port), ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; waits at most a second for open answers."""
        await self._runner.cleanup()

    @web.middleware
    async def _known(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Asked at each call: a connection may outlive the certificate that it was made with."""
        who = caller(request.transport, time.time())
        if who is not None and who.role == ASKS:
            return await handler(request)
        name = who.uri if who is not None else "a certificate that has run out, or names nobody,"
        log.warning("refused", who=name, method=request.method, path=request.path)
        said = {"reason": "Forbidden", "message": f"{name} may not ask a node agent; a {ASKS} may"}
        return web.Response(body=msgspec.json.encode(said), status=403, content_type="application/json")
