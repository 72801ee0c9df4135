"""Ebb's own paths under `/apis/ebb.dev/v1`: logs, instances, nodes, the story, and what goes on now."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream

from process.clock import Clock
from registry.api.gate import asked
from registry.api.problems import ApiError
from registry.api.routes import Http, answer, number
from registry.api.streams import Queue, Streams
from registry.authorisation import Identity
from registry.nodes import NodeAgents
from registry.observed import Observed
from registry.story import StoryBook
from registry.top import Samples, snapshot
from store.messages import LogLine

ROOT = "/apis/ebb.dev/v1"
FOLLOW_MAX_S = 24 * 3600.0
_LINES = "application/x-ndjson"
_TAGS = ["Ebb"]


class EbbRoutes:
    """What Ebb's own paths do."""

    def __init__(
        self, observed: Observed, agents: NodeAgents, book: StoryBook, samples: Samples, streams: Streams, clock: Clock
    ) -> None:
        self._observed, self._agents, self._book = observed, agents, book
        self._samples, self._streams, self._clock = samples, streams, clock

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
            for instance in self._observed.instances.all()
            if instance.project == project
            and query.get("revision", instance.revision) == instance.revision
            and query.get("service", instance.service) == instance.service
        ]
        items.sort(key=lambda instance: (instance.revision, instance.instance))
        return answer({"items": [msgspec.to_builtins(item) for item in items]})

    def nodes(self) -> Response[bytes]:
        counts = Counter(instance.node for instance in self._observed.instances.all())
        there = sorted(self._observed.live_nodes(), key=lambda node: node.node)
        items = [{**msgspec.to_builtins(node), "instances": counts[node.node]} for node in there]
        return answer({"items": items})

    def story(self, about: str, who: Identity) -> Response[bytes]:
        """What is known, as far as it is of projects that are there for `who`."""
        events = self._book.find(about)
        if not who.rules:
            projects = {event.revision.partition("/")[0] for event in events if event.revision}
            seen = {project for project in projects if who.sees(project)}
            kept = {"", *seen} if projects and seen == projects else seen
            events = [event for event in events if event.revision.partition("/")[0] in kept]
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
        nodes = sorted(node.node for node in observed.live_nodes())
        scales = [s for _, s in observed.scales.items()]
        rows = self._samples.rows(self._clock.now())
        made = snapshot(self._clock.wall(), rows, observed.instances.all(), scales, services, nodes)
        if project:
            made["revisions"] = [row for row in made["revisions"] if row["project"] == project]
        return made


def handlers(routes: EbbRoutes) -> list[BaseRouteHandler]:
    """Litestar's handlers over `routes`."""
    project = ROOT + "/namespaces/{ns:str}"

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
    async def story(about: str, request: Http) -> Response[bytes]:
        return routes.story(about.lstrip("/"), asked(request).identity)

    @get(ROOT + "/top", summary="What goes on now, a line a second (?project=)", tags=_TAGS)
    async def top(request: Http) -> Response[Any]:
        return routes.top(request)

    return [logs_of, instances, nodes, story, top]
