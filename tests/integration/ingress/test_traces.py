"""Spans reach a collector of OpenTelemetry's protocol, and cost nothing where none is configured."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.eventually import eventually
from tests.integration.ingress.door import Recorder, instance, open_door

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector:
    """OTLP/HTTP on loopback; answers `status`."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []
        self.status = 200
        self.asked = 0

    async def take(self, request: web.Request) -> web.Response:
        self.asked += 1
        assert request.content_type == "application/json"
        for resource in json.loads(await request.text())["resourceSpans"]:
            self.resources.append(values(resource["resource"]))
            if self.status == 200:
                self.spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
        return web.json_response({}, status=self.status)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"].startswith(name)]


def values(of: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in of["attributes"]}


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield made, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_request_has_a_span_with_its_phases_and_the_instance_hears_of_it() -> None:
    recorder = Recorder()
    async with collector() as (spans, url), open_door(traces=url, traces_share=1.0) as door, instance(recorder) as port:
        await door.route()
        cold = asyncio.create_task(door.get("/a?b=c"))
        await eventually(lambda: len(door.ingress.admitter.throttler("default/r1").line) == 1)
        await asyncio.sleep(0.02)
        await door.ready("i1", port)
        assert (await cold).startswith(b"HTTP/1.1 200")
        await eventually(lambda: len(spans.spans) == 3, "the request, its wait and its connect")
    whole, queue, connect = spans.named("GET default/r1")[0], spans.named("queue")[0], spans.named("connect")[0]
    said = values(whole)
    assert said["url.path"] == "/a"
    assert said["url.query"] == "b=c"
    assert said["http.response.status_code"] == "200"
    assert said["ebb.instance"] == "i1"
    assert whole["kind"] == 2
    assert queue["parentSpanId"] == connect["parentSpanId"] == whole["spanId"]
    begun, ended = int(whole["startTimeUnixNano"]), int(whole["endTimeUnixNano"])
    for part in (queue, connect):
        assert begun - 1000 <= int(part["startTimeUnixNano"]) <= int(part["endTimeUnixNano"]) <= ended + 1000
    assert int(queue["endTimeUnixNano"]) - int(queue["startTimeUnixNano"]) >= 20_000_000
    told = f"traceparent: 00-{whole['traceId']}-{whole['spanId']}-01\r\n".encode()
    assert told in recorder.heads[0]
    assert spans.resources[0]["service.name"] == "ebb-ingress"


async def test_a_trace_that_a_client_began_goes_on_as_it_decided() -> None:
    recorder = Recorder()
    async with collector() as (spans, url), open_door(traces=url, traces_share=0.0) as door, instance(recorder) as port:
        await door.route()
        await door.ready("i1", port)
        await door.get("/no", f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: a=b")
        await door.get("/own")
        await door.get("/yes", f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=b")
        await eventually(lambda: spans.named("GET"))
    assert [values(span)["url.path"] for span in spans.named("GET")] == ["/yes"]
    assert (spans.spans[0]["traceId"], spans.spans[0]["parentSpanId"]) == (TRACE, PARENT)
    flags = [head.split(b"traceparent: ")[1][:55][-2:] for head in recorder.heads]
    assert flags == [b"00", b"00", b"01"]
    assert b"tracestate: a=b\r\n" in recorder.heads[0]


async def test_refusals_have_spans_that_say_why() -> None:
    async with collector() as (spans, url), open_door(traces=url, traces_share=1.0) as door:
        await door.route(timeout_s=0.2)
        assert (await door.get()).startswith(b"HTTP/1.1 504")
        await eventually(lambda: spans.named("GET"))
    span = spans.named("GET")[0]
    assert values(span)["error.type"] == "timeout"
    assert span["status"]["code"] == 2


async def test_a_collector_that_fails_costs_spans_and_no_request() -> None:
    async with collector() as (spans, url), open_door(traces=url, traces_share=1.0) as door, instance(Recorder()) as port:
        spans.status = 503
        await door.route()
        await door.ready("i1", port)
        for _ in range(20):
            assert (await door.get()).startswith(b"HTTP/1.1 200")
        metrics = door.ingress.metrics
        await eventually(lambda: metrics.spans_lost == 20)
        spans.status = 200
        await door.get()
        await eventually(lambda: metrics.spans_sent == 1)
    assert len(spans.named("GET")) == 1


def test_nothing_is_loaded_where_there_is_no_collector() -> None:
    program = "import sys, ingress.service; sys.exit('ingress.tracing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
