"""DNS as instances ask it: which names are answered here, and the bytes of such answers. Pure; the asking is `nameserver`.

metadata.google.internal, metadata.ebb.internal    the metadata address
<service>.<project>.svc.cluster.local              the front door's inner port, whatever the service: it knows the names
anything else                                      the machine's own name servers, where the instance's egress is not `none`
"""

import ipaddress
import struct
from dataclasses import dataclass
from enum import Enum, auto

from nodeagent.firewall import METADATA

A, AAAA, ANY = 1, 28, 255
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5
INNER = ".svc.cluster.local"
METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.ebb.internal"})
TTL_S = 30
HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _RECURSION_WANTED, _RECURSION_HAD, _OPCODE = 0x8000, 0x0100, 0x0080, 0x7800


class Fate(Enum):
    """What becomes of a question."""

    ANSWERED = auto()
    FORWARDED = auto()
    DROPPED = auto()


@dataclass(frozen=True, slots=True)
class Question:
    """The one question of a query; `end` is where it ends in the packet."""

    name: str
    kind: int
    end: int


def question(packet: bytes) -> Question | None:
    """What `packet` asks; None: it is no plain query."""
    if len(packet) < HEADER.size:
        return None
    _, flags, questions, *_ = HEADER.unpack_from(packet)
    if flags & (_RESPONSE | _OPCODE) or questions != 1:
        return None
    labels, at = [], HEADER.size
    while True:
        if at >= len(packet):
            return None
        size = packet[at]
        at += 1
        if not size:
            break
        if size > 63 or at + size > len(packet):
            return None
        labels.append(packet[at : at + size])
        at += size
    if at + 4 > len(packet) or at - HEADER.size > 255:
        return None
    kind, network = struct.unpack_from("!HH", packet, at)
    if network != 1:
        return None
    return Question(b".".join(labels).decode("latin-1").lower(), kind, at + 4)


def decide(packet: bytes, gateway: str, *, inner: bool, outside: bool) -> tuple[Fate, bytes]:
    """What to do with a query, and the answer when it is given here. `inner`: services can be called; `outside`: other names may be
    asked for."""
    asked = question(packet)
    if asked is None:
        return Fate.DROPPED, b""
    if asked.name in METADATA_NAMES:
        return Fate.ANSWERED, answer(packet, asked, METADATA)
    if asked.name.endswith(INNER) or asked.name == INNER[1:]:
        labels = asked.name.removesuffix(INNER).split(".")
        if inner and len(labels) == 2 and all(labels):
            return Fate.ANSWERED, answer(packet, asked, gateway)
        return Fate.ANSWERED, failed(packet, asked, NXDOMAIN)
    if not outside:
        return Fate.ANSWERED, failed(packet, asked, REFUSED)
    return Fate.FORWARDED, b""


def answer(packet: bytes, asked: Question, address: str) -> bytes:
    """`address` for a question of IPv4; nothing, and no error, for any other."""
    if asked.kind not in (A, ANY):
        return _head(packet, 0, 0) + packet[HEADER.size : asked.end]
    record = struct.pack("!HHHIH", 0xC000 | HEADER.size, A, 1, TTL_S, 4) + ipaddress.IPv4Address(address).packed
    return _head(packet, 0, 1) + packet[HEADER.size : asked.end] + record


def failed(packet: bytes, asked: Question, code: int) -> bytes:
    """An answer that says why there is none."""
    return _head(packet, code, 0) + packet[HEADER.size : asked.end]


def answers(reply: bytes, query: bytes) -> bool:
    """Whether `reply` is a server's answer to `query`: its id, and its question, letter by letter."""
    asked = question(query)
    if asked is None or len(reply) < HEADER.size or reply[:2] != query[:2]:
        return False
    return bool(reply[2] & 0x80) and reply[HEADER.size : asked.end].lower() == query[HEADER.size : asked.end].lower()


def _head(packet: bytes, code: int, records: int) -> bytes:
    identity, flags, *_ = HEADER.unpack_from(packet)
    return HEADER.pack(identity, _RESPONSE | (flags & _RECURSION_WANTED) | _RECURSION_HAD | code, 1, records, 0, 0)
