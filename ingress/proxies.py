"""Proxies before the front door whose word is taken: who the client is, and whether it came by https. Pure.

    client ─▶ proxy ─▶ proxy ─▶ front door        X-Forwarded-For: …, client, proxy

From the right, what trusted proxies wrote is believed; the first address that is no trusted proxy's is the client's, and what stands
left of it is the client's own invention and goes no further.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

MEMO_MOST = 1024
HOPS_MOST = 32
SCHEMES = ("http", "https")


class Proxies:
    """`networks`: addresses and CIDR networks, comma-separated. Raises ValueError that names the one that is neither."""

    def __init__(self, networks: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in filter(None, (part.strip() for part in networks.split(","))):
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError:
                raise ValueError(f"trusted proxies: {text!r} is no address or network, like 10.0.0.0/8") from None
        self._memo: dict[str, bool] = {}

    def trust(self, address: str) -> bool:
        """Whether `address` is a trusted proxy's."""
        found = self._memo.get(address)
        if found is None:
            try:
                parsed = ip_address(address)
            except ValueError:
                return False
            if len(self._memo) >= MEMO_MOST:
                self._memo.clear()
            found = self._memo[address] = any(parsed in network for network in self._networks)
        return found

    def scheme(self, peer: str, said: bytes, own: str) -> str:
        """How the client speaks: as `peer` said (X-Forwarded-Proto), when it is a trusted proxy, else `own`, as `peer` itself does."""
        given = said.decode("latin-1").lower()
        return given if given in SCHEMES and self.trust(peer) else own

    def path(self, peer: str, forwarded_for: bytes) -> list[str]:
        """The client's address and those of the trusted proxies it came by, `peer` being the last of them."""
        path = [peer]
        for part in reversed(forwarded_for.split(b",")[-HOPS_MOST:]):
            text = part.strip(b" \t").decode("latin-1")
            try:
                address = str(ip_address(text))
            except ValueError:
                break
            path.insert(0, address)
            if not self.trust(address):
                break
        return path


def fields(path: list[str], scheme: str, host: bytes) -> bytes:
    """`Forwarded` and `X-Forwarded-*` of a request for `host` that came along `path`, its client first."""
    client = path[0]
    node = f'"[{client}]"' if ":" in client else client or "unknown"
    quoted = '"%s"' if b":" in host else "%s"
    name = host.decode("latin-1")
    return (
        f"X-Forwarded-For: {', '.join(path)}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Host: {name}\r\n"
        f"Forwarded: for={node};host={quoted % name};proto={scheme}\r\n"
    ).encode("latin-1")
