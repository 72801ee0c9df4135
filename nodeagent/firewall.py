"""The nftables tables of the engine: what instances may reach. Pure: it makes the text that `Nft.apply` runs.

instance → the doors: the front door's inner port, metadata, names      allowed (they are the host's, at the gateway's address)
instance → anything else of the host, link-local (cloud metadata)       dropped
instance → another instance                                             dropped, but within a circle (a project that is open between)
instance → anywhere else                                                masqueraded, if its egress allows it; capped
the host → instance                                                     allowed, with its answers
others → instance, others → the gateway's address                       dropped, but for answers

An instance may speak from its own link with its own address alone; neither IPv6 nor ARP is spoken. The rules are the same for all
instances: only elements of sets and maps come and go (`admit`, `dismiss`). Who has no element can neither send nor ask.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from store.egress import OPEN, PRIVATE, Egress, disjoint

DENIED = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
"""Where no instance may send: this network, loopback, link-local with the clouds' metadata service, multicast, reserved."""
METADATA = "169.254.169.254"
"""Where instances find metadata and names, as on the public clouds."""
BURST_MBYTES = 16
CONNECTIONS_MOST = 65_536
"""Instances whose connections are counted."""
CROWDED_S = 30
"""For how long it is known that an instance was refused a connection for having too many."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What of the host instances may reach, as ports of the gateway's address; 0: nothing."""

    inner: int = 0
    """The front door's, for calls between services: port 80 of the gateway leads there."""
    metadata: int = 0
    names: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """Of each instance, toward the world; 0: no limit."""

    connections: int = 4096
    mbytes_per_s: int = 250


@dataclass(frozen=True, slots=True)
class Permit:
    """What one instance may: its `egress`, and the `circle` (a project's name) whose members reach each other; empty: none."""

    egress: Egress = OPEN
    circle: str = ""


@dataclass(frozen=True, slots=True)
class Resident:
    """An instance as the tables know it."""

    link: str
    address: str
    permit: Permit = Permit()
    circle: int = 0
    """The number of the permit's circle; 0: none."""


def table_name(prefix: str) -> str:
    """The tables of the engine with this id: one of family inet, one of family arp."""
    return f"ebb_{prefix}"


def ruleset(
    prefix: str,
    subnet: str,
    gateway: str,
    links: str,
    doors: Doors,
    caps: Caps,
    residents: Iterable[Resident] = (),
    denied: Sequence[str] = DENIED,
) -> str:
    """The tables as nft text, replacing older ones in one transaction.

    `links` is the beginning of the names of instances' links; `residents` are there already.
    """
    table, own = f"table inet {table_name(prefix)}", f'"{links}*"'
    arp = f"table arp {table_name(prefix)}"
    counted, up, down = _capped(caps)
    lines = "\n".join(line for resident in residents for line in admit(prefix, resident))
    return f"""
{table} {{ }}
delete {table}
{arp} {{ }}
delete {arp}
{arp} {{
  chain heard {{
    type filter hook input priority filter; policy accept;
    iifname {own} drop
  }}
}}
{table} {{
{_sets(subnet, denied)}
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    iifname != {own} accept
    meta nfproto != ipv4 drop
    iifname . ip saddr != @owners drop
  }}
{_asking(gateway, own, doors)}
  chain to_host {{
    type filter hook input priority filter - 1; policy accept;
    iifname {own} goto to_doors
    iifname != "lo" ip daddr {gateway} drop
  }}
  chain to_doors {{
    ct state established,related accept
    {counted}
    {_open(gateway, doors)}
    drop
  }}
{_ways()}
{_through(own, counted, up, down)}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != {{ {own}, "lo" }} masquerade
  }}
}}
{lines}
"""


def removal(prefix: str) -> str:
    """Takes the tables away; those that are not there are fine."""
    tables = (f"table {family} {table_name(prefix)}" for family in ("inet", "arp"))
    return "".join(f"{table} {{ }}\ndelete {table}\n" for table in tables)


def crowded(prefix: str) -> str:
    """The command that shows the addresses that were refused a connection lately for having too many."""
    return f"list set inet {table_name(prefix)} crowded"


def admit(prefix: str, resident: Resident) -> list[str]:
    """The commands that let an instance speak."""
    return [f"add element inet {table_name(prefix)} {element}" for element in _elements(resident)]


def dismiss(prefix: str, resident: Resident) -> list[str]:
    """The commands that undo `admit`."""
    keys = (element.partition(" : ")[0].rstrip(" }") + " }" for element in _elements(resident))
    return [f"delete element inet {table_name(prefix)} {key}" for key in keys]


def _elements(resident: Resident) -> list[str]:
    address, egress = resident.address, resident.permit.egress
    way = _way(egress.internet, egress.private, bool(egress.listed))
    found = [f'owners {{ "{resident.link}" . {address} }}', f"egress {{ {address} : goto {way} }}"]
    for reach in disjoint(egress.listed):
        found.append(f"listed {{ {address} . {reach.network} . {reach.port or '0-65535'} }}")
    if number := resident.circle:
        found += [f"circles {{ {address} : {number} }}", f"members {{ {number} . {address} }}"]
    return found


def _way(internet: bool, private: bool, listed: bool) -> str:
    """The chain of a kind of egress."""
    return "_".join(["way", *(["open"] * internet + ["private"] * private + ["listed"] * listed or ["none"])])


def _ways() -> str:
    """All those chains."""
    chains = []
    for internet, private, listed in product((False, True), repeat=3):
        rules = ["meta l4proto { tcp, udp } ip saddr . ip daddr . th dport @listed accept"] * listed
        if internet != private:
            rules.append(f"ip daddr {'!= ' if internet else ''}@private accept")
        rules.append("accept" if internet and private else "drop")
        chains.append(f"  chain {_way(internet, private, listed)} {{\n    " + "\n    ".join(rules) + "\n  }")
    return "\n".join(chains)


def _sets(subnet: str, denied: Sequence[str]) -> str:
    return f"""  set owners {{ type ifname . ipv4_addr; }}
  set private {{ type ipv4_addr; flags interval; elements = {{ {", ".join(map(str, PRIVATE))} }} }}
  set denied {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {", ".join((*denied, subnet))} }} }}
  set listed {{ type ipv4_addr . ipv4_addr . inet_service; flags interval; }}
  map circles {{ type ipv4_addr : mark; }}
  set members {{ type mark . ipv4_addr; }}
  set connections {{ type ipv4_addr; size {CONNECTIONS_MOST}; flags dynamic; }}
  set crowded {{ type ipv4_addr; size {CONNECTIONS_MOST}; flags dynamic; timeout {CROWDED_S}s; }}
  set uploads {{ type ipv4_addr; size {CONNECTIONS_MOST}; flags dynamic; timeout 1m; }}
  set downloads {{ type ipv4_addr; size {CONNECTIONS_MOST}; flags dynamic; timeout 1m; }}"""


def _through(own: str, counted: str, up: str, down: str) -> str:
    """What is passed on: out into the world, between instances, and back."""
    return f"""  map egress {{ type ipv4_addr : verdict; }}
  chain out {{
    ip daddr @denied drop
    {counted}
    {up}
    ip saddr vmap @egress
    drop
  }}
  chain between {{
    meta mark set 0
    meta mark set ip saddr map @circles
    meta mark != 0 meta mark . ip daddr @members accept
    ct state established,related accept
    drop
  }}
  chain back {{
    ct state != {{ established, related }} drop
    {down}
    accept
  }}
  chain through {{
    type filter hook forward priority filter - 1; policy accept;
    iifname {own} oifname {own} goto between
    iifname {own} goto out
    oifname {own} goto back
  }}"""


def _asking(gateway: str, own: str, doors: Doors) -> str:
    """Where what instances ask for is led."""
    asked = (
        (gateway, "tcp", 80, doors.inner),
        (METADATA, "tcp", 80, doors.metadata),
        (METADATA, "udp", 53, doors.names),
        (METADATA, "tcp", 53, doors.names),
    )
    led = [f"ip daddr {at} {way} dport {port} dnat ip to {gateway}:{door}" for at, way, port, door in asked if door]
    head = "type nat hook prerouting priority dstnat; policy accept;"
    return "  chain asking {\n    " + "\n    ".join([head, f"iifname != {own} accept", *led]) + "\n  }"


def _open(gateway: str, doors: Doors) -> str:
    ports = sorted({port for port in (doors.inner, doors.metadata, doors.names) if port})
    return f"ip daddr {gateway} th dport {{ {', '.join(map(str, ports))} }} accept" if ports else ""


def _capped(caps: Caps) -> tuple[str, str, str]:
    """The rules for new connections, for what is sent, for what comes."""
    rate = f"limit rate over {caps.mbytes_per_s} mbytes/second burst {BURST_MBYTES} mbytes"
    return (
        f"ct state new add @connections {{ ip saddr ct count over {caps.connections} }} update @crowded {{ ip saddr }} drop"
        if caps.connections
        else "",
        f"update @uploads {{ ip saddr {rate} }} drop" if caps.mbytes_per_s else "",
        f"update @downloads {{ ip daddr {rate} }} drop" if caps.mbytes_per_s else "",
    )
