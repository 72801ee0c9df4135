"""Where an instance may connect to: the words of `ebb.dev/egress` and of a project's policy, and what two of them have in common. Pure.

    none                          nowhere
    open                          the internet, and no private network
    private                       private networks (RFC 1918, RFC 6598), and nothing of the internet
    10.1.0.0/16:5432,1.2.3.4      these addresses, at that port or at any
    open,10.1.0.0/16:5432         together

Neither the machine itself, nor other instances, nor link-local addresses are ever among them (`nodeagent/firewall.py`).
"""

import ipaddress
from dataclasses import dataclass

PRIVATE = tuple(ipaddress.IPv4Network(net) for net in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
REACHES_MOST = 64
"""Items of one list: each is an element in the kernel for each instance."""
ALLOWED = "none, open, private, or IPv4 networks such as 10.1.0.0/16:5432, several with commas"


@dataclass(frozen=True, slots=True, order=True)
class Reach:
    """A network, at one port or (0) at any."""

    network: ipaddress.IPv4Network
    port: int = 0

    def __str__(self) -> str:
        return f"{self.network}:{self.port}" if self.port else str(self.network)


@dataclass(frozen=True, slots=True)
class Egress:
    """What is allowed; nothing by itself."""

    internet: bool = False
    private: bool = False
    listed: tuple[Reach, ...] = ()

    def __str__(self) -> str:
        words = ["open"] * self.internet + ["private"] * self.private + [str(reach) for reach in self.listed]
        return ",".join(words) or "none"

    @property
    def nothing(self) -> bool:
        return not (self.internet or self.private or self.listed)


OPEN = Egress(internet=True)
NONE = Egress()


def parse(text: str) -> Egress:
    """The meaning of `text`. Raises ValueError, whose words say what is allowed."""
    words = [word.strip() for word in text.split(",")]
    if words == ["none"]:
        return NONE
    listed = []
    for word in words:
        if word not in ("open", "private"):
            listed.append(_reach(word))
    if len(listed) > REACHES_MOST:
        raise ValueError(f"at most {REACHES_MOST} networks")
    return Egress("open" in words, "private" in words, tuple(sorted(set(listed))))


def narrow(wish: Egress, bound: Egress) -> Egress:
    """What both allow."""
    reaches = [*_within(wish.listed, bound), *_within(bound.listed, wish)]
    reaches += [found for one in wish.listed for other in bound.listed if (found := _both(one, other)) is not None]
    return Egress(wish.internet and bound.internet, wish.private and bound.private, tuple(sorted(set(reaches))))


def disjoint(reaches: tuple[Reach, ...]) -> list[Reach]:
    """The same, none overlapping another: the kernel's sets of ranges hold no others."""
    everywhere = list(ipaddress.collapse_addresses(reach.network for reach in reaches if not reach.port))
    found = [Reach(network) for network in everywhere]
    for port in sorted({reach.port for reach in reaches if reach.port}):
        networks = list(ipaddress.collapse_addresses(reach.network for reach in reaches if reach.port == port))
        for hole in everywhere:
            networks = [part for one in networks for part in _without(one, hole)]
        found += [Reach(network, port) for network in networks]
    return found


def _within(reaches: tuple[Reach, ...], bound: Egress) -> list[Reach]:
    """The parts of `reaches` that are of the internet or private, as `bound` has them."""
    found: list[Reach] = []
    for reach in reaches:
        if bound.private:
            found += [both for net in PRIVATE if (both := _both(reach, Reach(net))) is not None]
        if bound.internet:
            public = [reach.network]
            for net in PRIVATE:
                public = [part for one in public for part in _without(one, net)]
            found += [Reach(net, reach.port) for net in public]
    return found


def _without(network: ipaddress.IPv4Network, hole: ipaddress.IPv4Network) -> list[ipaddress.IPv4Network]:
    if not network.overlaps(hole):
        return [network]
    return [] if network.subnet_of(hole) else list(network.address_exclude(hole))


def _both(one: Reach, other: Reach) -> Reach | None:
    if not one.network.overlaps(other.network) or (one.port and other.port and one.port != other.port):
        return None
    smaller = one.network if one.network.subnet_of(other.network) else other.network
    return Reach(smaller, one.port or other.port)


def _reach(word: str) -> Reach:
    network, colon, port = word.partition(":")
    try:
        found = ipaddress.IPv4Network(network)
    except ValueError:
        raise ValueError(ALLOWED) from None
    if colon and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(ALLOWED)
    return Reach(found, int(port) if colon else 0)
