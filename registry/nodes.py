"""The node agents' own HTTP: images and logs, asked of all nodes at once and put together."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from process import logs
from process.identity import AGENT, BadIdentity, Identity, Who
from store.messages import LogLine
from store.model import Node

IMPORT_TIMEOUT_S = 600.0
ASK_TIMEOUT_S = 10.0
FOLLOW_LOOK_S = 2.0
LINES_MAX = 100_000
_LINE_BYTES = 2**20

log = logs.get("registry.nodes")


class NodeError(Exception):
    """A node's answer that is an error: its status, reason and message, and which node said it."""

    def __init__(self, node: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"node {node}: {message}")
        self.node, self.status, self.reason, self.message = node, status, reason, message


class NodeAgents:
    """Client of every live agent; `live` says which there are now.

    With an `identity` an agent is spoken to by TLS, and only when its certificate is of the node that was meant.
    """

    def __init__(self, live: Callable[[], list[Node]], identity: Identity | None = None) -> None:
        self._live, self._identity = live, identity
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, tuple[tuple[int, int], ssl.SSLContext]] = {}
        """By node, and of which of our certificates."""

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(read_bufsize=_LINE_BYTES)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def nodes(self) -> list[Node]:
        """Live nodes whose agent can be asked."""
        return [node for node in self._live() if node.address]

    async def import_image(self, node: Node, file: Path, name: str, project: str | None) -> list[dict[str, Any]]:
        """Give the archive in `file` to `node`, for `project` or all; the images that came of it. Raises NodeError."""
        params = ({"name": name} if name else {}) | _of(project)
        with file.open("rb") as archive:
            answer = await self._ask(node, "POST", "/images/import", IMPORT_TIMEOUT_S, params=params, data=archive)
        return list(answer.get("images", [])) if isinstance(answer, dict) else []

    async def images(self, node: Node, project: str | None) -> list[dict[str, Any]]:
        """Raises NodeError."""
        answer = await self._ask(node, "GET", "/images", ASK_TIMEOUT_S, params=_of(project))
        return answer if isinstance(answer, list) else list(answer.get("images", answer.get("items", [])))

    async def delete_image(self, node: Node, name: str, project: str | None) -> None:
        """Raises NodeError."""
        await self._ask(node, "DELETE", "/images", 60.0, params={"name": name} | _of(project))

    async def _ask(self, node: Node, method: str, path: str, timeout_s: float, **how: Any) -> Any:
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=ASK_TIMEOUT_S)
        try:
            url, secure = self._at(node, path)
            async with self._http().request(method, url, timeout=timeout, **secure, **how) as answer:
                data = await answer.read()
                if answer.status >= 400:
                    raise _node_error(node, answer.status, data)
                return msgspec.json.decode(data) if data.strip() else {}
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError, BadIdentity) as error:
            said = f"the agent at {node.address} did not answer {method} {path}: {error or type(error).__name__}"
            raise NodeError(node.node, 502, "NodeUnreachable", said) from error

    def _at(self, node: Node, path: str) -> tuple[str, dict[str, Any]]:
        """URL, and how it is spoken to. Raises BadIdentity."""
        if self._identity is None:
            return f"http://{node.address}{path}", {}
        stamp, context = self._contexts.get(node.node, (None, None))
        if context is None or self._identity.stamp() not in (stamp, (0, 0)):
            there = {each.node for each in self._live()}
            self._contexts = {name: known for name, known in self._contexts.items() if name in there}
            stamp, context = self._identity.stamp(), self._identity.client(Who("nodeagent", node.node))
            self._contexts[node.node] = (stamp, context)
        return f"https://{node.address}{path}", {"ssl": context, "server_hostname": AGENT}

    async def lines(self, node: Node, params: dict[str, str]) -> AsyncIterator[LogLine]:
        """Log lines of one node as its agent sends them; ends when the agent does, or cannot be reached."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ASK_TIMEOUT_S)
        decoder = msgspec.json.Decoder(LogLine)
        try:
            url, secure = self._at(node, "/logs")
            async with self._http().get(url, params=params, timeout=timeout, **secure) as answer:
                if answer.status >= 400:
                    log.warning("no logs from node", node=node.node, status=answer.status)
                    return
                async for line in answer.content:
                    if line.strip():
                        yield decoder.decode(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, BadIdentity) as error:
            log.info("logs of node ended", node=node.node, error=repr(error))

    async def recent(self, params: dict[str, str], tail: int) -> list[LogLine]:
        """The last `tail` lines of all nodes, by time (0: all there are, up to a bound)."""

        async def one(node: Node) -> list[LogLine]:
            found: list[LogLine] = []
            async for line in self.lines(node, params):
                found.append(line)
                if len(found) >= LINES_MAX:
                    break
            return found

        parts = await asyncio.gather(*(one(node) for node in self.nodes()))
        merged = sorted((line for part in parts for line in part), key=lambda line: line.at)
        return merged[-tail:] if tail else merged

    async def follow(self, params: dict[str, str], out: Callable[[LogLine], Any]) -> None:
        """`await out(line)` for each line of every node, nodes that come later too, until cancelled."""
        readers: dict[str, asyncio.Task[None]] = {}
        first = True

        async def one(node: Node, query: dict[str, str]) -> None:
            async for line in self.lines(node, query):
                await out(line)

        try:
            while True:
                for node in self.nodes():
                    reader = readers.get(node.node)
                    if reader is None or reader.done():
                        query = params if first or reader is None else {**params, "tail": "0", "since_s": str(FOLLOW_LOOK_S)}
                        readers[node.node] = asyncio.get_running_loop().create_task(one(node, query))
                first = False
                await asyncio.sleep(FOLLOW_LOOK_S)
        finally:
            for reader in readers.values():
                reader.cancel()


def _of(project: str | None) -> dict[str, str]:
    return {"project": project} if project else {}


def _node_error(node: Node, status: int, data: bytes) -> NodeError:
    try:
        said = msgspec.json.decode(data)
    except msgspec.DecodeError:
        said = {}
    said = said if isinstance(said, dict) else {}
    text = str(said.get("message") or data[:300].decode("utf-8", "replace"))
    return NodeError(node.node, status, str(said.get("reason", "NodeFailed")), text)
