"""Whatever of HTTP/2 the front door takes, an instance sees as one request of HTTP/1.1 that all read alike."""

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from ingress.speaker2 import PREFACE
from tests.integration.ingress.door import HOST
from tests.integration.ingress.one_request import MANY, Bench

_NAMES = st.sampled_from(
    [
        "x-a",
        "content-length",
        "transfer-encoding",
        "te",
        "host",
        "cookie",
        "connection",
        "x_a",
        "expect",
        ":path",
        "X-A",
        "x a",
        "x\n",
    ]
)
_VALUES = st.sampled_from(
    [
        "",
        "a",
        "3",
        "0",
        "3, 3",
        "chunked",
        "trailers",
        HOST,
        "a\r\nHost: b",
        "a\nb",
        "a\0",
        " a",
        "\xff",
        "100-continue",
        "close",
    ]
)


@st.composite
def http2(draw: st.DrawFn) -> bytes:
    """One stream of HTTP/2, well framed, with fields, data and trailers that may be anything."""
    method = draw(st.sampled_from(["GET", "POST", "POST", "PO ST", "GET / HTTP/1.1\r\nX:"]))
    path = draw(st.sampled_from(["/", "/a?b", "/a b", "/a\r\nX: y", "*", "/#", "", "http://x/"]))
    pseudo = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", draw(st.sampled_from([HOST, HOST, "a b"]))),
    ]
    fields = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=3))
    pieces = draw(st.lists(st.binary(max_size=4), max_size=3))
    trailers = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=2))
    encoder = Encoder()
    data = PREFACE + _frame(4, 0, 0, b"")
    data += _frame(1, 4 | (not pieces and not trailers), 1, _block(encoder, pseudo + fields))
    for place, piece in enumerate(pieces):
        data += _frame(0, int(not trailers and place == len(pieces) - 1), 1, piece)
    return data + (_frame(1, 5, 1, _block(encoder, trailers)) if trailers else b"")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _block(encoder: Encoder, pairs: list[tuple[str, str]]) -> bytes:
    return encoder.encode([(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs])


@settings(MANY, max_examples=120)
@given(data=http2())
def test_what_is_taken_of_http2_is_one_request_of_http1_that_all_read_alike(bench: Bench, data: bytes) -> None:
    _, seen = bench.play(data)
    assert len(seen) <= 1
    for method, target, _ in seen:
        assert method in (b"GET", b"POST")
        assert target in (b"/", b"/a?b", b"*")


@st.composite
def frames2(draw: st.DrawFn) -> bytes:
    """Frames of any kind, some of them right, in any order."""
    encoder = Encoder()
    good = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", HOST)]
    data = PREFACE + _frame(4, 0, 0, b"")
    for _ in range(draw(st.integers(1, 6))):
        stream = draw(st.sampled_from([0, 1, 1, 1, 2, 3, 5, 2**31 - 1]))
        if draw(st.booleans()):
            data += _frame(1, draw(st.sampled_from([0, 4, 5, 5])), stream, _block(encoder, good))
        else:
            payload = draw(
                st.one_of(st.binary(max_size=12), st.sampled_from([bytes(4), bytes(8), b"\xff" * 6, b"\0\4\0\0\0\1"]))
            )
            data += _frame(draw(st.integers(0, 11)), draw(st.sampled_from([0, 1, 4, 5, 8, 0x2C, 0xFF])), stream, payload)
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=3)) + data[at:] if draw(st.booleans()) else data


@settings(MANY, max_examples=120)
@given(data=frames2())
def test_no_frames_of_http2_make_the_front_door_fail(bench: Bench, data: bytes) -> None:
    bench.play(data)


def test_a_good_request_is_taken_by_the_checks_above(bench: Bench) -> None:
    """So that the properties are not true for nothing."""
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/a?b"), (":authority", HOST)]
    good = PREFACE + _frame(4, 0, 0, b"") + _frame(1, 4, 1, _block(Encoder(), pseudo)) + _frame(0, 1, 1, b"abc")
    assert bench.play(good)[1] == [(b"POST", b"/a?b", b"abc")]
