"""A node that was taken over tells the registry of instances that nobody gave it: none is shown, counted or waited for.

The attacker is node-1, with its own good certificate, at a real gate and etcd. The registry is a real process.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from process.identity import Who
from store import keys
from store.backend import Store
from store.connect import open_bus, open_store
from store.lifecycle import Phase
from store.model import Assignment, Instance, Node, encode
from tests import real
from tests.eventually import eventually_async
from tests.integration.registry_world import Client, make_registry, playing, service

pytestmark = pytest.mark.real
OWN = "/apis/ebb.dev/v1"


class World:
    """`truth` writes what autoscaler and honest nodes write; `attacker` is node-1's way to speak."""

    def __init__(self, api: Client, truth: Store, attacker: Store) -> None:
        self.api, self.truth, self.attacker = api, truth, attacker
        self._probes = 0

    async def forge(self, name: str, **lies: Any) -> None:
        """node-1 puts an instance of the service under a key of its own."""
        plan = {"instance": name, "project": "default", "revision": "hello-00001", "service": "hello", "node": "node-1"}
        news = Instance(**(plan | {"phase": Phase.READY} | lies))
        await self.attacker.put(keys.instance("node-1", name), encode(news))

    async def instances(self) -> set[str]:
        answer = await self.api.http.get(f"{OWN}/namespaces/default/instances")
        return {item["instance"] for item in answer.json()["items"]}

    async def heard_all(self) -> None:
        """Wait until what node-1 wrote so far has come to the registry: the next that it says of what it was given is shown."""
        self._probes += 1
        name = f"probe-{self._probes}"
        given = Assignment(instance=name, project="default", revision="probe-1", service="probe", node="node-1", goal="run")
        await self.truth.put(keys.assignment("node-1", name), encode(given))
        await self.forge(name, revision="probe-1", service="probe")

        async def shown() -> bool:
            return name in await self.instances()

        await eventually_async(shown)
        await self.truth.delete(keys.assignment("node-1", name))

        async def hidden() -> bool:
            return name not in await self.instances()

        await eventually_async(hidden, "what was taken from its node is not shown, whatever that says")


@pytest.fixture
async def world(secure: real.Secure, tmp_path: Path) -> AsyncIterator[World]:
    await secure.wiped()
    async with AsyncExitStack() as stack:
        honest = Who("nodeagent", "n1")
        bus_server = await stack.enter_async_context(real.secure_nats(secure.cluster, Who("registry", "test"), honest))
        bus = await open_bus(bus_server.url, honest.uri, secure.identity(honest.role, honest.name))
        truth = await open_store(secure.etcd.address, secure.identity("autoscaler"))
        attacker = await open_store(secure.gate.address, secure.identity("nodeagent", "node-1"))
        for opened in (truth, bus, attacker):
            stack.push_async_callback(opened.close)
        identity = str(secure.identity("registry").directory)
        server = make_registry(tmp_path, secure.etcd.address, bus_server.url, "--identity", identity, "--member", "test")
        server.spawn()
        stack.callback(lambda: print(server.log()[-20_000:]))
        stack.callback(server.stop)
        await server.answering()
        await stack.enter_async_context(playing(truth, bus))
        api = Client(server.url)
        stack.push_async_callback(api.http.aclose)
        yield World(api, truth, attacker)


async def test_a_false_instance_is_neither_shown_nor_counted(world: World) -> None:
    await world.api.create(service())
    await world.api.until("True")
    await world.forge("hello-00001-x")
    await world.forge("hello-00001-i")  # as the honest one is called, which is another node's
    await world.forge("other-1-x", project="other")
    await world.attacker.put(keys.node("node-1"), encode(Node(node="n1", cpu_m=1, memory_bytes=1)))
    await world.heard_all()
    items = (await world.api.http.get(f"{OWN}/namespaces/default/instances")).json()["items"]
    assert [(item["instance"], item["node"]) for item in items] == [("hello-00001-i", "n1")]
    assert (await world.api.http.get(f"{OWN}/namespaces/other/instances")).json()["items"] == []
    nodes = (await world.api.http.get(f"{OWN}/nodes")).json()["items"]
    assert [(node["node"], node["cpu_m"], node["instances"]) for node in nodes] == [("n1", 4000, 1)]
    async with world.api.http.stream("GET", f"{OWN}/top") as stream:
        line = await anext(stream.aiter_lines())
    assert '"instances":{"Ready":1}' in line
    assert '"instances":{"Ready":2}' not in line
    revision = await world.api.get("hello-00001", "revisions")
    assert revision["status"]["actualReplicas"] == 1


async def test_a_false_instance_does_not_hold_up_a_name_that_is_used_again(world: World) -> None:
    await world.api.create(service())
    await world.api.until("True")
    await world.forge("hello-00001-x")
    await world.heard_all()
    assert (await world.api.http.delete(world.api.path(name="hello"))).status_code == 200
    await world.api.create(service(image="hello:v2"))
    await world.api.until("True")
