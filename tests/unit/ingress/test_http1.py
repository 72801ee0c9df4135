"""Heads: what is taken, what is refused, and that what is taken means the same to other parsers."""

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress import answers1, limits
from ingress.answers1 import ResponseParser
from ingress.headers import serialise
from ingress.http1 import CHUNKED, UNTIL_CLOSE, BadResponse, RequestParser, begin
from ingress.refusals import Refused

GET = b"GET / HTTP/1.1\r\nHost: a.b\r\n"


def everything(message) -> dict[str, object]:
    said = {name: value for name, value in vars(type(message)).items() if not name.startswith("_") and not callable(value)}
    return {**said, **vars(message)}


def parse(head: bytes):
    """What `head` means, which is the same when it comes again, whatever became of the first request."""
    parser = RequestParser()
    first = parser.parse(head)
    known = {**everything(first), "begun": begin(first)}
    first.add(b"X-Tag", b"of the first one only")
    first.aim(b"/elsewhere")
    for _ in range(3):
        again = parser.parse(head)
        assert {**everything(again), "begun": begin(again)} == known
        assert again.begun in (b"", begin(again))
        again.add(b"X-Tag", b"of this one only")
        again.aim(b"/elsewhere")
    return parser.parse(head)


def test_a_plain_request_is_taken_as_it_is() -> None:
    request = parse(b"GET /a/b?c=%20 HTTP/1.1\r\nHost: hello.default.localhost:8080\r\nX-A: 1\r\nAccept: */*  \r\n\r\n")
    assert (request.method, request.target, request.host) == (b"GET", b"/a/b?c=%20", b"hello.default.localhost:8080")
    assert request.fields == [(b"X-A", b"1"), (b"Accept", b"*/*")]
    assert request.keep_alive
    assert request.length == 0


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.0\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: \t \r\n\r\n", "bad-request"),
        (GET + b"Host: a.b\r\n\r\n", "bad-request"),
        (GET + b"host: c\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: user@a.b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a.b/path\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a.b?x\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a.b#x\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n", "bad-request"),
        (b"GET * HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET a.b/ HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET http://c.d/ HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET http://u@a.b/ HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET ftp://a.b/ HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET /#f HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET /\x01 HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET /\xff HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET  / HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET /  HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1 \r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"get / HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/2.0\r\nHost: a.b\r\n\r\n", "version"),
        (b"GET / HTTP/1.2\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET / RTSP/1.0\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"GET /\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"FOO / HTTP/1.1\r\nHost: a.b\r\n\r\n", "bad-request"),
        (b"CONNECT a.b:80 HTTP/1.1\r\nHost: a.b:80\r\n\r\n", "method-not-allowed"),
        (b"PRI * HTTP/2.0\r\n\r\n", "version"),
        (GET + b"X : a\r\n\r\n", "bad-request"),
        (GET + b": a\r\n\r\n", "bad-request"),
        (GET + b"X\r\n\r\n", "bad-request"),
        (GET + b"X: a\x00b\r\n\r\n", "bad-request"),
        (GET + b"X: a\x0bb\r\n\r\n", "bad-request"),
        (GET + b"X: a\x7fb\r\n\r\n", "bad-request"),
        (GET + b"X: a\rb\r\n\r\n", "bad-request"),
        (GET + b"X: a\nY: b\r\n\r\n", "bad-request"),
        (GET + b"X: a\r\n b\r\n\r\n", "bad-request"),
        (GET + b"X: a\r\n\tb\r\n\r\n", "bad-request"),
        (GET + b"X\xe4: a\r\n\r\n", "bad-request"),
        (GET + b"X(y): a\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\r\n Host: a.b\r\n\r\n", "bad-request"),
        (b"GET / HTTP/1.1\nHost: a.b\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 1, 1\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: +1\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: -1\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 0x1\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 1_0\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 1 1\r\n\r\n", "bad-request"),
        (GET + b"Content-Length:\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 9999999999999999999999\r\n\r\n", "bad-request"),
        (GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: chunked, chunked\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: identity\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: xchunked\r\n\r\n", "bad-request"),
        (GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n", "bad-request"),
        (GET + b"Transfer_Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n", "bad-request"),
        (b"POST / HTTP/1.0\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n", "bad-request"),
        (GET + b"Expect: 200-ok\r\n\r\n", "expectation-failed"),
        (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "bad-request"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a.b\r\n\r\n", "uri-too-long"),
        (GET + b"X: a\r\n" * 101 + b"\r\n", "headers-too-large"),
    ],
)
def test_a_bad_head_is_refused_and_the_parser_is_fit_for_the_next(head: bytes, reason: str) -> None:
    parser = RequestParser()
    with pytest.raises(Refused) as refused:
        parser.parse(head)
    assert refused.value.reason == reason
    assert parser.parse(GET + b"\r\n").host == b"a.b"


@pytest.mark.parametrize(
    "head",
    [
        GET + b"Connection: close\r\n\r\n",
        GET + b"Content-Length: 5\r\n\r\n",
        GET + b"Transfer-Encoding: Chunked\r\n\r\n",
        GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a.b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.b\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a.b\r\n\r\n",
        b"GET http://A.b/x?y HTTP/1.1\r\nHost: a.b\r\n\r\n",
        b"GET http://a.b?y HTTP/1.1\r\nHost: a.b\r\n\r\n",
        GET + b"X: a\r\n" * 99 + b"\r\n",
    ],
)
def test_nothing_of_one_head_is_left_for_the_next(head: bytes) -> None:
    parser = RequestParser()
    parser.parse(head)
    request = parser.parse(GET + b"\r\n")
    assert (request.length, request.keep_alive, request.fields) == (0, True, [])


def test_absolute_form_becomes_origin_form() -> None:
    assert parse(b"GET http://A.b/x?y HTTP/1.1\r\nHost: a.b\r\n\r\n").target == b"/x?y"
    assert parse(b"GET http://a.b?y HTTP/1.1\r\nHost: a.b\r\n\r\n").target == b"/?y"
    assert parse(b"GET http://a.b HTTP/1.1\r\nHost: a.b\r\n\r\n").target == b"/"


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-FORWARDED-HOST", "X-Forwarded-Anything", "X-Real-IP", "X-Ebb-Reason",
        "x-ebb-revision", "X_Forwarded_For", "X_Ebb_Cause", "Proxy", "Proxy-Connection", "Keep-Alive", "TE", "Proxy-Authorization",
        "Content_Length", "Host_", "Transfer_Encoding",
    ],
)  # fmt: skip
def test_what_a_client_could_speak_in_our_name_with_is_dropped(name: str) -> None:
    fields = parse(GET + name.encode() + b": spoofed\r\nX-Kept: 1\r\napi_key: k\r\n\r\n").fields
    kept = [(b"X-Kept", b"1"), (b"api_key", b"k")]
    assert fields == ([(b"Host_", b"spoofed"), *kept] if name == "Host_" else kept)


def test_fields_named_in_connection_end_here() -> None:
    request = parse(GET + b"Connection: keep-alive, X-Hop\r\nx-hop: 1\r\nX-Stay: 2\r\n\r\n")
    assert request.fields == [(b"X-Stay", b"2")]


def test_an_upgrade_that_is_not_a_websocket_is_an_ordinary_request() -> None:
    request = parse(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n")
    assert request.websocket_key == b""
    assert request.fields == []


def test_a_websocket_is_known_by_its_key() -> None:
    request = parse(GET + b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: abc\r\n\r\n")
    assert request.websocket_key == b"abc"


def test_request_ids_and_traces_are_taken_over_only_when_well_formed() -> None:
    trace = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    good = parse(GET + b"X-Request-Id: abc-1\r\ntraceparent: " + trace + b"\r\n\r\n")
    assert (good.request_id, good.trace) == (b"abc-1", trace)
    bad = parse(GET + b"X-Request-Id: a b\r\ntraceparent: 00-0-0-0\r\n\r\n")
    assert (bad.request_id, bad.trace) == (b"", b"")


names = st.from_regex(rb"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
values = st.binary(max_size=20).map(lambda raw: bytes(each for each in raw if each >= 32 and each != 127).strip())


@given(
    method=st.sampled_from([b"GET", b"POST", b"DELETE", b"PUT"]),
    target=st.from_regex(rb"/[!$-;=?-Z_a-z~]{0,30}", fullmatch=True).filter(lambda each: b"#" not in each),
    fields=st.lists(st.tuples(names, values), max_size=8),
)
def test_what_is_taken_and_written_anew_reads_alike_to_others(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    """The upstream's view: h11 and llhttp see one request with the same line and fields."""
    fields = [pair for pair in fields if not pair[0].lower().startswith((b"x-forwarded", b"x-ebb", b"x-envoy", b"x-re"))]
    head = b"%b %b HTTP/1.1\r\nHost: a.b\r\n%b\r\n" % (method, target, serialise(fields))
    request = parse(head)
    written = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (
        request.method,
        request.target,
        request.host,
        serialise(request.fields),
    )
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(written)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (method, target)
    expected = [(b"host", b"a.b"), *((name.lower(), value) for name, value in request.fields)]
    assert list(event.headers) == expected
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    seen: list[tuple[bytes, bytes]] = []

    class Sink:
        def on_header(self, name: bytes, value: bytes) -> None:
            seen.append((name.lower(), value))

    httptools.HttpRequestParser(Sink()).feed_data(written)
    assert seen == expected


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_refusal(noise: bytes) -> None:
    for head in (noise + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + noise + b"\r\n\r\n"):
        try:
            parse(head)
        except Refused:
            pass


HEADS = (
    GET + b"\r\n",
    GET + b"X-A: 1\r\nConnection: keep-alive\r\n\r\n",
    GET + b"Connection: close\r\n\r\n",
    GET + b"Proxy-Connection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: a.b\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a.b\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n",
    GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.b\r\nX: a\nb\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
)


@given(st.lists(st.sampled_from(HEADS), max_size=8))
def test_what_a_head_means_does_not_depend_on_those_before_it(heads: list[bytes]) -> None:
    def meaning(parser: RequestParser, head: bytes) -> object:
        try:
            request = parser.parse(head)
            return {**everything(request), "begun": begin(request)}
        except Refused as refused:
            return refused.reason

    shared = RequestParser()
    for head in heads:
        assert meaning(shared, head) == meaning(RequestParser(), head), head


def test_heads_that_come_again_are_remembered_up_to_a_bound() -> None:
    parser = RequestParser()
    for place in range(2 * limits.HEAD_MEMO_MOST):
        head = b"GET /%d HTTP/1.1\r\nHost: a.b\r\n\r\n" % place
        parser.parse(head)
        assert head not in parser.memo.known
        parser.parse(head)
        assert head in parser.memo.known
        assert len(parser.memo.known) <= limits.HEAD_MEMO_MOST


@pytest.mark.parametrize("field", [b"X-Long: " + b"x" * limits.HEAD_MEMO_BYTES, b"X-Request-Id: one", b"Connection: close"])
def test_a_head_that_is_long_or_speaks_of_one_request_is_not_remembered(field: bytes) -> None:
    parser = RequestParser()
    for _ in range(3):
        parser.parse(GET + field + b"\r\n\r\n")
    assert not parser.memo.known


# -- answers ------------------------------------------------------------------------------------------------------------------


def answer(head: bytes, method: bytes = b"GET"):
    """What `head` means, which is the same when it comes again, also after one that answers to another method."""
    parser = ResponseParser()
    first = parser.parse(head, method)
    known = everything(first)
    assert everything(first.adding(b"X-More", b"1")) | {"fields": first.fields, "head": first.head} == known
    parser.parse(head, b"GET" if method == b"HEAD" else b"HEAD")
    for _ in range(3):
        again = parser.parse(head, method)
        assert again.head in (b"", answers1.begin(again))
        assert {**everything(again), "head": b""} == known
    return again


@pytest.mark.parametrize(
    ("head", "method", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", CHUNKED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD", 0),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"GET", 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 0),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE),
    ],
)
def test_the_length_of_an_answer_follows_rfc_9112(head: bytes, method: bytes, length: int) -> None:
    assert answer(head, method).length == length


def test_a_204_says_no_length_and_a_head_answer_does() -> None:
    assert answer(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n").fields == []
    assert answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD").fields == [(b"Content-Length", b"5")]


def test_keep_alive_is_read_as_the_version_and_connection_say() -> None:
    assert answer(b"HTTP/1.1 200 OK\r\n\r\n").keep_alive
    assert not answer(b"HTTP/1.0 200 OK\r\n\r\n").keep_alive
    assert not answer(b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n").keep_alive
    assert answer(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\n\r\n").keep_for_s == 5


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"200 OK\r\n\r\n",
    ],
)
def test_a_malformed_answer_is_refused(head: bytes) -> None:
    with pytest.raises(BadResponse):
        answer(head)
