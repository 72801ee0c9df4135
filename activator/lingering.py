"""Connections to instances whose process has ended, and which the instance has not closed yet: the kernel's own count of them.

A request that was at an instance when its worker was killed may run on there. The worker's side of the connection is closed by
the kernel and stays half-closed (FIN_WAIT) until the app has closed its side too or has written into it: so as long as one is
there, the app may be busy with it. The kernel forgets them after `net.ipv4.tcp_fin_timeout` (60 s).

It is asked by netlink for those in that state alone: to print all connections into /proc/net/tcp takes it 10 µs for each, while nobody
is served, and there may be ten thousand. A kernel without that (CONFIG_INET_DIAG) is read from there all the same.
"""

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

FRESH_S = 0.02
_HALF_CLOSED = (b"04", b"05")
"""FIN_WAIT1 and FIN_WAIT2."""
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _DUMP, _ERROR, _DONE = 4, 20, 0x1, 0x300, 2, 3
_HEADER = struct.Struct("=IHHII")
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
            try:
                addresses = [each for family in (socket.AF_INET, socket.AF_INET6) for each in asked(family)]
            except OSError:
                addresses = printed()
            for address in addresses:
                self._found[address] = self._found.get(address, 0) + 1
        return dict(self._found)


def asked(family: int) -> Iterator[str]:
    """The far ends of the half-closed connections of `family`, by netlink (sock_diag(7)). Raises OSError where that is not had."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as link:
        link.settimeout(1)
        request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, 1 << 4 | 1 << 5)
        link.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + request)
        while True:
            data, at = link.recv(1 << 16), 0
            while at < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                    raise OSError(code, errno.errorcode.get(code, "netlink"))
                yield far_end(data, at + _HEADER.size)
                at += (length + 3) & ~3


def far_end(data: bytes, at: int) -> str:
    """Of one `inet_diag_msg`: family, state, timer, retransmits; ports; addresses of 16 bytes each."""
    family, port = data[at], int.from_bytes(data[at + 6 : at + 8], "big")
    packed = data[at + 24 : at + 40]
    return f"{_text(packed[:4] if family == socket.AF_INET else packed)}:{port}"


def printed() -> list[str]:
    """The same from /proc."""
    found = []
    for table in _TABLES:
        try:
            found += half_closed(table.read_bytes())
        except OSError:
            continue
    return found


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
    return _text(b"".join(int(hexadecimal[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(hexadecimal), 8)))


def _text(packed: bytes) -> str:
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"


_MAPPED = bytes(10) + b"\xff\xff"
