"""What an instance finds in /etc/resolv.conf and /etc/hosts. Pure; reading the host's files is `host_resolv_conf`."""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

MOST_SERVERS = 3
"""What the C library reads; more are ignored by it."""
STUB_TRUTH = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved tells the real servers when /etc/resolv.conf names only its stub on loopback."""


def every_nameserver(etc: str, truth: str = "") -> tuple[str, ...]:
    """The name servers this machine asks, of either family; loopback's too, unless `truth` names those behind a stub of systemd's."""
    for text in (truth, etc):
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                found.append(words[1])
        if found:
            return tuple(dict.fromkeys(found))[:MOST_SERVERS]
    return ("127.0.0.1",)  # as the C library does


def render(host: str, server: str) -> str:
    """An instance's resolv.conf: the host's search list and options, and the name server of instances."""
    kept = [line for line in host.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "\n".join([f"nameserver {server}", *kept]) + "\n"


def hosts(instance: str, address: str) -> str:
    """An instance's /etc/hosts: loopback, and its own name."""
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{instance}\n"


def check_servers(servers: Sequence[str]) -> None:
    """Raise ValueError for a `--dns` that cannot be asked."""
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise ValueError(f"--dns {server}: want addresses of name servers, comma-separated") from None


def host_resolv_conf(etc: Path = Path("/etc/resolv.conf")) -> str:
    """The host's resolver configuration; empty if none."""
    try:
        return etc.read_text(errors="replace")
    except OSError:
        return ""
