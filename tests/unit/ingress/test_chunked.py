"""The chunked body."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.chunked import BadChunk, ChunkDecoder, encode_chunk, encode_end


def decode(data: bytes) -> tuple[bytes, bytes, ChunkDecoder]:
    decoder = ChunkDecoder()
    pieces, rest = decoder.feed(data)
    return b"".join(pieces), rest, decoder


def test_what_follows_the_end_comes_back() -> None:
    body, rest, decoder = decode(b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1")
    assert (body, rest, decoder.done, decoder.trailers) == (b"hello", b"GET / HTTP/1.1", True, [(b"X-T", b"1")])


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b" 1\r\n", b"\r\n", b"1\nab", b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na0\r\n",
        b"1;a\x00\r\n", b"1;a\rb\r\n", b"1 2\r\n", b"ffffffffffffffffff\r\n", b"1;" + b"a" * 300, b"0\r\nX : 1\r\n", b"0\r\n X: 1\r\n",
        b"0\r\nX: a\x00\r\n", b"0\r\nX: a\n\r\n", b"0\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 400, b"1\r\na\r\r\n",
    ],
)  # fmt: skip
def test_bad_framing_is_an_error(data: bytes) -> None:
    with pytest.raises(BadChunk):
        ChunkDecoder().feed(data)
    with pytest.raises(BadChunk):
        byte_by_byte(data)


def byte_by_byte(data: bytes) -> None:
    decoder = ChunkDecoder()
    for each in data:
        decoder.feed(bytes([each]))


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.lists(st.integers(1, 40), max_size=20), st.binary(max_size=10)
)
def test_however_it_is_cut_the_body_is_the_same_and_h11_agrees(pieces: list[bytes], cuts: list[int], after: bytes) -> None:
    data = b"".join(encode_chunk(piece) for piece in pieces) + encode_end([(b"x-t", b"1")]) + after
    decoder = ChunkDecoder()
    body, rest, at = b"", b"", 0
    for cut in [*cuts, len(data)]:
        found, rest = decoder.feed(data[at : at + cut])
        body += b"".join(found)
        at += cut
        if decoder.done:
            rest += data[at:]
            break
    assert decoder.done
    assert body == b"".join(pieces)
    assert rest == after
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data[: len(data) - len(after)])
    seen = b""
    while not isinstance(event := other.next_event(), h11.EndOfMessage):
        seen += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert seen == body
    assert list(event.headers) == [(b"x-t", b"1")]


@given(st.binary(max_size=100))
def test_noise_is_an_error_or_incomplete_never_more(noise: bytes) -> None:
    try:
        decode(noise)
    except BadChunk:
        pass


def test_a_trailer_that_would_frame_or_route_is_dropped() -> None:
    trailers = [(b"Content-Length", b"5"), (b"X-Sum", b"1"), (b"transfer-encoding", b"chunked"), (b"Host", b"a.b")]
    assert encode_end(trailers) == b"0\r\nX-Sum: 1\r\n\r\n"
