"""What an instance's code tries against its node, its neighbours and the world, on a machine of the test's own."""

import errno
import json
import select
import socket
import struct
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from nodeagent.firewall import METADATA, Doors
from nodeagent.network import Network, NetworkPool
from tests.integration.netns_world import HOST, NEIGHBOUR, Listener, Machine, in_namespace, ip, reaches
from tests.integration.two_instances import GATEWAY, with_two

pytestmark = pytest.mark.real
INNER, NAMES = 8101, 8103
Target = tuple[int, tuple[object, ...]]
"""A family, and an address as `connect` takes it."""


def answering(namespace: int, targets: list[Target]) -> list[Target]:
    """Those of `targets` that answer, be it with a refusal; all are tried at once."""

    def attempt() -> list[Target]:
        with ExitStack() as stack:
            waiting = {}
            for family, address in targets:
                client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                client.setblocking(False)
                if client.connect_ex(address) == errno.EINPROGRESS:
                    waiting[client] = (family, address)
            found, until = [], time.monotonic() + 0.5
            while waiting and (left := until - time.monotonic()) > 0:
                for client in select.select([], list(waiting), [], left)[1]:
                    target = waiting.pop(client)
                    if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                        found.append(target)
            return found

    return in_namespace(namespace, attempt)


def connects(namespace: int, family: int, address: tuple[object, ...]) -> bool:
    return bool(answering(namespace, [(family, address)]))


def addresses(namespace: int) -> list[tuple[int, str]]:
    """Every address of a namespace: family, address."""
    listed = in_namespace(namespace, lambda: subprocess.check_output(["ip", "-j", "addr"], timeout=10))
    return [
        (socket.AF_INET if found["family"] == "inet" else socket.AF_INET6, found["local"])
        for link in json.loads(listed)
        for found in link["addr_info"]
    ]


def everywhere(port: int) -> socket.socket:
    """A server at all addresses, of both families."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


def with_ipv6(namespace: int, address: str) -> None:
    """What an attacker would do who may: IPv6 on, with addresses of its own."""

    def body() -> None:
        for name in ("all", "default", "eth0"):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0")
        ip("-6", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        ip("-6", "route", "add", "default", "dev", "eth0")

    in_namespace(namespace, body)


def test_a_sweep_of_all_addresses_of_the_host_finds_the_doors_and_nothing_else(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        in_namespace(machine.host, lambda: ip("-6", "addr", "add", "fd00:99::1/64", "dev", "out0", "nodad"))
        with_ipv6(a.fd, "fd00:77::2")
        ports = (22, 80, 2379, 4222, 8080, 8090, INNER, NAMES)
        own = in_namespace(a.fd, lambda: socket.if_nametoindex("eth0"))
        everything = [found for found in addresses(machine.host) if found[1] not in ("127.0.0.1", "::1")]
        assert {socket.AF_INET, socket.AF_INET6} == {family for family, *_ in everything}
        targets: list[Target] = [
            (family, (address, port) if family == socket.AF_INET else (address, port, 0, own))
            for family, address in everything
            for port in (*ports, 9)
        ]
        with ExitStack() as listeners:
            for port in ports:
                listeners.enter_context(in_namespace(machine.host, partial(everywhere, port)))
            found = {(address[0], address[1]) for _, address in answering(a.fd, targets)}
            assert found == {(GATEWAY, 80), (GATEWAY, INNER), (GATEWAY, NAMES)}
            assert connects(a.fd, socket.AF_INET, (METADATA, 53))
            assert not connects(a.fd, socket.AF_INET, (METADATA, 80))

    with_two(tmp_path, test, doors=Doors(inner=INNER, names=NAMES))


def test_nobody_outside_reaches_the_doors(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        with in_namespace(machine.host, lambda: socket.create_server(("0.0.0.0", INNER))):
            assert reaches(a.fd, GATEWAY, INNER)
            assert not reaches(machine.neighbour, GATEWAY, INNER)

    with_two(tmp_path, test, doors=Doors(inner=INNER))


def heard6() -> socket.socket:
    """A server for datagrams at every address."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.bind(("::", 9001))
    made.settimeout(0.5)
    return made


def test_ipv6_reaches_neither_the_host_nor_another_instance_nor_the_world(tmp_path: Path) -> None:
    """An attacker who knows the host's hardware address, and needs no answer; without the table every word would arrive."""

    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        in_namespace(machine.neighbour, lambda: ip("-6", "addr", "add", "fd00:99::2/64", "dev", "out1", "nodad"))
        in_namespace(machine.host, lambda: ip("-6", "addr", "add", "fd00:99::1/64", "dev", "out0", "nodad"))
        in_namespace(machine.host, lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1"))
        with_ipv6(a.fd, "fd00:77::2")
        with_ipv6(b.fd, "fd00:77::3")
        hardware = json.loads(in_namespace(b.fd, lambda: subprocess.check_output(["ip", "-j", "link"], timeout=10)))
        own = next(link["address"] for link in hardware if link["ifname"] == "eth0")
        in_namespace(machine.host, lambda: ip("-6", "route", "add", "fd00:77::3/128", "dev", b.veth))
        in_namespace(machine.host, lambda: ip("-6", "neigh", "add", "fd00:77::3", "lladdr", own, "dev", b.veth))
        servers = {
            address: in_namespace(namespace, heard6)
            for address, namespace in (("fd00:99::1", machine.host), ("fd00:99::2", machine.neighbour), ("fd00:77::3", b.fd))
        }
        for address in servers:
            in_namespace(a.fd, partial(ip, "-6", "neigh", "add", address, "lladdr", "02:eb:b0:00:00:01", "dev", "eth0"))

        def arrives(address: str) -> bool:
            def say() -> None:
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                    client.sendto(b"evil", (address, 9001))

            in_namespace(a.fd, say)
            try:
                return servers[address].recv(100) == b"evil"
            except TimeoutError:
                return False

        with ExitStack() as stack:
            for server in servers.values():
                stack.enter_context(server)
            assert [address for address in servers if arrives(address)] == []
            link_local = [found for _, found in addresses(b.fd) if found.startswith("fe80")]
            assert link_local
            index = in_namespace(a.fd, lambda: socket.if_nametoindex("eth0"))
            stack.enter_context(in_namespace(b.fd, lambda: socket.create_server(("::", 9002), family=socket.AF_INET6)))
            tried = (*link_local, "fd00:77::3", "fd00:99::1", "ff02::1")
            assert answering(a.fd, [(socket.AF_INET6, (address, 9002, 0, index)) for address in tried]) == []
            in_namespace(
                machine.host, lambda: subprocess.run(["nft", "delete", "table", "inet", "ebb_tn"], check=True, timeout=10)
            )
            assert [address for address in servers if arrives(address)] == list(servers), "the attack is a good one"

    with_two(tmp_path, test)


def ethernet(namespace: int, frame: bytes) -> None:
    """Send a frame from the instance's end of its link, as raw sockets would."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(frame)

    in_namespace(namespace, send)


def test_no_arp_is_answered_and_none_is_believed(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        def neighbours() -> str:
            return in_namespace(machine.host, lambda: subprocess.check_output(["ip", "neigh"], text=True, timeout=10))

        before = neighbours()
        mac = b"\x02\xeb" + socket.inet_aton(a.address)

        def exchange() -> list[bytes]:
            heard = []
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw:
                raw.bind(("eth0", 0x0806))
                raw.settimeout(0.25)
                for kind, wanted in ((1, HOST), (1, GATEWAY), (2, b.address)):
                    body = (
                        struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind)
                        + mac
                        + socket.inet_aton(b.address if kind == 2 else a.address)
                    )
                    raw.send(b"\xff" * 6 + mac + b"\x08\x06" + body + b"\0" * 6 + socket.inet_aton(wanted))
                    try:
                        heard.append(raw.recv(100))
                    except TimeoutError:
                        pass
            return heard

        assert in_namespace(a.fd, exchange) == []
        assert neighbours() == before
        with Listener(b.fd) as server:
            assert reaches(machine.host, b.address, server.port)

    with_two(tmp_path, test)


def test_forged_packets_arrive_nowhere(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        def receiver(namespace: int) -> socket.socket:
            def make() -> socket.socket:
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                made.bind(("0.0.0.0", 9002))
                made.settimeout(0.25)
                return made

            return in_namespace(namespace, make)

        gateway_mac = bytes((0x02, 0xEB, 0xB0, 0, 0, 1))

        def forged(source: str, target: str) -> bytes:
            payload = struct.pack("!HHHH", 9002, 9002, 12, 0) + b"evil"
            head = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 32, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target)
            )
            total = sum(struct.unpack("!10H", head))
            head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
            return gateway_mac + b"\x02\xeb" + socket.inet_aton(source) + b"\x08\x00" + head + payload

        with receiver(machine.neighbour) as outside, receiver(b.fd) as other, receiver(machine.host) as host:
            ethernet(a.fd, forged(a.address, NEIGHBOUR))
            outside.settimeout(5)
            assert outside.recv(100) == b"evil"  # the frame is well made: what follows is dropped for its source alone
            outside.settimeout(0.25)
            for source, target, who in (
                (b.address, NEIGHBOUR, outside), ("127.0.0.1", NEIGHBOUR, outside), ("198.51.100.7", NEIGHBOUR, outside),
                (GATEWAY, b.address, other), (HOST, b.address, other), (b.address, HOST, host), ("127.0.0.1", HOST, host),
            ):  # fmt: skip
                ethernet(a.fd, forged(source, target))
                with pytest.raises(TimeoutError):
                    who.recv(100)

    with_two(tmp_path, test)


def test_abstract_sockets_of_the_host_and_of_others_are_not_there(tmp_path: Path) -> None:
    async def test(machine: Machine, networks: NetworkPool, a: Network, b: Network) -> None:
        name = b"\0/containerd-shim/ebb-test.sock"

        def listen() -> socket.socket:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.bind(name)
            made.listen()
            return made

        def connect() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(name)

        with in_namespace(machine.host, listen), in_namespace(b.fd, listen):
            in_namespace(machine.host, connect)
            with pytest.raises(ConnectionRefusedError):
                in_namespace(a.fd, connect)

    with_two(tmp_path, test)
