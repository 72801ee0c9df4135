"""The agent's own HTTP routes: GET /logs and GET /instances."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from nodeagent import cgroups, usage
from nodeagent.cgroups import Places
from nodeagent.logfile import STREAMS, Line
from nodeagent.logs import Logs
from nodeagent.loop import Loop
from nodeagent.reporter import Reporter
from process.clock import Clock
from store.messages import LogLine

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FOLLOW_BOUND = 10_000
"""Lines that a follower may be behind; the oldest go, and it is told."""
DEFAULT_TAIL = 1000

_encoder = msgspec.json.Encoder()


class Routes:
    """For `nodeagent.server.Server`: `routes.all()`."""

    def __init__(self, loop: Loop, reporter: Reporter, logs: Logs, clock: Clock, places: Places) -> None:
        self._loop, self._reporter, self._logs, self._clock = loop, reporter, logs, clock
        self._places = places
        self._mode = cgroups.detect()

    def all(self) -> list[tuple[str, str, Handler]]:
        """(method, path, handler)."""
        return [("GET", "/logs", self._get_logs), ("GET", "/instances", self._get_instances)]

    async def _get_instances(self, _: web.Request) -> web.StreamResponse:
        said = self._reporter.all()
        running = [one.instance for one in said]
        used = await asyncio.to_thread(usage.of_instances, self._mode, self._places, running)
        rows = []
        for status in said:
            row = msgspec.to_builtins(status)
            have = self._loop.observed.get(status.instance)
            if have is not None:
                row["task"], row["doing"] = have.task.value, sorted(have.doing)
            if status.instance in used:
                row["memory_bytes"], row["cpu_s"] = used[status.instance].memory_bytes, used[status.instance].cpu_s
            rows.append(row)
        return web.Response(body=_encoder.encode(rows), content_type="application/json")

    async def _get_logs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        try:
            tail = int(query.get("tail", DEFAULT_TAIL))
            since_s = float(query.get("since_s", 0))
            follow = {"true": True, "false": False, "": False}[query.get("follow", "")]
            if tail < 0 or since_s < 0:
                raise ValueError
        except (ValueError, KeyError):
            message = "tail is a number of lines, since_s a number of seconds (both ≥ 0), follow true or false"
            body = _encoder.encode({"reason": "BadRequest", "message": message})
            return web.Response(body=body, status=400, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        waiting: asyncio.Queue[tuple[str, Line]] = asyncio.Queue(FOLLOW_BOUND)
        end = self._logs.listen(lambda instance, lines: self._offer(query, waiting, instance, lines)) if follow else None
        try:
            history = await self._history(query, tail, self._clock.wall() - since_s if since_s else 0.0)
            await response.write(b"".join(self._encode(instance, line) for instance, line in history))
            told = {instance: line.at for instance, line in history}
            while follow:
                found = [await waiting.get()]
                while not waiting.empty() and len(found) < 1000:
                    found.append(waiting.get_nowait())
                # What was read from disk a moment ago was offered as well; a batch of lines has one time.
                new = [self._encode(instance, line) for instance, line in found if line.at > told.get(instance, 0.0)]
                await response.write(b"".join(new))
        except ConnectionError:
            return response
        finally:
            if end is not None:
                end()
        await response.write_eof()
        return response

    async def _history(self, query: Mapping[str, str], tail: int, since: float) -> list[tuple[str, Line]]:
        found: list[tuple[float, str, Line]] = []
        for instance in self._logs.instances():
            if self._matches(query, instance):
                lines = await self._logs.history(instance, tail=tail, since=since)
                found += [(line.at, instance, line) for line in lines]
        found.sort(key=lambda one: one[0])
        return [(instance, line) for _, instance, line in found[max(0, len(found) - tail) :]]

    def _offer(
        self, query: Mapping[str, str], waiting: asyncio.Queue[tuple[str, Line]], instance: str, lines: list[Line]
    ) -> None:
        if not self._matches(query, instance):
            return
        for line in lines:
            if waiting.full():
                waiting.get_nowait()
            waiting.put_nowait((instance, line))

    def _matches(self, query: Mapping[str, str], instance: str) -> bool:
        owner = self._logs.owner(instance)
        wanted = (query.get("project"), query.get("service"), query.get("revision"), query.get("instance"))
        is_ = (owner.project, owner.service, owner.revision, instance)
        return all(not want or want == have for want, have in zip(wanted, is_, strict=True))

    def _encode(self, instance: str, line: Line) -> bytes:
        owner = self._logs.owner(instance)
        entry = LogLine(at=line.at, instance=instance, revision=owner.revision, stream=STREAMS[line.stream], line=line.text)
        return _encoder.encode(entry) + b"\n"
