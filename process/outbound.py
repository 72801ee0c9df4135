"""Where the engine itself may connect to on somebody's behalf: image registries, authorities, issuers of tokens.

    out = Outbound(["10.1.0.0/16"])
    session = aiohttp.ClientSession(connector=out.connector())

A name that a user chose may lead to what only this machine reaches: its loopback, its private network, a cloud's metadata. So an
address is judged at the moment of the connect, as the number it is by then: whatever a URL was spelt like, whatever a name server said
a second ago or says a second later, and again at each redirect.
"""

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Any

import aiohttp

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""NAT64: the last four bytes are an address of IPv4 (RFC 6052)."""
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")


class NotAllowed(OSError):
    """The address is one that the engine does not connect to; the message says which, and how to allow it."""

    WORDS = "is not reached on a user's behalf"

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} {self.WORDS}: it is no public address")


class Outbound:
    """`allowed`: networks that may be reached although they are not public. Raises ValueError for what is none."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        try:
            self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(each) for each in allowed)
        except ValueError as error:
            raise ValueError(f"networks that may be reached: {error}; want such as 10.1.0.0/16, with commas") from None

    def connector(self, **more: Any) -> aiohttp.TCPConnector:
        """What an aiohttp session connects by."""
        return aiohttp.TCPConnector(socket_factory=self._socket, **more)

    def check(self, host: str) -> None:
        """Raises NotAllowed when `host`, an address, is not to be connected to."""
        address = plain(ipaddress.ip_address(host.partition("%")[0]))
        if is_public(address) or any(address.version == net.version and address in net for net in self._allowed):
            return
        raise NotAllowed(host)

    def _socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, where = info
        self.check(where[0])
        return socket.socket(family, kind, protocol)


def plain(address: Address) -> Address:
    """The address that is meant by one of IPv6 that carries one of IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address.teredo is not None:
            return address.teredo[1]
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether it is one of the internet's."""
    own = (
        address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved
        or address.is_unspecified or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local)
    )  # fmt: skip
    return not own and not (address.version == 4 and address in _SHARED)


def refusal_in(error: BaseException) -> str:
    """What NotAllowed said, when that is why a connect failed; aiohttp puts it inside others. Empty: it is not."""
    found = _REFUSAL.search(f"{error} {getattr(error, 'os_error', '')}")
    return found[0] if found is not None else ""


_REFUSAL = re.compile(rf"[0-9A-Fa-f:.]+ {NotAllowed.WORDS}")
