"""Who has no certificate of the cluster's authority, or one that is not good any more, is nobody at the store; the honest go on.

A real etcd and a real gate on the other side.
"""

import asyncio
import shutil
import time
from pathlib import Path

import grpc.aio
import pytest

from process.identity import Identity, Who
from store import keys
from store.errors import Forbidden, Unavailable
from store.etcd import EtcdStore
from tests import real
from tests.eventually import eventually_async
from tests.integration.between.conftest import Opening

pytestmark = pytest.mark.real


def expired(secure: real.Secure, where: Path, role: str) -> Identity:
    secure.cluster.identities.issue(Who(role, "test"), where, time.time() - 7200)
    return Identity(where)


@pytest.mark.parametrize("server", ["etcd", "gate"])
@pytest.mark.parametrize("how", ["plain text", "another authority", "expired"])
async def test_the_store_is_shut_to(how: str, server: str, secure: real.Secure, opening: Opening, tmp_path: Path) -> None:
    address = {"etcd": secure.etcd.address, "gate": secure.gate.address}[server]
    identity = {
        "plain text": lambda: None,
        "another authority": lambda: real.Cluster(tmp_path / "other").identity("registry"),
        "expired": lambda: expired(secure, tmp_path / "expired", "registry"),
    }[how]()
    if how == "another authority":
        (tmp_path / "other" / "registry-test" / "ca.crt").write_bytes(secure.cluster.identities.certificate.read_bytes())
    with pytest.raises(Unavailable):
        await opening(address, identity, 0.7).get(keys.NODES)


@pytest.mark.parametrize("role", ["nodeagent", "ingress", "nats", "cli"])
async def test_etcd_itself_is_shut_to_all_but_registry_autoscaler_and_gate(
    role: str, secure: real.Secure, opening: Opening
) -> None:
    with pytest.raises(Unavailable):
        await opening(secure.etcd.address, secure.identity(role, "node-1"), 0.7).get(keys.NODES)


@pytest.mark.parametrize("role", ["cli", "nats", "etcd"])
async def test_the_gate_gives_nothing_to_a_role_that_has_no_business_there(
    role: str, secure: real.Secure, opening: Opening
) -> None:
    with pytest.raises(Forbidden, match=f"ebb://{role}/test may not read"):
        await opening(secure.gate.address, secure.identity(role)).get(keys.NODES)


async def test_a_client_does_not_take_an_ingress_for_the_store(secure: real.Secure, opening: Opening, tmp_path: Path) -> None:
    server = grpc.aio.server()
    own = secure.identity("ingress").material()
    pair = [(own.key, own.certificate)]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, own.authority, True))
    await server.start()
    try:
        with pytest.raises(Unavailable, match="no answer"):
            await opening(f"127.0.0.1:{port}", secure.identity("nodeagent"), 0.7).get(keys.NODES)
    finally:
        await server.stop(0)


async def test_who_is_shut_out_is_refused_within_a_second_though_its_certificate_is_good(
    secure: real.Secure, truth: EtcdStore, opening: Opening
) -> None:
    lost = opening(secure.gate.address, secure.identity("nodeagent", "lost"))
    await lost.put(keys.node("lost"), b"")
    revoked = secure.cluster.directory / "gate-test" / "revoked"
    revoked.write_text("ebb://nodeagent/lost\n")
    try:

        async def refused() -> bool:
            try:
                await lost.get(keys.node("lost"))
            except Forbidden:
                return True
            return False

        await eventually_async(refused, "the gate has looked again, as it does each second", timeout_s=5)
        other = opening(secure.gate.address, secure.identity("nodeagent", "node-2"))
        await other.put(keys.node("node-2"), b"")
        revoked.unlink()
        revoked.mkdir()
        await asyncio.sleep(2.5)  # twice as long as it takes to look again
        assert await refused(), "a list that cannot be read shuts out whom it did before"
    finally:
        shutil.rmtree(revoked)


async def test_a_certificate_that_ran_out_is_good_for_no_call_and_a_renewed_one_is_taken_while_running(
    secure: real.Secure, truth: EtcdStore, opening: Opening, tmp_path: Path
) -> None:
    brief = real.Cluster(secure.cluster.directory, lifetime_s=3)
    where = tmp_path / "own"
    brief.identities.issue(Who("nodeagent", "node-1"), where, time.time())
    client = opening(secure.gate.address, Identity(where), 1)
    await client.put(keys.node("node-1"), b"")
    watch = client.watch(keys.assignments("node-1"), after=(await truth.list("")).store_rev)
    hearing = asyncio.ensure_future(anext(watch))

    async def over() -> bool:
        try:
            await client.get(keys.node("node-1"))
        except Unavailable:
            return True
        return False

    await eventually_async(over, timeout_s=8)
    secure.cluster.identities.issue(Who("nodeagent", "node-1"), where, time.time())

    async def again() -> bool:
        return not await over()

    await eventually_async(again, timeout_s=8)
    await truth.put(keys.assignment("node-1", "a"), b"")
    async with asyncio.timeout(10):
        assert [change.key for change in await hearing] == [keys.assignment("node-1", "a")]


async def test_when_the_gate_dies_its_clients_go_on_with_the_next_and_miss_nothing(
    secure: real.Secure, truth: EtcdStore, opening: Opening, tmp_path: Path
) -> None:
    gate = real.make_gate(tmp_path, secure.cluster, secure.etcd.address)
    gate.spawn()
    await gate.answering()
    try:
        node = opening(gate.address, secure.identity("nodeagent", "node-1"))
        lease = await node.grant(30)
        await node.put(keys.node("node-1"), b"", lease=lease)
        watch = node.watch(keys.assignments("node-1"), after=(await truth.list("")).store_rev)
        hearing = asyncio.ensure_future(anext(watch))
        gate.kill()
        await truth.put(keys.assignment("node-1", "meanwhile"), b"")
        await gate.restart()
        async with asyncio.timeout(10):
            assert [change.key for change in await hearing] == [keys.assignment("node-1", "meanwhile")]
        assert await node.keep_alive(lease) > 20
    finally:
        gate.stop()
