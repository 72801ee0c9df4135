"""Images on the nodes: `/apis/ebb.dev/v1/namespaces/<project>/images` for a project's own, `/apis/ebb.dev/v1/images` for everybody's.

What is imported for a project only that project can deploy; what is imported for all, all can.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from litestar import Response, delete, get, post
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from registry.api import problems
from registry.api.ebb import ROOT
from registry.api.gate import asked
from registry.api.problems import ApiError
from registry.api.routes import Http, answer
from registry.api.streams import Queue, Streams
from registry.nodes import NodeAgents, NodeError
from registry.spool import Spool
from store.bus import Bus
from store.messages import IMAGE_PROGRESSES, PullProgress
from store.model import Node, decode

PROGRESS_MAX_S = 3600.0
_LINES = "application/x-ndjson"
_TAGS = ["Ebb"]


class ImageRoutes:
    """What the paths of images do. `project` None: everybody's."""

    def __init__(
        self, agents: NodeAgents, spool: Spool, bus: Bus, streams: Streams, images_of: Callable[[str], set[str]]
    ) -> None:
        """`images_of`: what the revisions of a project run."""
        self._agents, self._spool, self._bus, self._streams, self._images_of = agents, spool, bus, streams, images_of

    async def import_(self, project: str | None, request: Http) -> Response[bytes]:
        """Every node gets the archive; it counts as done when all have it."""
        nodes = self._some_nodes()
        name = request.query_params.get("name", "")
        async with self._spool.receive(request.stream()) as file:
            answers = await asyncio.gather(
                *(self._agents.import_image(node, file, name, project) for node in nodes), return_exceptions=True
            )
        images = _all_or_raise(nodes, answers)
        return answer({"images": images[0], "nodes": [node.node for node in nodes]})

    async def list_(self, project: str | None) -> Response[bytes]:
        """With a project, what it can use; without, all there is."""
        nodes = self._some_nodes()
        answers = await asyncio.gather(*(self._agents.images(node, project) for node in nodes), return_exceptions=True)
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        reached = [(node, items) for node, items in zip(nodes, answers, strict=True) if not isinstance(items, BaseException)]
        if not reached:
            _all_or_raise(nodes, answers)
        for node, items in reached:
            for item in items:
                key = (item.get("name", ""), item.get("project", ""), item.get("digest", ""))
                row = found.setdefault(key, {**item, "nodes": []})
                row["nodes"].append(node.node)
                row["in_use"] = bool(row.get("in_use") or item.get("in_use"))
        return answer([found[key] for key in sorted(found)])

    async def delete(self, project: str | None, request: Http) -> Response[bytes]:
        """Gone from every node that had it; 404 when none had. Without a project, from all projects."""
        name = request.query_params.get("name", "")
        if not name:
            raise problems.bad_request("query parameter name is missing; give the image's name, like ?name=hello:v1")
        nodes = self._some_nodes()
        answers = await asyncio.gather(
            *(self._agents.delete_image(node, name, project) for node in nodes), return_exceptions=True
        )
        missing = [a for a in answers if isinstance(a, NodeError) and a.status == 404]
        rest = [(n, a) for n, a in zip(nodes, answers, strict=True) if a not in missing]
        if not rest:
            raise _api_error(missing[0])
        _all_or_raise([n for n, _ in rest], [a for _, a in rest])
        return answer({"deleted": name, "nodes": [node.node for node, _ in rest]})

    def _some_nodes(self) -> list[Node]:
        nodes = self._agents.nodes()
        if not nodes:
            raise ApiError(503, "NoNode", "no node agent is connected; start one (ebb up, ebb join) and try again")
        return nodes

    async def progress(self, project: str, image: str, everything: bool) -> Response[Any]:
        """Pulls as they go on, one PullProgress a line; `image` empty: all. Unless `everything`, of the project's revisions."""

        def shown(pulled: str) -> bool:
            return (not image or pulled == image) and (everything or pulled in self._images_of(project))

        async def fill(queue: Queue) -> None:
            subscription = await self._bus.subscribe(IMAGE_PROGRESSES, bound=1000)
            try:
                async for _, data in subscription:
                    if shown(decode(PullProgress, data).image):
                        await queue.put(data + b"\n")
            finally:
                await subscription.close()

        return Stream(self._streams.lines(fill, timeout_s=PROGRESS_MAX_S), media_type=_LINES)


def _all_or_raise(nodes: list[Node], answers: list[Any]) -> list[Any]:
    """The answers when none failed; else the first failure that is the client's, else the first."""
    failed = [a for a in answers if isinstance(a, BaseException)]
    if not failed:
        return answers
    for error in sorted((e for e in failed if isinstance(e, NodeError)), key=lambda e: e.status):
        raise _api_error(error)
    raise failed[0]


def _api_error(error: NodeError) -> ApiError:
    return ApiError(error.status, error.reason, f"node {error.node}: {error.message}", {"node": error.node})


def handlers(routes: ImageRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""
    own = ROOT + "/namespaces/{ns:str}/images"

    @post(own, status_code=200, request_max_body_size=None, summary="Import an image archive (?name=)", tags=_TAGS)
    async def import_own(ns: str, request: Http) -> Response[bytes]:
        return await routes.import_(ns, request)

    @get(own, summary="Images that the project can use from the nodes", tags=_TAGS)
    async def list_own(ns: str) -> Response[bytes]:
        return await routes.list_(ns)

    @delete(own, status_code=200, summary="Delete an image of the project from all nodes (?name=)", tags=_TAGS)
    async def delete_own(ns: str, request: Http) -> Response[bytes]:
        return await routes.delete(ns, request)

    @post(
        ROOT + "/images", status_code=200, request_max_body_size=None, summary="Import an archive for all (?name=)", tags=_TAGS
    )
    async def import_shared(request: Http) -> Response[bytes]:
        return await routes.import_(None, request)

    @get(ROOT + "/images", summary="All images on the nodes", tags=_TAGS)
    async def list_all(request: Http) -> Response[bytes]:
        return await routes.list_(None)

    @delete(ROOT + "/images", status_code=200, summary="Delete an image of all from all nodes (?name=)", tags=_TAGS)
    async def delete_all(request: Http) -> Response[bytes]:
        return await routes.delete(None, request)

    @get(own + ":progress", summary="Pulls as they go on (?image=)", tags=_TAGS)
    async def progress(ns: str, request: Http) -> Response[Any]:
        return await routes.progress(ns, request.query_params.get("image", ""), asked(request).identity.rules)

    return [import_own, list_own, delete_own, import_shared, list_all, delete_all, progress]
