"""The name server of instances, asked from inside one, on a machine of the test's own."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.firewall import METADATA, Doors
from nodeagent.nameserver import NameServer
from nodeagent.network import Network, NetworkPool
from nodeagent.residents import Residents, Who
from process.run import Jobs
from store.projects import Policy
from tests.integration.netns_world import Machine, in_namespace, run_on_a_machine

pytestmark = pytest.mark.real

STUB = "127.0.0.53"
"""Where the machine's own name server is: an instance could not reach it."""
REFUSED, SERVFAIL = 5, 2


def query(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


class Stub(asyncio.DatagramProtocol):
    """Answers every question with 192.0.2.99, after an answer that somebody forged."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        head = struct.pack("!HHHHHH", struct.unpack_from("!H", data)[0], 0x8180, 1, 1, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, 1, 1, 9, 4)
        self.transport.sendto(bytes([head[0] ^ 1]) + head[1:] + data[12:] + record + b"evil", addr)
        self.transport.sendto(head + data[12:] + record + socket.inet_aton("192.0.2.99"), addr)


def ask(namespace: int, name: str) -> tuple[int, bytes] | None:
    """Code and last four bytes of the answer; None: there was none."""

    def exchange() -> tuple[int, bytes] | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((METADATA, 53))
            client.send(query(name))
            try:
                reply = client.recv(512)
            except TimeoutError:
                return None
            return reply[3] & 0xF, reply[-4:]

    return in_namespace(namespace, exchange)


def with_a_name_server(
    tmp_path: Path,
    policy: Policy,
    test: Callable[[Machine, Callable[..., Awaitable[object]], Network, Network], Awaitable[None]],
) -> None:
    """Run `test` with one instance that is known and one that is not."""

    async def body(machine: Machine) -> None:
        loop = asyncio.get_running_loop()
        stub, _ = await loop.create_datagram_endpoint(Stub, local_addr=(STUB, 53))
        residents, jobs = Residents(lambda _: policy), Jobs("test")
        pool = NetworkPool(prefix="tn", subnet="10.77.0.0/24", run_dir=tmp_path, pool_size=0)
        server = NameServer(residents, pool.gateway, [STUB], jobs, lambda: True)
        await server.start()
        pool.doors = Doors(inner=8101, names=server.port)
        await pool.start()
        a, b = await pool.take(), await pool.take()
        residents.add(a.address, Who("hello-1", "shop", "hello-00001", "hello"))
        try:
            await test(machine, asyncio.to_thread, a, b)
        finally:
            server.stop()
            await jobs.cancel()
            stub.close()
            await pool.stop()

    run_on_a_machine(body)


def test_an_instance_learns_names_of_the_engine_and_of_the_world_by_the_machines_own_server(tmp_path: Path) -> None:
    async def test(machine: Machine, thread: Callable[..., Awaitable[object]], a: Network, b: Network) -> None:
        assert await thread(ask, a.fd, "metadata.google.internal") == (0, socket.inet_aton(METADATA))
        assert await thread(ask, a.fd, "hello.shop.svc.cluster.local") == (0, socket.inet_aton("10.77.0.1"))
        assert await thread(ask, a.fd, "example.org") == (0, socket.inet_aton("192.0.2.99"))
        assert await thread(ask, b.fd, "example.org") is None

    with_a_name_server(tmp_path, Policy(), test)


def test_what_may_not_reach_the_world_cannot_talk_to_it_by_names(tmp_path: Path) -> None:
    async def test(machine: Machine, thread: Callable[..., Awaitable[object]], a: Network, b: Network) -> None:
        answer = await thread(ask, a.fd, "stolen.attacker.example")
        assert isinstance(answer, tuple)
        assert answer[0] == REFUSED
        assert await thread(ask, a.fd, "metadata.ebb.internal") == (0, socket.inet_aton(METADATA))

    with_a_name_server(tmp_path, Policy(egress="none"), test)


def test_names_are_asked_for_by_tcp_too(tmp_path: Path) -> None:
    async def test(machine: Machine, thread: Callable[..., Awaitable[object]], a: Network, b: Network) -> None:
        def exchange() -> bytes:
            packet = query("hello.shop.svc.cluster.local")
            with socket.create_connection((METADATA, 53), 2) as client:
                client.sendall(struct.pack("!H", len(packet)) + packet)
                return client.recv(512)

        reply = await thread(in_namespace, a.fd, exchange)
        assert isinstance(reply, bytes)
        assert reply[-4:] == socket.inet_aton("10.77.0.1")

    with_a_name_server(tmp_path, Policy(), test)
