"""The kernel's rtnetlink: messages as bytes, and a socket that sends several and waits for every answer.

Own code, not a library, because a namespace is made in the time that the start path of a burst is waiting for: a dozen packed
structs in three datagrams take half a millisecond.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence

ERROR, DONE = 2, 3
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, NEWROUTE, GETROUTE, NEWNEIGH = 20, 24, 26, 28
REQUEST, ACK, REPLACE, EXCL, CREATE, DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
UP = 0x1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SIOCGIFINDEX = 0x8933
_ANSWER_BYTES = 1 << 17
TIMEOUT_S = 5.0


class NetlinkError(OSError):
    """The kernel refused a request; `strerror` names the request."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute."""
    return attribute(kind, struct.pack("=I", value))


def link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """struct ifinfomsg."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def address(index: int, prefix: int) -> bytes:
    """struct ifaddrmsg of an IPv4 address."""
    return struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index)


def route(prefix: int, scope: int, flags: int = 0) -> bytes:
    """struct rtmsg of an IPv4 unicast route in the main table."""
    return struct.pack("=BBBBBBBBI", socket.AF_INET, prefix, 0, 0, 254, 4, scope, 1, flags)


def neighbour(index: int) -> bytes:
    """struct ndmsg of a permanent IPv4 neighbour."""
    return struct.pack("=BxxxiHBB", socket.AF_INET, index, 0x80, 0, 0)


class Request:
    """One message: its kind, flags, fixed part with attributes, and the words for an error."""

    __slots__ = ("body", "flags", "kind", "what")

    def __init__(self, what: str, kind: int, flags: int, *parts: bytes) -> None:
        self.what, self.kind, self.flags, self.body = what, kind, flags | REQUEST, b"".join(parts)


class Netlink:
    """An rtnetlink socket of the network namespace its maker is in. Blocking, for a helper thread; every wait has a deadline."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind((0, 0))
        self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sequence = 0

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the sockets."""
        self._socket.close()
        self._names.close()

    def index(self, name: str) -> int | None:
        """The interface's index, or None when there is none of that name."""
        try:
            answer = fcntl.ioctl(self._names, _SIOCGIFINDEX, struct.pack("16sI20x", name.encode(), 0))
        except OSError:
            return None
        return int(struct.unpack_from("=I", answer, 16)[0])

    def apply(self, requests: Sequence[Request]) -> None:
        """Send all in one datagram and wait until each was done. Raises NetlinkError for the first that was refused."""
        first = self._sequence + 1
        datagram = bytearray()
        for request in requests:
            self._sequence += 1
            length = _HEADER.size + len(request.body)
            datagram += _HEADER.pack(length, request.kind, request.flags | ACK, self._sequence, 0)
            datagram += request.body + b"\0" * (-length % 4)
        self._socket.send(datagram)
        waiting = set(range(first, self._sequence + 1))
        refused: tuple[int, int] | None = None
        while waiting:
            for kind, sequence, body in self._answers():
                if kind != ERROR or sequence not in waiting:
                    continue
                waiting.discard(sequence)
                code = -struct.unpack_from("=i", body)[0]
                if code and (refused is None or sequence < refused[0]):
                    refused = sequence, code
        if refused is not None:
            what = requests[refused[0] - first].what
            raise NetlinkError(refused[1], f"cannot {what}: {os.strerror(refused[1])}")

    def dump(self, kind: int, head: bytes) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        """Everything of one kind, as (fixed part, attributes)."""
        self._sequence += 1
        datagram = _HEADER.pack(_HEADER.size + len(head), kind, REQUEST | DUMP, self._sequence, 0) + head
        self._socket.send(datagram)
        found: list[tuple[bytes, dict[int, bytes]]] = []
        while True:
            for answer, sequence, body in self._answers():
                if sequence != self._sequence:
                    continue
                if answer == DONE:
                    return iter(found)
                if answer == ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise NetlinkError(code, f"cannot list: {os.strerror(code)}")
                found.append((body[: len(head)], attributes(body[len(head) :])))

    def _answers(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(_ANSWER_BYTES)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _flags, sequence, _pid = _HEADER.unpack_from(data, at)
            yield kind, sequence, data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by kind; of several of one kind the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
