"""Metadata and identity tokens, asked for from inside an instance's network, with the registry's own answers."""

import asyncio
import http.client
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nodeagent.firewall import METADATA, Doors
from nodeagent.metadata import Metadata
from nodeagent.nameserver import listening
from nodeagent.network import Network, NetworkPool
from nodeagent.residents import Residents, Who
from process.clock import SystemClock
from process.run import Jobs
from registry.identities import Identities
from store import keys
from store.election import lead
from store.identity import BadToken, public_key, verify
from store.memory import MemoryStore
from store.memory_bus import MemoryHub
from store.model import Assignment, Goal, Revision, encode
from store.projects import Policy
from store.seal import Keyring, add_key
from tests.eventually import eventually
from tests.integration.netns_world import Machine, in_namespace, run_on_a_machine

pytestmark = pytest.mark.real

IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=http://pay.shop.localhost"
FLAVOR = {"Metadata-Flavor": "Google"}


def get(namespace: int, path: str, headers: dict[str, str], address: str = METADATA, port: int = 80) -> tuple[int, str]:
    """Status and body; 0: nobody answers."""

    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection(address, port, timeout=2)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    return in_namespace(namespace, ask)


class World:
    """A node with two instances that are known and a third network that is nobody's, beside a registry."""

    def __init__(self, store: MemoryStore, identities: Identities, port: int, nets: list[Network]) -> None:
        self.store, self.identities, self.port, self.nets = store, identities, port, nets

    async def get(self, net: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        return await asyncio.to_thread(get, self.nets[net].fd, path, FLAVOR if headers is None else headers)


def in_a_world(tmp_path: Path, test: Callable[[Machine, World], Awaitable[None]], node: str = "n1") -> None:
    async def body(machine: Machine) -> None:
        store, hub, clock, jobs = MemoryStore(), MemoryHub(), SystemClock(), Jobs("test")
        add_key(tmp_path / "identity.key")
        identities = Identities(store, clock, Keyring(tmp_path / "identity.key"))
        for table in identities.tables().values():
            jobs.start(table.run(), "watch")
        jobs.start(lead(store, "registry", "r1", 3, identities.lead), "lead")
        await identities.answer_nodes(hub.client())
        for number, service in ((1, "cart"), (2, "pay")):
            given = Assignment(instance=f"i{number}", project="shop", revision=f"{service}-1", node="n1", goal=Goal.RUN)
            await store.put(keys.assignment("n1", f"i{number}"), encode(given))
            revision = Revision(project="shop", name=f"{service}-1", service=service, image="x@sha256:0")
            await store.put(keys.revision("shop", f"{service}-1"), encode(revision))
        residents = Residents(lambda _: Policy(egress="none"))
        pool = NetworkPool(prefix="tn", subnet="10.77.0.0/24", run_dir=tmp_path / "run", pool_size=0)
        metadata = Metadata(residents, hub.client(), clock, node, "")
        sock = listening(pool.gateway, 0, socket.SOCK_STREAM)
        port = sock.getsockname()[1]
        await metadata.start(sock)
        pool.doors = Doors(metadata=port)
        await pool.start()
        nets = [await pool.take() for _ in range(3)]
        residents.add(nets[0].address, Who("i1", "shop", "cart-1", "cart"))
        residents.add(nets[1].address, Who("i2", "shop", "pay-1", "pay"))
        await eventually(lambda: len(identities.public), "there is a key")
        try:
            await test(machine, World(store, identities, port, nets))
        finally:
            await metadata.stop()
            await jobs.cancel()
            await pool.stop()

    run_on_a_machine(body)


def test_each_instance_gets_tokens_of_its_own_service_that_count_for_what_it_calls(tmp_path: Path) -> None:
    async def test(machine: Machine, world: World) -> None:
        public = {key.kid: public_key(key) for _, key in world.identities.public.items()}
        for net, service in ((0, "cart"), (1, "pay")):
            status, token = await world.get(net, IDENTITY)
            assert status == 200
            claims = verify(token.encode(), public, time.time())
            assert (claims.sub, claims.aud) == (f"service:shop/{service}", "http://pay.shop.localhost")
            assert await world.get(net, IDENTITY) == (200, token)  # kept until it is almost over
            with pytest.raises(BadToken):
                verify(token.encode(), public, time.time() + 4000)

    in_a_world(tmp_path, test)


def test_an_instance_learns_who_it_is(tmp_path: Path) -> None:
    async def test(machine: Machine, world: World) -> None:
        root = "/computeMetadata/v1/"
        assert await world.get(0, root + "project/project-id") == (200, "shop")
        assert await world.get(0, root + "instance/id") == (200, "i1")
        assert await world.get(1, root + "instance/service-accounts/default/email") == (200, "pay@shop.ebb.internal")
        assert (await world.get(0, root + "instance/region"))[1].endswith("/regions/local")
        assert (await world.get(0, root + "instance/service-accounts/default/token"))[0] == 404
        assert (await world.get(0, "/"))[0] == 200

    in_a_world(tmp_path, test)


def test_nothing_is_said_without_the_header_nor_to_what_was_forwarded(tmp_path: Path) -> None:
    async def test(machine: Machine, world: World) -> None:
        for headers in (
            {},
            {"Metadata-Flavor": "x"},
            {**FLAVOR, "X-Forwarded-For": "1.2.3.4"},
            {**FLAVOR, "Forwarded": "for=x"},
        ):
            status, body = await world.get(0, IDENTITY, headers)
            assert status == 403
            assert "eyJ" not in body

    in_a_world(tmp_path, test)


def test_who_is_no_instance_gets_nothing_from_wherever_it_asks(tmp_path: Path) -> None:
    async def test(machine: Machine, world: World) -> None:
        assert (await world.get(2, IDENTITY))[0] == 403
        host = await asyncio.to_thread(get, machine.host, IDENTITY, FLAVOR, "10.77.0.1", world.port)
        assert host[0] == 403
        assert await asyncio.to_thread(get, machine.neighbour, IDENTITY, FLAVOR, "10.77.0.1", world.port) == (0, "")

    in_a_world(tmp_path, test)


def test_a_node_gets_no_token_for_what_another_node_runs(tmp_path: Path) -> None:
    async def test(machine: Machine, world: World) -> None:
        status, body = await world.get(0, IDENTITY)
        assert (status, "is not of node 'n2'" in body) == (400, True)

    in_a_world(tmp_path, test, node="n2")


def test_what_is_no_service_is_no_audience(tmp_path: Path) -> None:
    async def test(machine: Machine, world: World) -> None:
        path = IDENTITY.partition("=")[0]
        assert (await world.get(0, path))[0] == 400
        assert (await world.get(0, path + "="))[0] == 400
        assert (await world.get(0, path + "=a%20b%22"))[0] == 400

    in_a_world(tmp_path, test)
