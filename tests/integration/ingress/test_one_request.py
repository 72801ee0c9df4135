"""Whatever of HTTP/1.1 the front door takes, an instance sees as exactly that many requests, and other parsers agree on each."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.ingress.one_request import HOST_BYTES, LAST, MANY, Bench, by_h11, check_http1

# -- what is sent ---------------------------------------------------------------------------------------------------------------

_FIELDS = st.sampled_from(
    [
        b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3 \r\n", b"content-length:3\r\n", b"Content-Length: 03\r\n",
        b"Content-Length : 3\r\n", b"Content_Length: 9\r\n", b"Content-Length: 3\r\nContent-Length: 3\r\n", b"Content-Length: 3,3\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: x\r\n", b"Transfer-Encoding\r\n: chunked\r\n", b"TE: trailers\r\n",
        b"Connection: close\r\n", b"Connection: Content-Length\r\n", b"Connection: Transfer-Encoding, Host\r\n", b"X: a\r\n b\r\n",
        b"X: a\nY: b\r\n", b"X: \xff\r\n", b"X:\r\n", b"Host: other\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"X: a\rb\r\n",
        b"X-Forwarded-For: 9.9.9.9\r\n", b"Trailer: X\r\n", b"Cookie: a=b\r\n", b"Transfer_Encoding: chunked\r\n",
    ]
)  # fmt: skip
_BODIES = st.sampled_from(
    [
        b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n",
        b"03\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3\nabc\n0\n\n", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"abcGET /next HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST_BYTES,
    ]
)  # fmt: skip
_LINES = st.sampled_from(
    [b"GET / HTTP/1.1", b"POST /p?q HTTP/1.1", b"POST / HTTP/1.0", b"HEAD / HTTP/1.1", b"OPTIONS * HTTP/1.1",
     b"GET http://%b/x HTTP/1.1" % HOST_BYTES]
)  # fmt: skip
_BITS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"a", b"f", b"/", b"*", b"#", b"\x0b", b"\x7f", b"\xa0",
     b"\r\n\r\n", b"chunked", b"HTTP/1.1", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b" HTTP/1.0", b"\r\n "]
)  # fmt: skip


@st.composite
def valid(draw: st.DrawFn) -> bytes:
    """A request that is as it should be: by length, chunked with extensions and trailers, or without a body."""
    target = draw(st.sampled_from([b"/", b"/a/b?c=d&e", b"/%41;x=1", b"//two", b"/?", b"/\x7e!$&'()*+,;=:@"]))
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    fields = draw(
        st.lists(st.sampled_from([b"X-A: b\r\n", b"Accept: */*\r\n", b"X-Empty:\r\n", b"Cookie: a; b\r\n"]), max_size=2)
    )
    head = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b" % (
        b"GET" if kind == "none" else draw(st.sampled_from([b"POST", b"PUT", b"DELETE"])),
        target,
        HOST_BYTES,
        b"".join(fields),
    )
    body = draw(st.binary(max_size=40)) if kind != "none" else b""
    if kind == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    if kind == "none":
        return head + b"\r\n"
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if b > a]
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailer = draw(st.sampled_from([b"", b"X-T: 1\r\n"]))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One to three requests of which bytes were put in, taken out, doubled or changed."""
    data = b"".join(draw(st.lists(valid(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        bit = draw(_BITS)
        how = draw(st.sampled_from(["put", "cut", "double", "change"]))
        if how == "put":
            data = data[:at] + bit + data[at:]
        elif how == "cut":
            data = data[:at] + data[at + draw(st.integers(1, 4)) :]
        elif how == "double":
            end = data.find(b"\r\n", at) + 2
            data = data[:end] + data[at:end] + data[end:] if end > 1 else data
        else:
            data = data[:at] + bit + data[at + len(bit) :]
    return data


# -- the claims -----------------------------------------------------------------------------------------------------------------


@MANY
@given(line=_LINES, fields=st.lists(_FIELDS, max_size=3), body=_BODIES)
def test_what_is_taken_of_odd_requests_is_one_request_that_all_read_alike(
    bench: Bench, line: bytes, fields: list[bytes], body: bytes
) -> None:
    check_http1(bench, b"%b\r\nHost: %b\r\n%b\r\n" % (line, HOST_BYTES, b"".join(fields)) + body)


@MANY
@given(requests=st.lists(valid(), min_size=1, max_size=4))
def test_good_requests_in_a_row_are_all_taken_as_they_are(bench: Bench, requests: list[bytes]) -> None:
    seen = check_http1(bench, b"".join(requests) + LAST)
    assert seen == by_h11(b"".join(requests) + LAST)
    assert len(seen) == len(requests) + 1


@settings(MANY, max_examples=150)
@given(data=mutated())
def test_what_is_taken_of_damaged_requests_in_a_row_is_read_alike(bench: Bench, data: bytes) -> None:
    check_http1(bench, data + LAST)


def test_good_requests_are_taken_by_the_checks_above(bench: Bench) -> None:
    """So that the properties are not true for nothing."""
    plain = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\n\r\nabc" % HOST_BYTES
    chunked = b"POST / HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % HOST_BYTES
    assert check_http1(bench, plain + chunked + LAST) == [(b"POST", b"/", b"abc")] * 2 + [(b"GET", b"/last", b"")]
