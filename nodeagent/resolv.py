"""What an instance finds in /etc/resolv.conf and /etc/hosts. Pure; reading the host's files is `host_resolv_conf`."""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

MOST_SERVERS = 3
"""What the C library reads; more are ignored by it."""
STUB_TRUTH = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved tells the real servers when /etc/resolv.conf names only its stub on loopback."""


def nameservers(resolv_conf: str) -> list[str]:
    """The name servers an instance can reach: not loopback (its own loopback is another one), IPv4 only, in order."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            if address.version == 4 and not address.is_loopback and not address.is_unspecified:
                found.append(str(address))
    return list(dict.fromkeys(found))[:MOST_SERVERS]


def render(host: str, servers: Sequence[str] = ()) -> str:
    """An instance's resolv.conf: the host's search list and options, and `servers` or else the host's reachable ones."""
    kept = [line for line in host.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    lines = [f"nameserver {server}" for server in (servers or nameservers(host))]
    return "\n".join([*lines, *kept]) + "\n"


def hosts(instance: str, address: str) -> str:
    """An instance's /etc/hosts: loopback, and its own name."""
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{instance}\n"


def check_servers(servers: Sequence[str]) -> None:
    """Raise ValueError for a `--dns` that instances could not ask."""
    for server in servers:
        try:
            usable = ipaddress.ip_address(server).version == 4 and not ipaddress.ip_address(server).is_loopback
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                f"--dns {server}: want IPv4 addresses that instances can reach, comma-separated; loopback is their own"
            )


def host_resolv_conf(etc: Path = Path("/etc/resolv.conf"), truth: Path = STUB_TRUTH) -> str:
    """The host's resolver configuration: the real one where /etc/resolv.conf names only a stub on loopback; empty if none."""
    for path in (etc, truth):
        try:
            content = path.read_text(errors="replace")
        except OSError:
            continue
        if nameservers(content):
            return content
    return ""
