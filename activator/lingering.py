"""Connections to instances whose process has ended, and which the instance has not closed yet: the kernel's own count of them.

A request that was at an instance when its worker was killed may run on there. The worker's side of the connection is closed by
the kernel and stays half-closed (FIN_WAIT) until the app has closed its side too or has written into it: so as long as one is
there, the app may be busy with it. The kernel forgets them after `net.ipv4.tcp_fin_timeout` (60 s).
"""

import socket
import sys
from pathlib import Path
from time import monotonic

FRESH_S = 0.02
_HALF_CLOSED = (b"04", b"05")
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


class Lingering:
    """`lingering()`: "ip:port" → how many. What was read is good for `FRESH_S`."""

    def __init__(self) -> None:
        self._read_at = -FRESH_S
        self._found: dict[str, int] = {}

    def __call__(self) -> dict[str, int]:
        now = monotonic()
        if now - self._read_at >= FRESH_S:
            self._read_at = now
            self._found = {}
            for table in _TABLES:
                try:
                    data = table.read_bytes()
                except OSError:
                    continue
                for address in half_closed(data):
                    self._found[address] = self._found.get(address, 0) + 1
        return dict(self._found)


def half_closed(table: bytes) -> list[str]:
    """The far ends of the half-closed connections in `/proc/net/tcp`."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split(None, 4)
        if len(fields) > 3 and fields[3] in _HALF_CLOSED:
            address, _, port = fields[2].partition(b":")
            found.append(f"{_host(address)}:{int(port, 16)}")
    return found


def _host(hexadecimal: bytes) -> str:
    """The kernel prints addresses as 32-bit words of the machine's own order."""
    packed = b"".join(int(hexadecimal[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(hexadecimal), 8))
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"


_MAPPED = bytes(10) + b"\xff\xff"
