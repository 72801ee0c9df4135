"""DNS as instances ask it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import names
from nodeagent.names import AAAA, NXDOMAIN, REFUSED, A, Fate

GATEWAY = "10.231.0.1"


def query(name: str, kind: int = A, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return struct.pack("!HHHHHH", 0x1234, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def said(packet: bytes) -> tuple[int, str]:
    """The code and the address of an answer."""
    identity, flags, _, records, *_ = names.HEADER.unpack_from(packet)
    assert identity == 0x1234
    assert flags & 0x8000
    return flags & 0xF, ".".join(map(str, packet[-4:])) if records else ""


@pytest.mark.parametrize(
    ("name", "kind", "code", "address"),
    [
        ("metadata.google.internal", A, 0, "169.254.169.254"),
        ("Metadata.Ebb.Internal", A, 0, "169.254.169.254"),
        ("metadata.google.internal", AAAA, 0, ""),
        ("hello.shop.svc.cluster.local", A, 0, GATEWAY),
        ("hello.shop.svc.cluster.local", AAAA, 0, ""),
        ("a.hello.shop.svc.cluster.local", A, NXDOMAIN, ""),
        ("svc.cluster.local", A, NXDOMAIN, ""),
    ],
)
def test_names_of_the_engine_are_answered_here(name: str, kind: int, code: int, address: str) -> None:
    fate, reply = names.decide(query(name, kind), GATEWAY, inner=True, outside=True)
    assert fate is Fate.ANSWERED
    assert said(reply) == (code, address)


def test_other_names_are_asked_for_only_where_the_world_may_be_reached() -> None:
    assert names.decide(query("example.org"), GATEWAY, inner=True, outside=True) == (Fate.FORWARDED, b"")
    fate, reply = names.decide(query("secret.attacker.example"), GATEWAY, inner=True, outside=False)
    assert (fate, said(reply)) == (Fate.ANSWERED, (REFUSED, ""))
    assert said(names.decide(query("metadata.google.internal"), GATEWAY, inner=True, outside=False)[1])[0] == 0


def test_without_an_inner_door_no_service_has_a_name() -> None:
    assert said(names.decide(query("a.b.svc.cluster.local"), GATEWAY, inner=False, outside=True)[1]) == (NXDOMAIN, "")


@given(st.binary(max_size=64))
def test_whatever_is_no_question_is_dropped_and_nothing_raises(packet: bytes) -> None:
    fate, reply = names.decide(packet, GATEWAY, inner=True, outside=True)
    assert fate is Fate.DROPPED or names.question(packet) is not None
    assert fate is Fate.ANSWERED or reply == b""


def test_answers_are_not_questions_and_a_name_is_not_compressed() -> None:
    assert names.question(query("example.org", flags=0x8100)) is None
    assert names.question(query("example.org")[:12] + b"\xc0\x0c\0\1\0\1") is None
    assert names.question(query("x" * 63 + "." + "y" * 63 + "." + "z" * 63 + "." + "w" * 63)) is None


def test_a_forged_answer_is_known_by_its_id_or_its_question() -> None:
    asked = query("example.org")
    good = bytearray(asked)
    good[2] |= 0x80
    assert names.answers(bytes(good), asked)
    assert not names.answers(b"\0\0" + bytes(good[2:]), asked)
    assert not names.answers(bytes(good).replace(b"example", b"exbmple"), asked)
    assert not names.answers(asked, asked)
