"""`GET …/audit`: the log's lines as they are in its files, of all or of one project, and on as they come."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from registry.api.doors import EBB
from registry.api.routes import Http, flag, number
from registry.api.streams import Queue, Streams
from registry.audit import AuditLog

FOLLOW_MAX_S = 24 * 3600.0
_BATCH = 500
_BOUND = 10_000
_TAGS = ["Audit"]


class AuditRoutes:
    """Reads the log. `tail` 0: from its beginning."""

    def __init__(self, audit: AuditLog, streams: Streams) -> None:
        self._audit, self._streams = audit, streams

    def lines(self, request: Http, project: str) -> Response[Any]:
        tail, follow = int(number(request, "tail")), flag(request, "follow")

        async def fill(queue: Queue) -> None:
            coming: asyncio.Queue[bytes] = asyncio.Queue(_BOUND)
            with self._audit.heard(coming):
                found = _of(self._audit.lines(), project)
                found = iter(await asyncio.to_thread(deque, found, tail)) if tail else found
                last = 0
                while batch := await asyncio.to_thread(lambda: list(islice(found, _BATCH))):
                    for line in batch:
                        await queue.put(line)
                    last = _seq(batch[-1])
                while follow:
                    line = await coming.get()
                    if _seq(line) > last and (not project or _project(line) == project):
                        await queue.put(line)

        return Stream(self._streams.lines(fill, timeout_s=FOLLOW_MAX_S), media_type="application/x-ndjson")


def _of(lines: Iterable[bytes], project: str) -> Iterator[bytes]:
    return (line for line in lines if not project or _project(line) == project)


def _seq(line: bytes) -> int:
    return int(msgspec.json.decode(line)["seq"])


def _project(line: bytes) -> str:
    return str(msgspec.json.decode(line).get("project", ""))


def handlers(routes: AuditRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""

    @get(EBB + "/audit", summary="The audit log, a line an attempt (?tail= &follow=true)", tags=_TAGS)
    async def audit(request: Http) -> Response[Any]:
        return routes.lines(request, "")

    @get(EBB + "/namespaces/{ns:str}/audit", summary="The audit log of a project (?tail= &follow=true)", tags=_TAGS)
    async def audit_of(ns: str, request: Http) -> Response[Any]:
        return routes.lines(request, ns)

    return [audit, audit_of]
