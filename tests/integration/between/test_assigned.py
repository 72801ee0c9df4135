"""A node that was taken over tells the front door of instances that nobody gave it: none of them gets a request.

The attacker is node-1, with its own good certificate, at a real gate, etcd and NATS. node-2 is honest. The front door is real too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ingress.service import Ingress
from process.clock import SystemClock
from process.identity import Who
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.connect import open_bus, open_store
from store.errors import Forbidden
from store.lifecycle import Phase
from store.model import Assignment, Instance, Limits, RouteEntry, TrafficTarget, encode
from tests import real
from tests.eventually import eventually, eventually_async
from tests.integration.ingress.door import Recorder, instance

pytestmark = pytest.mark.real
HOST = "pay.default.localhost"
REVISION = "default/pay-1"


class World:
    """`truth` writes what registry and autoscaler write; `nodes` and `buses` are the two agents' ways to speak."""

    def __init__(self, truth: Store, ingress: Ingress, nodes: dict[str, Store], buses: dict[str, Bus]) -> None:
        self.truth, self.ingress, self.nodes, self.buses = truth, ingress, nodes, buses
        self.honest, self.false = Recorder(), Recorder()
        self.ports = {"node-1": 0, "node-2": 0}
        self._seq = 0

    async def give(self, name: str, node: str, revision: str = "pay-1", service: str = "pay") -> None:
        """The autoscaler has `node` run an instance."""
        given = Assignment(instance=name, project="default", revision=revision, service=service, node=node, goal="run")
        await self.truth.put(keys.assignment(node, name), encode(given))

    def news(self, name: str, node: str, phase: Phase = Phase.READY, **changes: Any) -> Instance:
        """What `node` says of an instance, by default that it is Ready at its own port."""
        self._seq += 1
        plan = {"project": "default", "revision": "pay-1", "service": "pay", "address": f"127.0.0.1:{self.ports[node]}"}
        return Instance(instance=name, node=node, phase=phase, seq=self._seq, **(plan | changes))

    async def store(self, node: str, news: Instance) -> None:
        await self.nodes[node].put(keys.instance(node, news.instance), encode(news))

    def tell(self, node: str, news: Instance) -> None:
        self.buses[node].publish(messages.instance(node), encode(news))

    @property
    def targets(self) -> dict[str, Any]:
        return self.ingress.admitter.throttler(REVISION).targets

    async def heard_all(self) -> None:
        """Wait until what was stored and told so far has come to the front door."""
        await self.give("probe", "node-1", "probe-1", "")
        await self.give("probe", "node-2", "probe-1", "")
        for node in self.nodes:
            news = self.news("probe", node, revision="probe-1", service="probe")
            await self.store(node, news)
            self.tell(node, news)
            target = self.ingress.admitter.throttler("default/probe-1").targets
            await eventually(lambda target=target, seq=news.seq: target["probe"].seq >= seq if "probe" in target else False)

    async def get(self, timeout_s: float = 10) -> bytes:
        """The status line of a request, or what there is of it after `timeout_s`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ingress.listener.port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.readline()
        except TimeoutError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def world(secure: real.Secure) -> AsyncIterator[World]:
    await secure.wiped()
    nodes = [Who("nodeagent", "node-1"), Who("nodeagent", "node-2")]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(real.secure_nats(secure.cluster, *nodes, Who("ingress", "a")))

        async def closed(what: Any) -> Any:
            stack.push_async_callback(what.close)
            return what

        truth = await closed(await open_store(secure.etcd.address, secure.identity("autoscaler")))
        stores, buses = {}, {}
        for who in nodes:
            own = secure.identity(who.role, who.name)
            stores[who.name] = await closed(await open_store(secure.gate.address, own))
            buses[who.name] = await closed(await open_bus(server.url, who.uri, own))
        own = secure.identity("ingress", "a")
        store, bus = (
            await closed(await open_store(secure.gate.address, own)),
            await closed(await open_bus(server.url, "a", own)),
        )
        made = World(truth, Ingress(store, bus, SystemClock(), member="a", assigned_only=True), stores, buses)
        made.ports["node-1"] = await stack.enter_async_context(instance(made.false))
        made.ports["node-2"] = await stack.enter_async_context(instance(made.honest))
        shares = [TrafficTarget(revision="pay-1", percent=100)]
        route = RouteEntry(project="default", route="pay", hosts={HOST: shares}, limits={"pay-1": Limits(timeout_s=20)})
        await truth.put(keys.route("default", "pay"), encode(route))
        await made.ingress.start("127.0.0.1:0")
        yield made
        await made.ingress.drain(0.5)


async def test_an_instance_that_nobody_gave_the_node_gets_no_request(world: World) -> None:
    forged = world.news("pay-1-x", "node-1")
    await world.store("node-1", forged)
    world.tell("node-1", forged)
    await world.heard_all()
    assert world.targets == {}
    assert await world.get(0.5) == b""
    await world.give("pay-1-y", "node-2")
    await world.store("node-2", world.news("pay-1-y", "node-2"))
    for _ in range(10):
        assert await world.get() == b"HTTP/1.1 200 OK\r\n"
    assert (len(world.honest.heads), world.false.heads) == (10, [])


async def test_nor_one_that_the_node_was_given_for_another_revision(world: World) -> None:
    await world.give("mine", "node-1", "blog-1", "blog")
    forged = world.news("mine", "node-1")
    await world.store("node-1", forged)
    world.tell("node-1", forged)
    await world.heard_all()
    assert world.targets == {}
    assert world.ingress.gate.identities.resident("127.0.0.1") == ""


async def test_nor_one_that_was_given_to_another_node(world: World) -> None:
    await world.give("pay-1-y", "node-2")
    await world.store("node-2", world.news("pay-1-y", "node-2"))
    await eventually(lambda: "pay-1-y" in world.targets)
    forged = world.news("pay-1-y", "node-1")
    await world.store("node-1", forged)
    world.tell("node-1", forged)
    # Under its own name on the bus, and in its own place of etcd, it speaks in node-2's name.
    lie = world.news("pay-1-y", "node-2", Phase.STOPPED)
    world.tell("node-1", lie)
    await world.nodes["node-1"].put(keys.instance("node-1", "pay-1-y"), encode(lie))
    await world.nodes["node-1"].delete(keys.instance("node-1", "pay-1-y"))
    await world.heard_all()
    [target] = world.targets.values()
    assert (target.node, target.address) == ("node-2", f"127.0.0.1:{world.ports['node-2']}")
    assert not target.unconfirmed, "node-1 deleted what is node-2's"
    assert await world.get() == b"HTTP/1.1 200 OK\r\n"
    assert world.false.heads == []


async def test_a_node_cannot_delete_the_instance_of_another(world: World) -> None:
    await world.give("pay-1-y", "node-2")
    await world.store("node-2", world.news("pay-1-y", "node-2"))
    with pytest.raises(Forbidden):
        await world.nodes["node-1"].delete(keys.instance("node-2", "pay-1-y"))
    with pytest.raises(Forbidden):
        await world.nodes["node-1"].put(keys.assignment("node-1", "pay-1-x"), b"{}")
    assert await world.get() == b"HTTP/1.1 200 OK\r\n"


async def test_an_instance_that_was_taken_from_its_node_gets_no_more_whatever_that_says(world: World) -> None:
    for name, node in (("pay-1-x", "node-1"), ("pay-1-y", "node-2")):
        await world.give(name, node)
        await world.store(node, world.news(name, node))
    await eventually(lambda: len(world.targets) == 2)
    await world.truth.delete(keys.assignment("node-1", "pay-1-x"))
    await eventually(lambda: set(world.targets) == {"pay-1-y"})
    stays = world.news("pay-1-x", "node-1")
    await world.store("node-1", stays)
    world.tell("node-1", stays)
    await world.heard_all()
    assert set(world.targets) == {"pay-1-y"}
    for _ in range(10):
        assert await world.get() == b"HTTP/1.1 200 OK\r\n"
    assert world.false.heads == []


async def test_news_that_come_before_the_assignment_count_when_it_comes(world: World) -> None:
    world.tell("node-2", world.news("pay-1-y", "node-2"))
    await world.heard_all()
    assert world.targets == {}
    waiting = asyncio.ensure_future(world.get())
    await world.give("pay-1-y", "node-2")
    assert await waiting == b"HTTP/1.1 200 OK\r\n"
    await world.store("node-1", world.news("pay-1-x", "node-1"))
    await world.heard_all()
    await world.give("pay-1-x", "node-1")
    await eventually(lambda: set(world.targets) == {"pay-1-x", "pay-1-y"})


async def test_as_whom_an_instance_calls_its_node_does_not_say(world: World) -> None:
    who = world.ingress.gate.identities
    await world.give("mine", "node-1", "blog-1", "blog")
    await world.store("node-1", world.news("mine", "node-1", revision="blog-1", service="pay", address="10.0.0.7:80"))
    await eventually(lambda: who.resident("10.0.0.7"))
    assert who.resident("10.0.0.7") == "service:default/blog"
    await world.give("pay-1-y", "node-2")
    await world.store("node-2", world.news("pay-1-y", "node-2", address="10.0.0.7:80"))
    await world.heard_all()
    assert who.resident("10.0.0.7") == "service:default/blog", "an address is another node's"
    await world.truth.delete(keys.assignment("node-1", "mine"))

    async def nobody() -> bool:
        return who.resident("10.0.0.7") == ""

    await eventually_async(nobody)
