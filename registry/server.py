"""The HTTP server: uvicorn without its signal handling, which is `process.run`'s."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from registry.servingtls import ServingTls

CLOSE_S = 3


class Server(uvicorn.Server):
    """Serves one application on one socket until told to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are somebody else's."""
        yield


async def serve(app: Any, listen: str, stop: asyncio.Event, tls: ServingTls | None = None) -> None:
    """Serve `app` on `host:port` until `stop`; open answers get a few seconds. Raises OSError when the port is in use."""
    sock = bind(listen)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=CLOSE_S, http="httptools", ws="none",
        timeout_keep_alive=75,
    )  # fmt: skip
    config.load()
    if tls is not None:
        config.ssl = tls.context
    server = Server(config)
    renewing = asyncio.get_running_loop().create_task(tls.renew()) if tls is not None else None
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[sock]))
    waiting = asyncio.get_running_loop().create_task(stop.wait())
    try:
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if renewing is not None:
            renewing.cancel()
        server.should_exit = True
        await serving
        sock.close()


def bind(listen: str) -> socket.socket:
    """A listening socket on `host:port`; IPv6 hosts in brackets."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    sock.listen(1024)
    return sock
