"""What a Host field may be, and how hosts are told apart."""

import re

_HOST = re.compile(rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def well_formed(host: bytes) -> bool:
    """Whether `host` can be a Host field: a name or address, and a port perhaps; no userinfo, no path."""
    if _HOST.fullmatch(host) is None or b".." in host:
        return False
    port = host.rpartition(b":")[2] if not host.endswith(b"]") and b":" in host else b"0"
    return int(port) <= 65_535


def canonical(host: bytes) -> str:
    """`host` without port and trailing dot, in lower case: what routes are keyed by."""
    if not host.endswith(b"]") and b":" in host:
        host = host.rpartition(b":")[0]
    return host.rstrip(b".").lower().decode("ascii")
