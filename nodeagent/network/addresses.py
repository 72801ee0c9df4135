"""Which address an instance gets. Pure: who asks, and when, is the pool's business.

The first address of the subnet is the gateway (the host, as instances see it). A freed address is given out again as late as
possible: somebody may still be dialling the instance that had it.
"""

import ipaddress
from collections import deque
from collections.abc import Iterable

WIDEST_PREFIX = 8
NARROWEST_PREFIX = 29


class BadSubnet(ValueError):
    """The subnet cannot be used; the message says why and what to do."""


class NoAddress(Exception):
    """Every address of the subnet is in use."""


class Addresses:
    """The addresses of one subnet. `first` is the offset (≥ 2) from which unused ones are handed out, wrapping around."""

    def __init__(self, subnet: str, first: int = 2) -> None:
        self.network = parse_subnet(subnet)
        self._base = int(self.network.network_address)
        self._last = self.network.num_addresses - 2
        self._next = 2 + (first - 2) % (self._last - 1)
        self._unseen = self._last - 1
        self._used: set[int] = set()
        self._freed: deque[int] = deque()

    @property
    def gateway(self) -> str:
        """The host's address on every instance's link."""
        return str(ipaddress.IPv4Address(self._base + 1))

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, address: str) -> bool:
        return self._known_offset(address) in self._used

    def take(self) -> str:
        """An address nobody has. Raises NoAddress."""
        while self._unseen:
            offset, self._unseen = self._next, self._unseen - 1
            self._next = offset + 1 if offset < self._last else 2
            if offset not in self._used:
                return self._use(offset)
        while self._freed:
            offset = self._freed.popleft()
            if offset not in self._used:
                return self._use(offset)
        raise NoAddress(f"all {self._last - 1} addresses of {self.network} are in use; give --subnet a wider one")

    def reserve(self, address: str) -> None:
        """Mark an address that something already has. Raises BadSubnet when it is not one of this subnet's."""
        self._use(self.offset(address))

    def free(self, address: str) -> None:
        """Take an address back; freeing one that is not in use does nothing."""
        offset = self.offset(address)
        if offset in self._used:
            self._used.discard(offset)
            self._freed.append(offset)

    def offset(self, address: str) -> int:
        """The address's number in the subnet, from which its link is named. Raises BadSubnet for one outside of it."""
        offset = self._known_offset(address)
        if not 2 <= offset <= self._last:
            raise BadSubnet(
                f"{address} is not an instance's address in {self.network}; was --subnet changed while instances ran?"
            )
        return offset

    def at(self, offset: int) -> str | None:
        """The address with this number, or None when the subnet has no such instance address."""
        return str(ipaddress.IPv4Address(self._base + offset)) if 2 <= offset <= self._last else None

    def _known_offset(self, address: str) -> int:
        return int(ipaddress.IPv4Address(address)) - self._base

    def _use(self, offset: int) -> str:
        self._used.add(offset)
        return str(ipaddress.IPv4Address(self._base + offset))


def parse_subnet(text: str) -> ipaddress.IPv4Network:
    """The subnet instances live in. Raises BadSubnet unless it is an IPv4 network from /8 to /29 that instances may have."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise BadSubnet(f"--subnet {text}: {error}; want an IPv4 network such as 10.231.0.0/16") from None
    if not WIDEST_PREFIX <= network.prefixlen <= NARROWEST_PREFIX:
        raise BadSubnet(f"--subnet {text}: /{network.prefixlen} is not within /{WIDEST_PREFIX} to /{NARROWEST_PREFIX}")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise BadSubnet(f"--subnet {text}: loopback, link-local and multicast cannot be used; take a private network")
    return network


def check_free(subnet: ipaddress.IPv4Network, routes: Iterable[tuple[str, str]]) -> None:
    """Raise BadSubnet when a route of the machine, (destination, interface), overlaps the subnet. Default routes do not count."""
    for destination, interface in routes:
        other = ipaddress.IPv4Network(destination, strict=False)
        if other.prefixlen and other.overlaps(subnet):
            raise BadSubnet(
                f"--subnet {subnet} overlaps {destination} on {interface}, which this machine already routes; "
                "choose a network that `ip route` does not show, such as 10.232.0.0/16 or 100.96.0.0/16"
            )
