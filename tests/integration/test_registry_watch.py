"""Watches of the API: replay, selection, 410, and an etcd that is killed under them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from store.connect import open_bus, open_store
from tests import real
from tests.integration.registry_world import Client, make_registry, playing, ready, service

pytestmark = pytest.mark.real


class World:
    """A private etcd, which the tests kill, with a registry and players on it."""

    def __init__(self, etcd: real.Server, server: real.Server, api: Client) -> None:
        self.etcd, self.server, self.api = etcd, server, api

    async def until_written(self, body: dict[str, Any]) -> None:
        """PUT, again while the store is away."""
        code = 503
        while code == 503:
            code = (await self.api.http.put(self.api.path(name="hello"), json=body)).status_code
        assert code == 200


@pytest.fixture
async def world(nats: real.Server, tmp_path: Path) -> AsyncIterator[World]:
    async with real.etcd() as etcd:
        server = make_registry(tmp_path, etcd.address, nats.url)
        server.spawn()
        store, bus = await open_store(etcd.address), await open_bus(nats.url, "test")
        try:
            await server.answering()
            api = Client(server.url)
            async with playing(store, bus):
                yield World(etcd, server, api)
            await api.http.aclose()
        finally:
            server.stop()
            print(server.log()[-20_000:])
            await bus.close()
            await store.close()


@contextlib.asynccontextmanager
async def watching(api: Client, plural: str = "services", **params: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Events of a watch."""
    params = {"watch": "true", **params}
    async with api.http.stream("GET", api.path(plural), params=params) as answer:
        assert answer.status_code == 200, await answer.aread()

        async def events() -> AsyncIterator[dict[str, Any]]:
            async for line in answer.aiter_lines():
                yield json.loads(line)

        yield events()


async def until_ready(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    seen = []
    async for event in events:
        seen.append(event)
        obj = event["object"]
        if ready(obj)["status"] == "True" and obj["metadata"]["generation"] == obj["status"]["observedGeneration"]:
            return seen
    raise AssertionError(f"the watch ended: {seen}")


async def test_a_watch_replays_everything_after_its_version_and_ends_on_time(world: World) -> None:
    api = world.api
    made = await api.create(service())
    await api.until("True")
    async with watching(
        api, resourceVersion=made["metadata"]["resourceVersion"], fieldSelector="metadata.name=hello"
    ) as events:
        seen = await until_ready(events)
    assert {event["type"] for event in seen} == {"MODIFIED"}
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(set(versions))
    assert all(event["object"]["kind"] == "Service" and event["object"]["apiVersion"] for event in seen)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with watching(api, resourceVersion=versions[-1], timeoutSeconds=1) as events:
        assert [event async for event in events] == []
    assert 0.9 < loop.time() - began < 5


async def test_added_modified_and_deleted_arrive_for_what_the_selector_names(world: World) -> None:
    api = world.api
    async with watching(api, labelSelector="team=blue") as events:
        await api.create(service("other"))
        body = service()
        body["metadata"]["labels"] = {"team": "blue"}
        await api.create(body)
        assert (await anext(events))["type"] == "ADDED"
        await until_ready(events)
        patch = {"metadata": {"labels": {"team": "red"}}}
        await api.http.patch(api.path(name="hello"), json=patch, headers={"Content-Type": "application/merge-patch+json"})
        async for event in events:
            if event["type"] == "DELETED":
                break
        assert event["object"]["metadata"]["name"] == "hello"
    async with watching(api, resourceVersion=event["object"]["metadata"]["resourceVersion"]) as events:
        await api.http.delete(api.path(name="hello"))
        async for event in events:
            if event["type"] == "DELETED":
                break
        assert event["object"]["spec"]["template"]


async def test_a_watch_without_a_version_begins_with_what_is_there(world: World) -> None:
    await world.api.create(service("one"))
    await world.api.until("True", "one")
    async with watching(world.api, sendInitialEvents="true", allowWatchBookmarks="true") as events:
        first, second = await anext(events), await anext(events)
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "one")
    assert second["type"] == "BOOKMARK"
    assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_version_that_is_compacted_is_gone(world: World) -> None:
    api = world.api
    made = await api.create(service())
    after = await api.until("True")
    version = int(after["metadata"]["resourceVersion"])
    body = {"revision": version}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"http://{world.etcd.address}/v3/kv/compaction", json=body)
    assert answer.status_code == 200, answer.text
    old = await api.http.get(api.path(), params={"watch": "true", "resourceVersion": made["metadata"]["resourceVersion"]})
    assert (old.status_code, old.json()["reason"]) == (410, "Expired")
    async with watching(api, resourceVersion=version) as events:
        await api.http.delete(api.path(name="hello"))
        assert (await anext(events))["type"] in ("MODIFIED", "DELETED")


async def test_a_watch_goes_on_over_a_killed_etcd(world: World) -> None:
    api = world.api
    await api.create(service())
    after = await api.until("True")
    async with watching(api, resourceVersion=after["metadata"]["resourceVersion"]) as events:
        world.etcd.kill()
        refused = await api.http.get(api.path(name="hello"))
        assert refused.status_code == 503
        assert "etcd" in refused.json()["message"]
        await world.etcd.restart()
        async with asyncio.timeout(20):
            await world.until_written(service(image="hello:v2"))
            async for event in events:
                status = event["object"]["status"]
                if status.get("latestReadyRevisionName") == "hello-00002" and ready(event["object"])["status"] == "True":
                    break
    await api.until("True")


async def test_open_watches_end_cleanly_when_the_registry_stops(world: World) -> None:
    async with watching(world.api) as events:
        await world.api.create(service())
        await until_ready(events)
        stopping = asyncio.get_running_loop().run_in_executor(None, world.server.stop)
        assert [event["type"] async for event in events] == []
        await stopping
    assert '"message":"stopped"' in world.server.log()
