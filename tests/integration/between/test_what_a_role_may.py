"""What a component may at the store: an attacker with a good certificate, be it a node's or a front door's, does what its role says.

A real etcd and a real gate on the other side.
"""

import asyncio
from typing import Any

import grpc.aio
import pytest

from process.identity import STORE
from store import keys
from store.channel import credentials
from store.errors import Forbidden, LeaseLost
from store.etcd import EtcdStore
from store.model import Assignment, EnvRef, Revision, encode
from store.pb import rpc_pb2 as pb
from store.txn import Delete, Guard, Put, Txn
from tests import real
from tests.eventually import eventually_async
from tests.integration.between.conftest import Opening

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    "key",
    [
        keys.node("node-2"),
        keys.instance("node-2", "app-1"),
        keys.assignment("node-1", "app-1"),
        keys.revision("p", "r"),
        keys.route("p", "r"),
        keys.member("ingress", "me"),
        keys.secret("p", "s"),
        keys.project("p"),
        keys.GATE_LEASES,
        "/ebb/nodes/node-1/more",
        "/ebb/instances/node-10/x",
        "/elsewhere",
    ],
)
async def test_a_node_writes_nothing_but_itself_and_its_instances(key: str, node_1: EtcdStore, truth: EtcdStore) -> None:
    await truth.put(key, b"as it was")
    with pytest.raises(Forbidden, match="ebb://nodeagent/node-1 may not write"):
        await node_1.put(key, b"forged")
    with pytest.raises(Forbidden):
        await node_1.delete(key)
    mine = Put(keys.instance("node-1", "mine"), b"")
    with pytest.raises(Forbidden):
        await node_1.commit(Txn(writes=(mine, Put(key, b"forged"))))
    with pytest.raises(Forbidden):
        await node_1.commit(Txn(writes=(mine, Delete(key))))
    entry = await truth.get(key)
    assert entry is not None
    assert entry.value == b"as it was"
    assert await truth.get(mine.key) is None


async def test_a_node_writes_itself_and_its_instances(node_1: EtcdStore, truth: EtcdStore) -> None:
    lease = await node_1.grant(30)
    await node_1.put(keys.node("node-1"), b"1", lease=lease)
    await node_1.commit(Txn(writes=(Put(keys.instance("node-1", "a"), b"2", lease),)))
    assert await node_1.keep_alive(lease) > 20
    assert {entry.key for entry in (await truth.list(keys.NODES)).entries} == {keys.node("node-1")}
    assert [entry.value for entry in (await node_1.list(keys.instances("node-1"))).entries] == [b"2"]
    await node_1.revoke(lease)
    assert await truth.get(keys.node("node-1")) is None


@pytest.mark.parametrize(
    "prefix", [keys.assignments("node-2"), keys.ASSIGNMENTS, keys.INSTANCES, keys.OBJECTS, keys.CERTIFICATES, keys.ROOT, ""]
)
async def test_a_node_neither_reads_nor_watches_what_is_not_its_own(prefix: str, node_1: EtcdStore, truth: EtcdStore) -> None:
    with pytest.raises(Forbidden):
        await node_1.list(prefix)
    with pytest.raises(Forbidden):
        await node_1.count(prefix)
    with pytest.raises(Forbidden):
        await anext(node_1.watch(prefix, after=0))


async def test_nothing_can_be_guessed_by_a_transaction_that_compares(node_1: EtcdStore, truth: EtcdStore) -> None:
    with pytest.raises(Forbidden, match="may not compare"):
        await node_1.commit(Txn((Guard(keys.secret("p", "s"), 0),), (Put(keys.node("node-1"), b""),)))


async def test_a_lease_is_its_owners_though_its_number_is_known(
    secure: real.Secure, node_1: EtcdStore, truth: EtcdStore, opening: Opening
) -> None:
    node_2 = opening(secure.gate.address, secure.identity("nodeagent", "node-2"))
    lease = await node_2.grant(30)
    await node_2.put(keys.node("node-2"), b"", lease=lease)
    for attempt in (node_1.revoke, node_1.keep_alive):
        with pytest.raises(Forbidden, match=f"has no lease {lease:x}"):
            await attempt(lease)
    with pytest.raises(Forbidden):
        await node_1.put(keys.node("node-1"), b"", lease=lease)
    assert await truth.get(keys.node("node-2")) is not None
    await node_2.revoke(lease)
    with pytest.raises(LeaseLost):
        await node_2.keep_alive(lease)


async def raw(secure: real.Secure, method: str, request: bytes) -> grpc.StatusCode:
    """The code that a call of node-1, made of these bytes, is answered with."""
    own = secure.identity("nodeagent", "node-1").material()
    options = (("grpc.ssl_target_name_override", STORE),)
    async with grpc.aio.secure_channel(secure.gate.address, credentials(own), options=options) as channel:
        try:
            await channel.unary_unary(method)(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def test_what_etcd_knows_and_the_gate_does_not_is_not_passed_on(secure: real.Secure, truth: EtcdStore) -> None:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    forged = pb.PutRequest(key=keys.node("node-2").encode(), value=b"forged").SerializeToString()
    nested = field(
        2, field(4, field(2, field(2, forged)))
    )  # a transaction inside of one: success → request_txn → success → put
    assert await raw(secure, "/etcdserverpb.KV/Txn", nested) == grpc.StatusCode.PERMISSION_DENIED
    for method in ("/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.Auth/AuthEnable", "/etcdserverpb.Lease/LeaseLeases"):
        assert await raw(secure, method, b"") == grpc.StatusCode.UNIMPLEMENTED
    assert await raw(secure, "/etcdserverpb.KV/Compact", b"") == grpc.StatusCode.PERMISSION_DENIED
    everything = pb.DeleteRangeRequest(key=keys.instances("node-1").encode(), range_end=b"\0").SerializeToString()
    assert await raw(secure, "/etcdserverpb.KV/DeleteRange", everything) == grpc.StatusCode.PERMISSION_DENIED
    assert await truth.get(keys.node("node-2")) is None


async def run(truth: EtcdStore, node: str, revision: str, **more: Any) -> str:
    """A revision of project `p`, and an instance of it on `node`; the key of its assignment."""
    made = Revision(project="p", name=revision, image="h/i@sha256:0", **more)
    await truth.put(keys.revision("p", revision), encode(made))
    key = keys.assignment(node, f"{revision}-1")
    wanted = Assignment(instance=f"{revision}-1", project="p", revision=revision, node=node, goal="run")
    await truth.put(key, encode(wanted))
    return key


async def test_a_node_reads_the_secrets_of_what_it_runs_for_as_long_as_it_runs_it(node_1: EtcdStore, truth: EtcdStore) -> None:
    for name in ("mine", "pull", "other"):
        await truth.put(keys.secret("p", name), name.encode())
    await truth.put(keys.secret("q", "mine"), b"of another project")
    await run(truth, "node-2", "theirs", env_refs=[EnvRef(name="A", secret="other", key="k")])
    with pytest.raises(Forbidden):
        await node_1.get(keys.secret("p", "mine"))
    key = await run(truth, "node-1", "ours", env_refs=[EnvRef(name="A", secret="mine", key="k")], pull_secrets=["pull"])
    assert [entry.value for entry in (await node_1.list(keys.SECRETS)).entries] == [b"mine", b"pull"]
    assert await node_1.count(keys.SECRETS) == 2
    assert await node_1.get(keys.revision("p", "ours")) is not None
    for forbidden in (keys.secret("p", "other"), keys.secret("q", "mine"), keys.revision("p", "theirs")):
        with pytest.raises(Forbidden):
            await node_1.get(forbidden)
    await truth.delete(key)

    async def forgotten() -> bool:
        return not (await node_1.list(keys.SECRETS)).entries

    await eventually_async(forgotten)
    with pytest.raises(Forbidden):
        await node_1.get(keys.secret("p", "mine"))


async def test_a_node_hears_of_changes_of_its_own_secrets_alone(node_1: EtcdStore, truth: EtcdStore) -> None:
    await run(truth, "node-1", "ours", env_refs=[EnvRef(name="A", secret="mine", key="k")])
    after = await truth.put(keys.secret("p", "other"), b"0")
    watch = node_1.watch(keys.SECRETS, after=after)
    hearing = asyncio.ensure_future(anext(watch))
    await truth.put(keys.secret("p", "other"), b"theirs")
    await truth.put(keys.secret("p", "mine"), b"ours")
    async with asyncio.timeout(10):
        assert [(change.key, change.value) for change in await hearing] == [(keys.secret("p", "mine"), b"ours")]


@pytest.mark.parametrize("prefix", [keys.SECRETS, keys.CONFIGS, keys.OBJECTS, keys.REVISIONS, keys.ACCOUNTS])
async def test_the_front_door_which_faces_the_world_reads_no(
    prefix: str, secure: real.Secure, truth: EtcdStore, opening: Opening
) -> None:
    ingress = opening(secure.gate.address, secure.identity("ingress"))
    assert (await ingress.list(keys.ROUTES)).entries == ()
    with pytest.raises(Forbidden):
        await ingress.list(prefix)
    with pytest.raises(Forbidden):
        await ingress.put(prefix + "p/x", b"")
    with pytest.raises(Forbidden):
        await ingress.put(keys.route("p", "x"), b"")


async def test_the_front_door_reads_assignments_and_writes_none(
    secure: real.Secure, truth: EtcdStore, opening: Opening
) -> None:
    ingress = opening(secure.gate.address, secure.identity("ingress"))
    await truth.put(keys.assignment("node-1", "a"), b"given")
    assert [entry.value for entry in (await ingress.list(keys.ASSIGNMENTS)).entries] == [b"given"]
    for key in (keys.assignment("node-1", "a"), keys.instance("node-1", "a")):
        with pytest.raises(Forbidden):
            await ingress.put(key, b"forged")


async def test_the_front_door_hears_of_assignments_that_come_and_go_and_not_of_each_start(
    secure: real.Secure, truth: EtcdStore, opening: Opening
) -> None:
    ingress, key = opening(secure.gate.address, secure.identity("ingress")), keys.assignment("node-1", "a")
    after = await truth.put(keys.node("node-1"), b"")
    watch, route = ingress.watch(keys.ASSIGNMENTS, after=after), ingress.watch(keys.ROUTES, after=after)
    for value in (b"park", b"run"):
        await truth.put(key, value)
        await truth.put(keys.route("p", "r"), value)
    await truth.delete(key)
    await truth.put(key, b"again")
    async with asyncio.timeout(10):
        found = [change.value for _ in range(3) for change in await anext(watch)]
        assert [change.value for _ in range(2) for change in await anext(route)] == [b"park", b"run"]
    assert found == [b"park", None, b"again"]
