"""Ebb's own paths: images, logs, instances, nodes, story and top, with a node agent that is played by a small server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.messages import LogLine, PullProgress, Sample, SampleReport
from store.model import Node, encode
from tests import real
from tests.eventually import eventually_async
from tests.integration.played_agent import Agent
from tests.integration.registry_world import Client, make_registry, playing, service

pytestmark = pytest.mark.real
OWN = "/apis/ebb.dev/v1"


class World:
    def __init__(self, api: Client, agents: list[Agent], store: Store, bus: Bus, server: real.Server) -> None:
        self.api, self.agents, self.store, self.bus, self.server = api, agents, store, bus, server


@pytest.fixture
async def world(store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[World]:
    server = make_registry(tmp_path, etcd.address, nats.url, "--upload-max-bytes", "2000000")
    server.spawn()
    agents = [Agent("a1"), Agent("a2")]
    try:
        for agent in agents:
            node = Node(node=agent.name, cpu_m=1000, memory_bytes=2**30, address=await agent.start())
            await store.put(keys.node(agent.name), encode(node))
        await server.answering()
        api = Client(server.url)
        async with playing(store, bus):
            yield World(api, agents, store, bus, server)
        await api.http.aclose()
    finally:
        server.stop()
        print(server.log()[-20_000:])
        for agent in agents:
            await agent.stop()


async def test_an_imported_archive_reaches_every_node_and_leaves_no_file(world: World, tmp_path: Path) -> None:
    http = world.api.http
    answer = await http.post(f"{OWN}/images", params={"name": "hello:v1"}, content=b"x" * 1_900_000)
    assert answer.status_code == 200, answer.text
    assert answer.json()["images"] == [{"name": "hello:v1", "digest": "sha256:1"}]
    assert [agent.images for agent in world.agents] == [{"hello:v1": 1_900_000}] * 2
    assert list((tmp_path / "spool").glob("upload-*")) == []
    listed = (await http.get(f"{OWN}/images")).json()
    assert [(item["name"], item["nodes"]) for item in listed] == [("hello:v1", ["a1", "a2"])]
    assert (await http.delete(f"{OWN}/images", params={"name": "hello:v1"})).status_code == 200
    missing = await http.delete(f"{OWN}/images", params={"name": "hello:v1"})
    assert (missing.status_code, missing.json()["reason"]) == (404, "ImageNotFound")
    own = f"{OWN}/namespaces/shop/images"
    assert (await http.post(own, params={"name": "hello:v1"}, content=b"x")).status_code == 200
    assert (await http.get(own)).status_code == 200
    assert (await http.delete(own, params={"name": "hello:v1"})).status_code == 200
    assert [agent.projects for agent in world.agents] == [[None, None, None, None, "shop", "shop", "shop"]] * 2


async def test_an_archive_that_is_too_large_or_bad_is_refused_with_the_reason(world: World, tmp_path: Path) -> None:
    http = world.api.http
    large = await http.post(f"{OWN}/images", params={"name": "x"}, content=b"x" * 2_100_000)
    assert large.status_code == 413
    assert "limit" in large.json()["message"]
    world.agents[1].broken = True
    bad = await http.post(f"{OWN}/images", params={"name": "x"}, content=b"x")
    assert (bad.status_code, bad.json()["reason"]) == (400, "BadArchive")
    assert "node a2" in bad.json()["message"]
    assert list((tmp_path / "spool").glob("upload-*")) == []


async def test_logs_of_all_nodes_come_in_order_of_time_and_go_on(world: World) -> None:
    for number in range(6):
        line = LogLine(at=number, instance=f"i{number % 2}", revision="hello-00001", stream="stdout", line=f"line {number}")
        world.agents[number % 2].lines.append(line)
    path = f"{OWN}/namespaces/default/services/hello/logs"
    answer = await world.api.http.get(path, params={"tail": 4})
    assert [json.loads(line)["line"] for line in answer.text.splitlines()] == [f"line {n}" for n in range(2, 6)]
    async with world.api.http.stream("GET", path, params={"follow": "true"}) as answer:
        lines = answer.aiter_lines()
        seen = {json.loads(await anext(lines))["line"] for _ in range(6)}
        assert seen == {f"line {n}" for n in range(6)}
        world.agents[0].lines.append(LogLine(at=9, instance="i0", revision="r", stream="stderr", line="more"))
        assert json.loads(await anext(lines))["line"] == "more"


async def test_instances_nodes_and_the_story_of_a_deploy(world: World) -> None:
    http = world.api.http
    await world.api.create(service())
    await world.api.until("True")
    items = (await http.get(f"{OWN}/namespaces/default/instances", params={"service": "hello"})).json()["items"]
    assert [(item["instance"], item["phase"]) for item in items] == [("hello-00001-i", "Ready")]
    assert (await http.get(f"{OWN}/namespaces/other/instances")).json()["items"] == []
    nodes = {item["node"]: item for item in (await http.get(f"{OWN}/nodes")).json()["items"]}
    assert set(nodes) == {"a1", "a2", "n1"}
    assert nodes["n1"]["instances"] == 1
    told: list[dict[str, Any]] = []

    async def all_told() -> bool:  # What a process tells goes out once in 50 ms.
        told[:] = (await http.get(f"{OWN}/story/hello-00001")).json().get("items", [])
        return [event["what"] for event in told if event["process"] == "registry"][:2] == ["revision minted", "image resolved"]

    await eventually_async(all_told, "the story is told")
    again = (await http.get(f"{OWN}/story/default/hello-00001")).json()["items"]
    assert [event for event in again if event in told] == told
    unknown = await http.get(f"{OWN}/story/nobody")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "NotFound")


async def test_top_shows_load_and_instances_and_progress_shows_pulls(world: World) -> None:
    await world.api.create(service())
    await world.api.until("True")
    sample = Sample(revision="default/hello-00001", concurrency=2.5, requests=20, queued=3)
    async with world.api.http.stream("GET", f"{OWN}/top") as answer:
        async for line in answer.aiter_lines():
            row = next(r for r in json.loads(line)["revisions"] if r["revision"] == "hello-00001")
            assert (row["service"], row["desired"], row["instances"]) == ("hello", 1, {"Ready": 1})
            if row["rps"]:
                assert (row["rps"], row["concurrency"], row["queued"]) == (20.0, 2.5, 3)
                break
            world.bus.publish(messages.SAMPLES, encode(SampleReport(sender="s", at=0, interval_s=1, samples=[sample])))
    progress = PullProgress(node="a1", image="docker.io/library/x@sha256:1", state="pulling", layers=[("sha256:2", 1, 2)])

    async def tell() -> None:
        while True:
            world.bus.publish(messages.image_progress(progress.node), encode(progress))
            await asyncio.sleep(0.05)

    telling = asyncio.create_task(tell())
    async with world.api.http.stream("GET", f"{OWN}/namespaces/default/images:progress") as answer:
        assert json.loads(await anext(answer.aiter_lines()))["state"] == "pulling"
    telling.cancel()
