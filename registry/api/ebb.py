"""Ebb's own paths under `/apis/ebb.dev/v1`: images, logs, instances, nodes, the story, and what goes on now."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Response, delete, get, post
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from process.clock import Clock
from registry.api import problems
from registry.api.problems import ApiError
from registry.api.routes import Http, answer, number
from registry.api.streams import Queue, Streams
from registry.nodes import NodeAgents, NodeError
from registry.observed import Observed
from registry.spool import Spool
from registry.story import StoryBook
from registry.top import Samples, snapshot
from store import keys
from store.bus import Bus
from store.messages import IMAGE_PROGRESS, LogLine, PullProgress
from store.model import Node, decode

ROOT = "/apis/ebb.dev/v1"
FOLLOW_MAX_S = 24 * 3600.0
PROGRESS_MAX_S = 3600.0
_LINES = "application/x-ndjson"
_TAGS = ["Ebb"]


class EbbRoutes:
    """What Ebb's own paths do."""

    def __init__(
        self, observed: Observed, agents: NodeAgents, spool: Spool, book: StoryBook, samples: Samples,
        bus: Bus, streams: Streams, clock: Clock,
    ) -> None:  # fmt: skip
        self._observed, self._agents, self._spool, self._book = observed, agents, spool, book
        self._samples, self._bus, self._streams, self._clock = samples, bus, streams, clock

    # -- images -----------------------------------------------------------------------------------------------------------

    async def import_image(self, request: Http) -> Response[bytes]:
        """Every node gets the archive; it counts as done when all have it."""
        nodes = self._some_nodes()
        name = request.query_params.get("name", "")
        async with self._spool.receive(request.stream()) as file:
            answers = await asyncio.gather(
                *(self._agents.import_image(node, file, name) for node in nodes), return_exceptions=True
            )
        images = _all_or_raise(nodes, answers)
        return answer({"images": images[0], "nodes": [node.node for node in nodes]})

    async def images(self) -> Response[bytes]:
        nodes = self._some_nodes()
        answers = await asyncio.gather(*(self._agents.images(node) for node in nodes), return_exceptions=True)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        reached = [(node, items) for node, items in zip(nodes, answers, strict=True) if not isinstance(items, BaseException)]
        if not reached:
            _all_or_raise(nodes, answers)
        for node, items in reached:
            for item in items:
                row = found.setdefault((item.get("name", ""), item.get("digest", "")), {**item, "nodes": []})
                row["nodes"].append(node.node)
                row["in_use"] = bool(row.get("in_use") or item.get("in_use"))
        return answer([found[key] for key in sorted(found)])

    async def delete_image(self, name: str) -> Response[bytes]:
        """Gone from every node that had it; 404 when none had."""
        if not name:
            raise problems.bad_request("query parameter name is missing; give the image's name, like ?name=hello:v1")
        nodes = self._some_nodes()
        answers = await asyncio.gather(*(self._agents.delete_image(node, name) for node in nodes), return_exceptions=True)
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

    async def progress(self, image: str) -> Response[Any]:
        """Pulls as they go on, one PullProgress a line; `image` empty: all."""

        async def fill(queue: Queue) -> None:
            subscription = await self._bus.subscribe(IMAGE_PROGRESS, bound=1000)
            try:
                async for _, data in subscription:
                    if not image or decode(PullProgress, data).image == image:
                        await queue.put(data + b"\n")
            finally:
                await subscription.close()

        return Stream(self._streams.lines(fill, timeout_s=PROGRESS_MAX_S), media_type=_LINES)

    # -- logs -------------------------------------------------------------------------------------------------------------

    async def logs(self, project: str, service: str, request: Http) -> Response[Any]:
        known = ("revision", "instance", "tail", "since_s")
        params = {"project": project, "service": service}
        params |= {name: request.query_params[name] for name in known if name in request.query_params}
        tail = int(number(request, "tail"))
        if request.query_params.get("follow", "") in ("true", "1"):
            return Stream(self._followed({**params, "follow": "true"}), media_type=_LINES)
        lines = await self._agents.recent(params, tail)
        return Response(b"".join(msgspec.json.encode(line) + b"\n" for line in lines), media_type=_LINES)

    def _followed(self, params: dict[str, str]) -> AsyncIterator[bytes]:
        async def fill(queue: Queue) -> None:
            async def out(line: LogLine) -> None:
                await queue.put(msgspec.json.encode(line) + b"\n")

            await self._agents.follow(params, out)

        return self._streams.lines(fill, timeout_s=FOLLOW_MAX_S)

    # -- what is and was --------------------------------------------------------------------------------------------------

    def instances(self, project: str, request: Http) -> Response[bytes]:
        query = request.query_params
        items = [
            instance
            for _, instance in self._observed.instances.items()
            if instance.project == project
            and query.get("revision", instance.revision) == instance.revision
            and query.get("service", instance.service) == instance.service
        ]
        items.sort(key=lambda instance: (instance.revision, instance.instance))
        return answer({"items": [msgspec.to_builtins(item) for item in items]})

    def nodes(self) -> Response[bytes]:
        counts: dict[str, int] = {}
        for _, instance in self._observed.instances.items():
            counts[instance.node] = counts.get(instance.node, 0) + 1
        items = [
            {**msgspec.to_builtins(n), "instances": counts.get(n.node, 0)} for _, n in sorted(self._observed.nodes.items())
        ]
        return answer({"items": items})

    def story(self, about: str) -> Response[bytes]:
        events = self._book.find(about)
        if not events:
            said = f"nothing is known of {about!r}; the last {len(self._book)} steps of all processes are kept, for request, wake, "
            raise ApiError(404, "NotFound", said + "instance and revision names")
        return answer({"items": [msgspec.to_builtins(event) for event in events]})

    def top(self, request: Http) -> Response[Any]:
        project = request.query_params.get("project", "")

        async def fill(queue: Queue) -> None:
            while True:
                await queue.put(msgspec.json.encode(self.now(project)) + b"\n")
                await asyncio.sleep(1.0)

        return Stream(self._streams.lines(fill, timeout_s=FOLLOW_MAX_S), media_type=_LINES)

    def now(self, project: str) -> dict[str, Any]:
        """One snapshot, of one project or all."""
        observed = self._observed
        services = {f"{r.project}/{r.name}": r.service for _, r in observed.revisions.items()}
        nodes = sorted(keys.tail(key, keys.NODES)[0] for key, _ in observed.nodes.items())
        instances = [i for _, i in observed.instances.items()]
        scales = [s for _, s in observed.scales.items()]
        made = snapshot(self._clock.wall(), self._samples.rows(self._clock.now()), instances, scales, services, nodes)
        if project:
            made["revisions"] = [row for row in made["revisions"] if row["project"] == project]
        return made


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


def handlers(routes: EbbRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""
    project = ROOT + "/namespaces/{ns:str}"

    @post(ROOT + "/images", status_code=200, request_max_body_size=None, summary="Import an image archive (?name=)", tags=_TAGS)
    async def import_image(request: Http) -> Response[bytes]:
        return await routes.import_image(request)

    @get(ROOT + "/images", summary="Images on the nodes", tags=_TAGS)
    async def images() -> Response[bytes]:
        return await routes.images()

    @delete(ROOT + "/images", status_code=200, summary="Delete an image from all nodes (?name=)", tags=_TAGS)
    async def delete_image(request: Http) -> Response[bytes]:
        return await routes.delete_image(request.query_params.get("name", ""))

    @get(project + "/images:progress", summary="Pulls as they go on (?image=)", tags=_TAGS)
    async def progress(ns: str, request: Http) -> Response[Any]:
        return await routes.progress(request.query_params.get("image", ""))

    @get(
        project + "/services/{name:str}/logs", summary="Log lines (?revision= &instance= &tail= &follow= &since_s=)", tags=_TAGS
    )
    async def logs_of(ns: str, name: str, request: Http) -> Response[Any]:
        return await routes.logs(ns, name, request)

    @get(project + "/instances", summary="Instances (?revision= &service=)", tags=_TAGS)
    async def instances(ns: str, request: Http) -> Response[bytes]:
        return routes.instances(ns, request)

    @get(ROOT + "/nodes", summary="Nodes", tags=_TAGS)
    async def nodes() -> Response[bytes]:
        return routes.nodes()

    @get(ROOT + "/story/{about:path}", summary="The steps of a request, wake, instance or revision", tags=_TAGS)
    async def story(about: str) -> Response[bytes]:
        return routes.story(about.lstrip("/"))

    @get(ROOT + "/top", summary="What goes on now, a line a second (?project=)", tags=_TAGS)
    async def top(request: Http) -> Response[Any]:
        return routes.top(request)

    return [import_image, images, delete_image, progress, logs_of, instances, nodes, story, top]
