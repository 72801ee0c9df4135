"""What an instance may connect to and how much: its egress, its project's circle, its caps. On a machine of the test's own."""

import asyncio
import os
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from nodeagent.firewall import Caps, Permit
from nodeagent.network import Network, NetworkPool
from store import egress
from tests.integration.netns_world import NEIGHBOUR, Listener, Machine, in_namespace, ip, reaches, run_on_a_machine
from tests.integration.two_instances import PRIVATE, with_two

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("text", "internet", "private"),
    [
        ("open", True, False),
        ("private", False, True),
        ("open,private", True, True),
        ("none", False, False),
        ("10.50.0.0/16:9003,10.50.0.0/24", False, True),
        ("10.50.0.0/16:9004", False, False),
        ("open,10.50.0.7:9003", True, True),
    ],
)
def test_an_instance_connects_to_what_its_egress_says(tmp_path: Path, text: str, internet: bool, private: bool) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        with in_namespace(machine.neighbour, lambda: socket.create_server(("0.0.0.0", 9003))):
            await networks.permit(a, Permit(egress.parse(text)))
            assert reaches(a.fd, NEIGHBOUR, 9003) == internet
            assert reaches(a.fd, PRIVATE, 9003) == private
            assert reaches(b.fd, NEIGHBOUR, 9003)
            await networks.permit(a, Permit())
            assert reaches(a.fd, NEIGHBOUR, 9003)
            assert not reaches(a.fd, PRIVATE, 9003)

    with_two(tmp_path, test)


def test_a_change_of_policy_ends_what_is_open(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        with in_namespace(machine.neighbour, lambda: socket.create_server((NEIGHBOUR, 9003))) as server:
            client = in_namespace(a.fd, lambda: socket.create_connection((NEIGHBOUR, 9003), 5))
            peer, _ = server.accept()
            with client, peer:
                peer.settimeout(0.3)
                client.send(b"1")
                assert peer.recv(1) == b"1"
                await networks.permit(a, Permit(egress.NONE))
                client.send(b"2")
                with pytest.raises(TimeoutError):
                    peer.recv(1)

    with_two(tmp_path, test)


def test_what_an_instance_may_outlives_the_agent(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        first = NetworkPool(prefix="tn", subnet="10.77.0.0/24", run_dir=tmp_path, pool_size=0)
        await first.start()
        a = await first.take()
        await first.permit(a, Permit(egress.parse("10.50.0.0/16")))
        in_namespace(machine.neighbour, lambda: ip("addr", "add", f"{PRIVATE}/32", "dev", "out1"))
        await first.stop(keep={a.address})
        second = NetworkPool(prefix="tn", subnet="10.77.0.0/24", run_dir=tmp_path, pool_size=0)
        await second.start()
        with in_namespace(machine.neighbour, lambda: socket.create_server(("0.0.0.0", 9003))):
            assert reaches(a.fd, PRIVATE, 9003)
            assert not reaches(a.fd, NEIGHBOUR, 9003)
        os.close(a.fd)
        await second.stop()
        assert os.listdir(tmp_path) == []

    run_on_a_machine(body)


def test_instances_of_a_project_that_is_open_between_reach_each_other_and_nobody_else(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        c = await networks.take()
        with Listener(b.fd) as mate, Listener(c.fd) as stranger:
            assert not reaches(a.fd, b.address, mate.port)
            await networks.permit(a, Permit(circle="shop"))
            assert not reaches(a.fd, b.address, mate.port)
            await networks.permit(b, Permit(circle="shop"))
            await networks.permit(c, Permit(circle="other"))
            assert reaches(a.fd, b.address, mate.port)
            assert not reaches(a.fd, c.address, stranger.port)
            await networks.permit(b, Permit())
            assert not reaches(a.fd, b.address, mate.port)

    with_two(tmp_path, test)


def test_one_instances_connections_are_capped_and_anothers_are_not_touched(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        with in_namespace(machine.neighbour, lambda: socket.create_server((NEIGHBOUR, 9003), backlog=100)):

            def many(count: int) -> list[socket.socket]:
                found = []
                for _ in range(count):
                    try:
                        found.append(socket.create_connection((NEIGHBOUR, 9003), 0.25))
                    except TimeoutError:
                        break
                return found

            taken = in_namespace(a.fd, lambda: many(30))
            assert len(taken) == 20
            assert reaches(b.fd, NEIGHBOUR, 9003)
            assert await networks.crowded() == {a.address}, "who is told of it"
            for each in taken:
                each.close()

    with_two(tmp_path, test, caps=Caps(connections=20))


def test_what_one_instance_sends_is_capped(tmp_path: Path) -> None:
    packets, burst, size = 24_000, 400, 1200

    def sent(caps: Caps) -> int:
        """Bytes that reached the neighbour of some 29 MB sent at once."""
        arrived = 0

        async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
            nonlocal arrived

            def flood(count: int) -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.connect((NEIGHBOUR, 9005))
                    for _ in range(count):
                        try:
                            client.send(bytes(size))
                        except ConnectionRefusedError:
                            pass  # the neighbour's word that nobody listens

            def heard() -> int:
                lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
                return next(int(line.split()[1]) for line in lines if line.split()[0] == "out1:")

            began, before = time.monotonic(), -1
            for _ in range(0, packets, burst):
                in_namespace(a.fd, partial(flood, burst))
                # The kernel drops what waits for a busy core once it is a thousand packets: let it come to them.
                while (arrived := in_namespace(machine.neighbour, heard)) != before:
                    before = arrived
                    await asyncio.sleep(0.001)
            arrived -= int((time.monotonic() - began) * caps.mbytes_per_s * 2**20)

        with_two(tmp_path, test, caps=caps)
        return arrived

    assert sent(Caps(mbytes_per_s=0)) > packets * size
    assert sent(Caps(mbytes_per_s=1)) < 18 * 2**20
