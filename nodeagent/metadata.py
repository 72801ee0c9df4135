"""The metadata endpoint of instances, in Cloud Run's words: who they are, and identity tokens with which they call other services.

    http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity?audience=URL
    Metadata-Flavor: Google

Also as metadata.ebb.internal. Without that header nothing is said, nor to what was forwarded: a server that can be made to fetch URLs sets
no such header. Who asks is told by its address, which the kernel vouches for (`firewall`).
"""

import socket
from collections import Counter
from hashlib import blake2b

import msgspec
from aiohttp import web

from nodeagent.residents import Residents, Who
from process import logs
from process.clock import Clock
from store import messages
from store.bus import Bus
from store.errors import BusUnavailable, NoResponder
from store.identity import AskIdentity, Identity
from store.model import decode, encode

ROOT = "/computeMetadata/v1/"
FLAVORS = ("Google", "Ebb")
FRESH_S = 300.0
"""A token that lasts less is asked for anew."""
TOKENS_MOST = 4096
ASKED_BY_ONE_MOST = 16
"""Tokens that one instance may be waiting for."""
ASK_S = 3.0
_log = logs.get("metadata")


class Metadata:
    """One for the agent of `node`. `zone` may be empty."""

    def __init__(self, residents: Residents, bus: Bus, clock: Clock, node: str, zone: str) -> None:
        self._residents, self._bus, self._clock = residents, bus, clock
        self._subject, self._zone = messages.identity(node), zone or "local"
        self._tokens: dict[tuple[str, str], Identity] = {}
        self._asking: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None

    async def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket. Raises OSError."""
        app = web.Application(client_max_size=1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1, keepalive_timeout=15)
        await self._runner.setup()
        await web.SockSite(self._runner, sock, backlog=256).start()

    async def stop(self) -> None:
        """Stop listening; waits at most a second for open answers."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        who = self._residents.at(peer[0]) if peer else None
        if who is None:
            return _said(403, "this address is no instance's\n")
        flavor = request.headers.get("Metadata-Flavor", "")
        if flavor not in FLAVORS or "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
            return _said(403, "want the header Metadata-Flavor: Google, and nothing that was forwarded\n")
        if request.method not in ("GET", "HEAD"):
            return _said(405, "only GET\n", flavor)
        path = request.path.removeprefix(ROOT) if request.path.startswith(ROOT) else None
        if path is None:
            return _said(200 if request.path == "/" else 404, "computeMetadata/\n", flavor)
        if path == "instance/service-accounts/default/identity":
            return await self._identity(who, request.query.get("audience", ""), flavor)
        found = facts(who, self._zone).get(path.rstrip("/"))
        return _said(404, f"no metadata at {path[:80]}\n", flavor) if found is None else _said(200, found, flavor)

    async def _identity(self, who: Who, audience: str, flavor: str) -> web.Response:
        if not audience:
            return _said(400, "want ?audience=URL of the service that is called\n", flavor)
        known = self._tokens.get((who.instance, audience))
        if known is None or known.expires_at - FRESH_S <= self._clock.wall():
            if self._asking[who.instance] >= ASKED_BY_ONE_MOST:
                return _said(429, f"more than {ASKED_BY_ONE_MOST} tokens are asked for at once\n", flavor)
            self._asking[who.instance] += 1
            try:
                known = await self._ask(who.instance, audience)
            except (NoResponder, BusUnavailable, msgspec.MsgspecError) as error:
                _log.warning("no identity token", instance=who.instance, error=str(error))
                return _said(503, "no token now; try again\n", flavor)
            finally:
                self._asking[who.instance] -= 1
                if not self._asking[who.instance]:
                    del self._asking[who.instance]
            if known.problem:
                return _said(400, f"{known.problem}\n", flavor)
            if len(self._tokens) >= TOKENS_MOST:
                self._tokens.clear()
            self._tokens[who.instance, audience] = known
        return _said(200, known.token, flavor)

    async def _ask(self, instance: str, audience: str) -> Identity:
        asked = encode(AskIdentity(instance=instance, audience=audience))
        return decode(Identity, await self._bus.request(self._subject, asked, timeout_s=ASK_S))

    def forget(self, instance: str) -> None:
        """The instance is gone: so are its tokens."""
        for key in [key for key in self._tokens if key[0] == instance]:
            del self._tokens[key]


def facts(who: Who, zone: str) -> dict[str, str]:
    """What an instance may know of itself, by path below ROOT."""
    number = int.from_bytes(blake2b(who.project.encode(), digest_size=5).digest(), "big")
    account = f"{who.service}@{who.project}.ebb.internal"
    return {
        "project/project-id": who.project,
        "project/numeric-project-id": str(number),
        "instance/id": who.instance,
        "instance/name": who.instance,
        "instance/region": f"projects/{number}/regions/{zone}",
        "instance/zone": f"projects/{number}/zones/{zone}",
        "instance/attributes": "",
        "instance/service-accounts": "default/\n",
        "instance/service-accounts/default": "aliases\nemail\nidentity\n",
        "instance/service-accounts/default/email": account,
        "instance/service-accounts/default/aliases": "default\n",
    }


def _said(status: int, text: str, flavor: str = "") -> web.Response:
    headers = {"Server": "Metadata Server for Ebb", "Cache-Control": "no-store"}
    if flavor:
        headers["Metadata-Flavor"] = flavor
    return web.Response(status=status, text=text, headers=headers)
