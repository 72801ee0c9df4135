"""The network of instances on a machine of the test's own: who reaches whom, and that nothing is left behind."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nodeagent.firewall import Caps
from nodeagent.network import BadSubnet, Network, NetworkError, NetworkPool, links
from nodeagent.network.rtnetlink import Netlink
from tests.eventually import eventually
from tests.integration.netns_world import (
    HOST,
    METADATA,
    NEIGHBOUR,
    Listener,
    Machine,
    in_namespace,
    ip,
    reaches,
    run_on_a_machine,
)

pytestmark = pytest.mark.real


def forwarding(new: str | None = None) -> str:
    """The host's ip_forward, after writing `new`."""
    path = Path("/proc/sys/net/ipv4/ip_forward")
    if new is not None:
        path.write_text(new)
    return path.read_text().strip()


def pool(
    tmp_path: Path, prefix: str = "tn", subnet: str = "10.77.0.0/24", size: int = 2, caps: Caps | None = None
) -> NetworkPool:
    return NetworkPool(prefix=prefix, subnet=subnet, run_dir=tmp_path, pool_size=size, caps=caps)


def with_two(tmp_path: Path, test: Callable[[Machine, Network, Network], None]) -> None:
    """Run `test` with two instances' networks."""

    async def body(machine: Machine) -> None:
        networks = pool(tmp_path)
        await networks.start()
        try:
            test(machine, await networks.take(), await networks.take())
        finally:
            await networks.stop()

    run_on_a_machine(body)


def test_a_network_is_made_by_an_agent_that_holds_a_thousand_descriptors(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        networks = pool(tmp_path)
        await networks.start()
        held: list[int] = []
        try:
            while not held or held[-1] < 1100:
                held.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            taken = [await networks.take() for _ in range(4)]  # two were ready, two are made now
            assert len({network.address for network in taken}) == 4
        finally:
            for descriptor in held:
                os.close(descriptor)
            await networks.stop()

    run_on_a_machine(body)


def names() -> set[str]:
    with Netlink() as host:
        return set(links.link_names(host).values())


def tables() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True, timeout=10).stdout


def test_the_host_reaches_an_instance_and_speaks_as_the_gateway(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        with Listener(a.fd) as server:
            assert reaches(machine.host, a.address, server.port)
            assert server.peer() == "10.77.0.1"

    with_two(tmp_path, test)


def test_an_instance_reaches_the_outside_under_the_hosts_address(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        with Listener(machine.neighbour) as server:
            assert reaches(a.fd, NEIGHBOUR, server.port)
            assert server.peer() == HOST

    with_two(tmp_path, test)


def test_an_instance_reaches_no_other_instance(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        with Listener(b.fd) as server:
            assert not reaches(a.fd, b.address, server.port)
            assert reaches(machine.host, b.address, server.port)

    with_two(tmp_path, test)


def test_an_instance_reaches_none_of_the_hosts_addresses(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        with Listener(machine.host) as server:
            for address in (HOST, "10.77.0.1"):
                assert not reaches(a.fd, address, server.port)
            assert reaches(machine.neighbour, HOST, server.port)

    with_two(tmp_path, test)


def test_an_instance_reaches_no_metadata_service(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        with Listener(machine.neighbour) as server:
            assert reaches(machine.host, METADATA, server.port)
            assert not reaches(a.fd, METADATA, server.port)

    with_two(tmp_path, test)


def test_nobody_outside_reaches_an_instance(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        with Listener(a.fd) as server:
            assert not reaches(machine.neighbour, a.address, server.port)

    with_two(tmp_path, test)


def test_what_pretends_to_be_another_is_dropped(tmp_path: Path) -> None:
    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 0))
        made.settimeout(10)
        return made

    def test(machine: Machine, a: Network, b: Network) -> None:
        with in_namespace(machine.neighbour, bound) as server:

            def say(source: str) -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.bind((source, 0))
                    client.sendto(source.encode(), (NEIGHBOUR, server.getsockname()[1]))

            for forged in (b.address, "10.77.0.1", "198.51.100.7"):
                in_namespace(a.fd, partial(ip, "addr", "add", f"{forged}/32", "dev", "eth0"))
                in_namespace(a.fd, partial(say, forged))
            in_namespace(a.fd, partial(say, a.address))
            assert server.recv(100).decode() == a.address, "what was said before in others' names has come"

    with_two(tmp_path, test)


def test_there_is_no_ipv6(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        read = Path("/proc/thread-self/net/if_inet6").read_text
        assert in_namespace(a.fd, read) == ""
        assert a.veth not in read()

    with_two(tmp_path, test)


def test_a_packet_that_fits_an_instance_fits_the_way_out(tmp_path: Path) -> None:
    def test(machine: Machine, a: Network, b: Network) -> None:
        shown = in_namespace(a.fd, lambda: subprocess.check_output(["ip", "link", "show", "eth0"], text=True, timeout=10))
        assert "mtu 1400" in shown

    with_two(tmp_path, test)


def test_taking_from_a_filled_pool_waits_for_nothing_and_the_pool_fills_again(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        networks = pool(tmp_path, size=4)
        await networks.start()
        await eventually(lambda: networks.ready == 4)
        taken = []
        for _ in range(4):
            taking = networks.take()
            with pytest.raises(StopIteration) as done:
                taking.send(None)  # done at the first step: nothing was awaited
            taken.append(done.value.value)
        assert len({network.address for network in taken}) == 4
        taken.append(await networks.take())
        await eventually(lambda: networks.ready == 4)
        await networks.stop()

    run_on_a_machine(body)


def test_a_released_network_is_gone_and_its_address_is_free_again(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        networks = pool(tmp_path, subnet="10.77.0.0/29", size=0)
        await networks.start()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            taken = [await networks.take() for _ in range(5)]
            for network in taken:
                networks.release(network)
                networks.release(network)
            await eventually(lambda: not any(name.startswith("tn-") and not name.startswith("tn-gw") for name in names()))
            await eventually(lambda: not networks._cooling)
        assert len(os.listdir("/proc/self/fd")) == before
        await networks.stop()

    run_on_a_machine(body)


def test_a_namespace_that_outlives_its_instance_loses_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.network.pool._GONE_WITHIN_S", 0.2)

    async def body(machine: Machine) -> None:
        networks = pool(tmp_path, size=0)
        await networks.start()
        network = await networks.take()
        stuck = os.open(network.ns_path, os.O_RDONLY)
        networks.release(network)
        await eventually(lambda: network.veth not in names())
        os.close(stuck)
        await networks.stop()

    run_on_a_machine(body)


def test_a_restarted_agent_adopts_what_runs_and_sweeps_what_does_not(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        first = pool(tmp_path)
        await first.start()
        kept, lost = await first.take(), await first.take()
        process = in_namespace(kept.fd, lambda: subprocess.Popen(["sleep", "60"]))
        orphan = os.dup(lost.fd)
        try:
            # An agent that was killed: nothing is put back, its descriptors are closed by the kernel.
            for network in (kept, lost):
                os.close(network.fd)
            await first.stop(keep={kept.address, lost.address})
            second = pool(tmp_path)
            await second.start()
            adopted = second.adopt(process.pid, kept.address)
            assert (adopted.veth, adopted.address) == (kept.veth, kept.address)
            assert await second.sweep() == [lost.veth]
            with Listener(adopted.fd) as server:
                assert reaches(machine.host, kept.address, server.port)
            assert (await second.take()).address != kept.address
            with pytest.raises(NetworkError, match="must be replaced"):
                second.adopt(process.pid, lost.address)
            await second.stop()
        finally:
            os.close(orphan)
            process.kill()
            process.wait()

    run_on_a_machine(body)


def test_stopping_puts_the_machine_back(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        forwarding("0")  # a new namespace has what the real machine has
        before = names(), tables(), forwarding()
        networks = pool(tmp_path)
        await networks.start()
        await networks.take()
        assert forwarding() == "1"
        await networks.stop()
        assert (names(), tables(), forwarding()) == before
        assert os.listdir(tmp_path) == []

    run_on_a_machine(body)


def test_forwarding_that_was_on_stays_on(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        forwarding("1")
        networks = pool(tmp_path)
        await networks.start()
        await networks.stop()
        assert forwarding() == "1"

    run_on_a_machine(body)


def test_two_engines_on_one_machine_keep_apart(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        one, two = pool(tmp_path, "tn", "10.77.0.0/24", 0), pool(tmp_path, "tn2", "10.78.0.0/24", 0)
        await one.start()
        await two.start()
        a, b = await one.take(), await two.take()
        with Listener(b.fd) as server:
            assert not reaches(a.fd, b.address, server.port)
            await one.stop()
            assert "ebb_tn2" in tables()
            assert reaches(machine.host, b.address, server.port)
        await two.stop()

    run_on_a_machine(body)


def test_a_subnet_in_use_is_refused_by_name(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        with pytest.raises(BadSubnet, match=r"192\.0\.2\.0/24 on out0"):
            await pool(tmp_path, subnet="192.0.0.0/16").start()

    run_on_a_machine(body)


def test_a_namespace_takes_milliseconds(tmp_path: Path) -> None:
    async def body(machine: Machine) -> None:
        networks = pool(tmp_path, size=0)
        await networks.start()
        took = []
        for _ in range(30):
            began = time.perf_counter()
            await networks.take()
            took.append(time.perf_counter() - began)
        await networks.stop()
        # The goal is 2 ms, measured at 1.1. The machine is shared, so it is the third best, with company.
        assert sorted(took)[2] < 0.01

    run_on_a_machine(body)
