"""Header compression: what goes out is read alike by another implementation, what comes in from another is read alike by us."""

import pytest
from hpack import Decoder as OtherDecoder
from hpack import Encoder as OtherEncoder
from hypothesis import given
from hypothesis import strategies as st

from ingress.hpack2 import BadBlock, BigHead, Decoder, Encoder, Field

NAMES = [b":method", b":path", b":status", b"content-type", b"x-a", b"x-long-name-" + b"n" * 150, b"authorization"]
VALUES = st.sampled_from([b"", b"GET", b"/", b"200", b"a", b"v" * 100, b"v" * 500, b"w" * 3000]) | st.binary(max_size=20)
FIELDS = st.tuples(st.sampled_from(NAMES), VALUES)
HEADS = st.lists(st.lists(FIELDS, max_size=12), max_size=12)
NEVER = frozenset((b"authorization",))


@given(HEADS, st.lists(st.sampled_from([0, 40, 100, 500, 4096]), max_size=12))
def test_others_read_what_we_write_whatever_table_they_keep(heads: list[list[Field]], sizes: list[int]) -> None:
    ours, other = Encoder(4096, NEVER), OtherDecoder(max_header_list_size=2**20)
    for place, head in enumerate(heads):
        if place < len(sizes):
            ours.resize(sizes[place])
            other.max_allowed_table_size = max(4096, sizes[place])
        assert [(bytes(n), bytes(v)) for n, v in other.decode(ours.encode(head), raw=True)] == head


@given(
    st.lists(st.lists(FIELDS, max_size=12), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 0, 0, 40, 500, 4096])), max_size=30),
)
def test_a_head_that_comes_again_is_read_alike_whatever_came_between(
    heads: list[list[Field]], turns: list[tuple[int, int]]
) -> None:
    ours, other = Encoder(4096, NEVER), OtherDecoder(max_header_list_size=2**20)
    other.max_allowed_table_size = 4096
    for place, size in turns:
        if size:
            ours.resize(size)
        head = heads[place % len(heads)]
        assert [(bytes(n), bytes(v)) for n, v in other.decode(ours.encode(head), raw=True)] == head


@given(HEADS, st.lists(st.sampled_from([0, 40, 100, 500, 4096]), max_size=12), st.booleans())
def test_we_read_what_others_write_and_the_same_again(heads: list[list[Field]], sizes: list[int], huffman: bool) -> None:
    other, ours = OtherEncoder(), Decoder(4096, 2**20)
    for place, head in enumerate(heads):
        if place < len(sizes):
            other.header_table_size = sizes[place]
        for _ in range(3):
            assert ours.decode(other.encode(head, huffman=huffman)) == head


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_read_or_refused(blocks: list[bytes]) -> None:
    ours = Decoder(4096, 2**16)
    for block in blocks:
        try:
            ours.decode(block)
        except (BadBlock, BigHead):
            return


def test_what_stands_in_a_table_is_one_byte() -> None:
    ours = Encoder(4096, NEVER)
    head = [(b":status", b"200"), (b"content-type", b"text/plain"), (b"server", b"x")]
    assert len(ours.encode(head)) > 10
    assert len(ours.encode(head)) == 3


def test_a_secret_gets_into_no_table() -> None:
    ours = Encoder(4096, NEVER)
    first = ours.encode([(b"authorization", b"Bearer x")])
    assert ours.encode([(b"authorization", b"Bearer x")]) == first
    assert first[0] & 0xF0 == 0x10
    assert b"Bearer x" in first


def test_a_head_is_bounded_though_its_block_is_small() -> None:
    other, ours = OtherEncoder(), Decoder(4096, 65_536)
    ours.decode(other.encode([(b"x", b"x" * 3000)]))
    with pytest.raises(BigHead, match="65536"):
        ours.decode(b"\xbe" * 30)
