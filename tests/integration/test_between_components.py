"""Between the processes: who has no certificate of the cluster's authority is nobody, and who has one does what its role says, no more.

Each test plays an attacker, with a real etcd, gate and NATS on the other side.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from process.identity import STORE, Identity, Who
from store import keys
from store.bus import Bus
from store.channel import credentials
from store.connect import open_bus
from store.errors import Forbidden, LeaseLost, Unavailable
from store.etcd import EtcdStore
from store.messages import drained, instance
from store.model import Assignment, EnvRef, Revision, encode
from store.pb import rpc_pb2 as pb
from store.roles import subjects
from store.txn import Delete, Guard, Put, Txn
from tests import real
from tests.eventually import eventually, eventually_async

pytestmark = pytest.mark.real
Opening = Callable[..., EtcdStore]


@pytest.fixture
async def opening() -> AsyncIterator[Opening]:
    """Makes clients that are closed after the test."""
    made: list[EtcdStore] = []

    def open_(address: str, identity: Identity | None = None, deadline_s: float = 5) -> EtcdStore:
        made.append(EtcdStore(address, identity=identity, deadline_s=deadline_s))
        return made[-1]

    yield open_
    for client in made:
        await client.close()


@pytest.fixture
async def truth(secure: real.Secure, opening: Opening) -> EtcdStore:
    """What really stands in etcd, without any key at first."""
    await secure.wiped()
    return opening(secure.etcd.address, secure.identity("registry"))


@pytest.fixture
async def node_1(secure: real.Secure, truth: EtcdStore, opening: Opening) -> EtcdStore:
    return opening(secure.gate.address, secure.identity("nodeagent", "node-1"))


# -- who gets in ---------------------------------------------------------------------------------------------------------------


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

        began = time.monotonic()
        await eventually_async(refused)
        assert time.monotonic() - began < 2
        other = opening(secure.gate.address, secure.identity("nodeagent", "node-2"))
        await other.put(keys.node("node-2"), b"")
        revoked.unlink()
        revoked.mkdir()
        await asyncio.sleep(2.5)  # twice as long as it takes to look again
        assert await refused(), "a list that cannot be read shuts out whom it did before"
    finally:
        shutil.rmtree(revoked)


# -- node-1 as node-2 ----------------------------------------------------------------------------------------------------------


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


# -- secrets -------------------------------------------------------------------------------------------------------------------


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


# -- the gate's and the certificates' ends -------------------------------------------------------------------------------------


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


# -- NATS ----------------------------------------------------------------------------------------------------------------------


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


@pytest.fixture
async def buses(secure: real.Secure) -> AsyncIterator[dict[str, Bus]]:
    """One client each, of a NATS where store/roles.py holds."""
    known = [
        Who("nodeagent", "node-1"),
        Who("nodeagent", "node-2"),
        Who("ingress", "a"),
        Who("autoscaler", "a"),
        Who("registry", "a"),
    ]
    async with real.secure_nats(secure.cluster, *known) as server:
        made = {}
        for who in known:
            made[who.name if who.role == "nodeagent" else who.role] = await open_bus(
                server.url, who.uri, secure.identity(who.role, who.name)
            )
        made["cli"] = await open_bus(server.url, "cli", secure.identity("cli"))
        made["plain"] = await open_bus(server.url, "plain")
        yield made
        for bus in made.values():
            await bus.close()


async def heard(bus: Bus, subject: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    await bus.handle(subject, lambda where, data: found.append((where, data)))
    return found


async def test_the_bus_is_shut_to_who_has_no_certificate_or_no_business_there(buses: dict[str, Bus]) -> None:
    assert {name for name, bus in buses.items() if not bus.connected} == {"cli", "plain"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("speaker", "forged", "allowed", "hearer"),
    [
        ("node-1", instance("node-2"), instance("node-1"), "ingress"),
        ("node-1", "ebb.refusal", instance("node-1"), "ingress"),
        ("ingress", instance("node-1"), "ebb.wake", "autoscaler"),
        ("ingress", "ebb.refusal", "ebb.wake", "autoscaler"),
        ("autoscaler", drained("node-1"), "ebb.story", "registry"),
        ("node-1", "ebb.usage.node-2", "ebb.usage.node-1", "autoscaler"),
        ("node-1", "ebb.samples", "ebb.usage.node-1", "autoscaler"),
        ("node-1", "ebb.wake", "ebb.usage.node-1", "autoscaler"),
        ("ingress", "ebb.usage.node-1", "ebb.samples", "autoscaler"),
        ("ingress", "ebb.identity.node-1", "ebb.story", "registry"),
        ("node-1", "ebb.identity.node-2", "ebb.story", "registry"),
        ("node-1", "ebb.image.progress.node-2", "ebb.image.progress.node-1", "registry"),
    ],
)
async def test_on_the_bus_nobody_speaks_for_another(
    speaker: str, forged: str, allowed: str, hearer: str, buses: dict[str, Bus]
) -> None:
    # Only what the hearer may hear could reach it: each subject of its role by itself.
    _, hears = subjects(hearer, "a")
    found = [await heard(buses[hearer], each) for each in hears]
    buses[speaker].publish(forged, b"forged")
    buses[speaker].publish(allowed, b"true")

    async def came() -> bool:
        return any((allowed, b"true") in each for each in found)

    await eventually_async(came)
    assert not any(data == b"forged" for each in found for _, data in each)


async def test_answers_are_heard_by_who_asked_alone(buses: dict[str, Bus]) -> None:
    overheard = await heard(buses["node-2"], "_INBOX.>")

    async def answer(data: bytes) -> bytes:
        return b"for your ears"

    await buses["node-1"].respond("ebb.image.resolve", answer)
    assert await buses["registry"].request("ebb.image.resolve", b"", timeout_s=5) == b"for your ears"
    last = await heard(buses["node-2"], drained("node-2"))
    buses["ingress"].publish(drained("node-2"), b"last")
    await eventually(lambda: last)
    assert overheard == []
