"""What the registry asks of node agents over TLS: only a registry is answered, and only by the node that it meant.

Each test plays an attacker on one of the two sides.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from nodeagent.server import Server
from process.identity import AGENT, BadIdentity, Identity, Who
from process.run import Jobs
from process.settings import BadSettings
from registry.nodes import NodeAgents, NodeError
from store.messages import LogLine
from store.model import Node, encode
from tests import real
from tests.eventually import eventually_async

pytestmark = pytest.mark.real


class Agent:
    """The door of a node agent that has `identity`. `heard` is what got through it."""

    def __init__(self, identity: Identity | None) -> None:
        self.heard: list[str] = []
        self.jobs = Jobs("test")
        self.server = Server(identity, [("GET", "/logs", self._logs), ("POST", "/images/import", self._import)])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(str(request.rel_url))
        line = LogLine(at=1, instance="a-1", revision="a", stream="stdout", line="secret")
        return web.Response(body=encode(line) + b"\n")

    async def _import(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((await request.read()).decode())
        return web.json_response({"images": []})


Starting = Callable[[Identity | None], Any]


@pytest.fixture
async def starting() -> AsyncIterator[Starting]:
    made: list[Agent] = []

    async def start(identity: Identity | None) -> Agent:
        made.append(Agent(identity))
        await made[-1].server.start("127.0.0.1:0", made[-1].jobs)
        return made[-1]

    yield start
    for agent in made:
        await agent.server.stop()
        await agent.jobs.cancel()


@pytest.fixture
def cluster(tmp_path: Path) -> real.Cluster:
    return real.Cluster(tmp_path / "cluster")


def node(name: str, address: str) -> Node:
    return Node(node=name, cpu_m=1, memory_bytes=1, address=address)


async def status(address: str, how: ssl.SSLContext | bool) -> int:
    """What a GET of /logs is answered with, by TLS or, with False, in the clear."""
    scheme = "https" if how else "http"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{scheme}://{address}/logs", ssl=how or True, server_hostname=AGENT if how else None) as answer:
            return answer.status


# -- who asks ------------------------------------------------------------------------------------------------------------------


async def test_a_registry_is_answered(cluster: real.Cluster, starting: Starting, tmp_path: Path) -> None:
    agent = await starting(cluster.identity("nodeagent", "node-1"))
    agents = NodeAgents(lambda: [node("node-1", agent.address)], cluster.identity("registry"))
    archive = tmp_path / "archive"
    archive.write_text("an image")
    try:
        assert [line.line for line in await agents.recent({"tail": "1"}, 1)] == ["secret"]
        await agents.import_image(node("node-1", agent.address), archive, "a:v1", None)
    finally:
        await agents.close()
    assert agent.heard == ["/logs?tail=1", "an image"]


@pytest.mark.parametrize("role", ["ingress", "autoscaler", "nodeagent", "gate", "nats", "cli"])
async def test_no_other_role_is_answered(role: str, cluster: real.Cluster, starting: Starting) -> None:
    agent = await starting(cluster.identity("nodeagent", "node-1"))
    assert await status(agent.address, cluster.identity(role, "node-1").client()) == 403
    assert agent.heard == []


@pytest.mark.parametrize("how", ["plain text", "no certificate", "another authority", "expired"])
async def test_the_door_is_shut_to(how: str, cluster: real.Cluster, starting: Starting, tmp_path: Path) -> None:
    agent = await starting(cluster.identity("nodeagent", "node-1"))
    bare = ssl.create_default_context(cafile=str(cluster.identities.certificate))
    other = real.Cluster(tmp_path / "other").issue("registry")
    (other / "ca.crt").write_bytes(cluster.identities.certificate.read_bytes())
    cluster.identities.issue(Who("registry", "old"), tmp_path / "old", time.time() - 7200)
    context: dict[str, ssl.SSLContext | bool] = {
        "plain text": False,
        "no certificate": bare,
        "another authority": Identity(other).client(),
        "expired": Identity(tmp_path / "old").client(),
    }
    with pytest.raises(aiohttp.ClientError):
        await status(agent.address, context[how])
    assert agent.heard == []


async def test_a_connection_that_outlives_its_certificate_is_answered_no_more(
    cluster: real.Cluster, starting: Starting, tmp_path: Path
) -> None:
    agent = await starting(cluster.identity("nodeagent", "node-1"))
    brief = real.Cluster(cluster.directory, lifetime_s=4)
    brief.identities.issue(Who("registry", "brief"), tmp_path / "brief", time.time())
    how = {"ssl": Identity(tmp_path / "brief").client(), "server_hostname": AGENT}
    async with aiohttp.ClientSession() as http:

        async def asked() -> int:
            async with http.get(f"https://{agent.address}/logs", **how) as answer:
                return answer.status

        assert await asked() == 200

        async def shut() -> bool:
            return await asked() == 403

        # The connection is kept: another one would fail at its handshake.
        await eventually_async(shut, timeout_s=8)


async def test_without_an_identity_it_listens_on_loopback_alone() -> None:
    agent = Agent(None)
    with pytest.raises(BadSettings, match=r"--listen 0\.0\.0\.0:0: beyond loopback .* --identity"):
        await agent.server.start("0.0.0.0:0", agent.jobs)


# -- who answers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "name"), [("nodeagent", "node-1"), ("ingress", "node-2"), ("registry", "node-2")])
async def test_none_but_node_2_is_taken_for_node_2_and_not_a_byte_is_sent_to_another(
    role: str, name: str, cluster: real.Cluster, starting: Starting, tmp_path: Path
) -> None:
    false = await starting(cluster.identity(role, name))
    there = node("node-2", false.address)
    archive = tmp_path / "archive"
    archive.write_text("of a tenant")
    agents = NodeAgents(lambda: [there], cluster.identity("registry"))
    try:
        with pytest.raises(NodeError, match="node-2") as refused:
            await agents.import_image(there, archive, "a:v1", "shop")
        assert refused.value.status == 502
        assert await agents.recent({}, 10) == []
    finally:
        await agents.close()
    assert false.heard == []


async def test_node_1_that_gives_the_address_of_node_2_as_its_own_is_not_asked_there(
    cluster: real.Cluster, starting: Starting
) -> None:
    second = await starting(cluster.identity("nodeagent", "node-2"))
    both = [node("node-2", second.address), node("node-1", second.address)]
    agents = NodeAgents(lambda: both, cluster.identity("registry"))
    try:
        # One after the other: the connection to node-2 is there to be used when node-1 is asked.
        for _ in range(2):
            assert len(await agents.recent({}, 10)) == 1
    finally:
        await agents.close()
    assert len(second.heard) == 2


# -- renewal -------------------------------------------------------------------------------------------------------------------


async def test_certificates_of_both_sides_are_renewed_while_they_run(starting: Starting, tmp_path: Path) -> None:
    brief = real.Cluster(tmp_path / "cluster", lifetime_s=4)
    agent = await starting(brief.identity("nodeagent", "node-1"))
    there = node("node-1", agent.address)
    agents = NodeAgents(lambda: [there], brief.identity("registry"))
    try:
        until = time.monotonic() + 9
        while time.monotonic() < until:
            assert len(await agents.recent({}, 10)) == 1, "refused, though both were renewed in time"
            for role, name in (("nodeagent", "node-1"), ("registry", "test")):
                brief.issue(role, name)
            await asyncio.sleep(0.4)
    finally:
        await agents.close()


async def test_an_identity_that_is_away_is_an_error_of_that_call(cluster: real.Cluster, starting: Starting) -> None:
    agent = await starting(cluster.identity("nodeagent", "node-1"))
    there, own = node("node-1", agent.address), cluster.identity("registry")
    (own.directory / "own.pem").rename(own.directory / "away")
    agents = NodeAgents(lambda: [there], own)
    try:
        with pytest.raises(NodeError, match="registry-test"):
            await agents.images(there, None)
        assert await agents.recent({}, 10) == []
        with pytest.raises(BadIdentity):
            own.client()
    finally:
        await agents.close()
