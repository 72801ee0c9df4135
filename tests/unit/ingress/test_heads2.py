"""HTTP/2 heads: what is taken can be written as HTTP/1.1, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.headers import serialise
from ingress.heads2 import Malformed, answer_head, head_of, request_of, response_of, trailers_in, trailers_out
from ingress.http1 import CHUNKED, RequestParser
from ingress.refusals import Refused

Head = list[tuple[bytes, bytes]]
GET: Head = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a?b"), (b":authority", b"hello.example:80")]


def test_a_plain_request_is_understood() -> None:
    request = request_of([*GET, (b"accept", b"*/*"), (b"te", b"trailers"), (b"x-ebb-reason", b"mine")], True)
    assert (request.method, request.target, request.host) == (b"GET", b"/a?b", b"hello.example:80")
    assert request.fields == [(b"accept", b"*/*")]
    assert (request.length, request.trailers_wanted) == (0, True)


def test_a_body_without_a_length_has_none_and_one_with_it_keeps_it() -> None:
    assert request_of(GET, False).length == CHUNKED
    assert request_of([*GET, (b"content-length", b"7")], False).length == 7


def test_cookies_become_one_field() -> None:
    assert request_of([*GET, (b"cookie", b"a=1"), (b"cookie", b"b=2")], True).fields == [(b"cookie", b"a=1; b=2")]


def test_a_tag_is_kept_aside_and_two_are_none() -> None:
    tag = (b"knative-serving-tag", b"next")
    request = request_of([*GET, tag, (b"knative_serving_tag", b"other")], True)
    assert (request.tag, request.fields) == (b"next", [])
    assert request_of([*GET, tag, tag], True).tag == b"more than one"


def test_the_host_field_stands_in_for_the_authority() -> None:
    assert request_of([*GET[:3], (b"host", b"x.example")], True).host == b"x.example"
    assert request_of([*GET, (b"host", b"HELLO.example:80")], True).host.lower() == b"hello.example:80"


@pytest.mark.parametrize(
    "head",
    [
        GET[1:],
        [*GET[:1], *GET[2:]],
        [*GET[:2], *GET[3:]],
        GET[:3],
        [*GET, GET[0]],
        [(b"a", b"b"), *GET],
        [*GET, (b":protocol", b"websocket")],
        [*GET[:3], (b":authority", b"user@host")],
        [*GET[:3], (b":authority", b"a/b")],
        [*GET, (b"host", b"other")],
        [*GET, (b"host", b"hello.example:80"), (b"host", b"hello.example:80")],
        [(b":method", b"G ET"), *GET[1:]],
        [(b":method", b"get"), *GET[1:]],
    ],
)
def test_what_is_no_request_is_malformed(head: Head) -> None:
    with pytest.raises(Malformed):
        request_of(head, True)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ([(b":method", b"CONNECT"), *GET[1:]], "method-not-allowed"),
        ([*GET, (b"expect", b"a miracle")], "expectation-failed"),
        ([*GET, *[(b"x-%d" % n, b"") for n in range(101)]], "headers-too-large"),
    ],
)
def test_what_is_too_much_is_refused_with_a_reason(head: Head, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        request_of(head, True)
    assert caught.value.reason == reason


ODD = st.binary(max_size=12) | st.sampled_from(
    [b"connection", b"te", b"host", b"x-a", b"content-length", b"1", b"a\r\nb", b"\0", b"a: b"]
)


@given(st.sampled_from([b"GET", b"POST", b"DELETE"]), st.binary(max_size=8), st.lists(st.tuples(ODD, ODD), max_size=4))
def test_whatever_is_taken_is_one_request_of_http1_with_the_same_fields(method: bytes, path: bytes, fields: Head) -> None:
    """Written out as the front door does, it reads back as it was: nothing can be smuggled in a name, a value or the path."""
    head = [(b":method", method), (b":scheme", b"http"), (b":path", b"/" + path), (b":authority", b"h"), *fields]
    try:
        request = request_of(head, True)
    except (Malformed, Refused):
        return
    written = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (
        request.method,
        request.target,
        request.host,
        serialise(request.fields),
    )
    back = RequestParser().parse(written)
    assert (back.method, back.target, back.host) == (request.method, request.target, request.host)
    assert back.fields == request.fields


def test_an_answer_goes_there_and_back() -> None:
    response = response_of([(b":status", b"200"), (b"content-type", b"a/b"), (b"content-length", b"3")], b"GET", False)
    assert (response.status, response.line, response.length) == (200, b"200 OK", 3)
    assert dict(answer_head(response))[b":status"] == b"200"
    assert response_of([(b":status", b"200")], b"GET", False).length == CHUNKED
    assert response_of([(b":status", b"299")], b"GET", False).line == b"299 "


def test_an_answer_without_a_body_says_so_to_http1() -> None:
    assert (b"content-length", b"0") in response_of([(b":status", b"200")], b"GET", True).fields
    for status, method in ((b"204", b"GET"), (b"304", b"GET"), (b"200", b"HEAD")):
        response = response_of([(b":status", status)], method, True)
        assert response.fields == []
        assert response.length == 0


@pytest.mark.parametrize(
    "head",
    [
        [],
        [(b":status", b"2000")],
        [(b":status", b"099")],
        [(b":status", b"101")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
        [(b":status", b"200"), (b"a", b"b\r\nset-cookie: c")],
        [(b":status", b"200"), (b"content-length", b"x")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_a_malformed_answer_is_not_passed_on(head: Head) -> None:
    with pytest.raises(Malformed):
        response_of(head, b"GET", False)


def test_an_answers_fields_that_speak_in_our_name_are_dropped() -> None:
    assert response_of([(b":status", b"200"), (b"x-ebb-reason", b"x")], b"GET", False).fields == []


def test_a_request_of_http1_is_written_for_http2() -> None:
    request = RequestParser().parse(b"POST /x HTTP/1.1\r\nHost: h\r\nX-Name: v\r\nContent-Length: 3\r\n\r\n")
    assert head_of(request, b"X-Forwarded-For: 1.2.3.4\r\n") == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/x"),
        (b":authority", b"h"),
        (b"x-name", b"v"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"content-length", b"3"),
    ]


def test_what_the_front_door_says_of_a_request_is_written_whole_each_time() -> None:
    request = request_of(GET, True)
    for about in (b"X-Forwarded-For: 1.2.3.4\r\n", b"X-Forwarded-For: 5.6.7.8\r\n", b""):
        for number in (b"1", b"2"):
            head = head_of(request, b"%bX-Request-Id: %b\r\ntraceparent: 00-%b\r\n" % (about, number, number))
            ids = [(b"x-request-id", number), (b"traceparent", b"00-" + number)]
            assert head[-2:] == ids
            assert [value for name, value in head if name == b"x-forwarded-for"] == [about[17:-2]] * bool(about)


def test_trailers_are_checked_on_the_way_in_and_cleaned_on_the_way_out() -> None:
    assert trailers_in([(b"grpc-status", b"0")]) == [(b"grpc-status", b"0")]
    for bad in ([(b":path", b"/")], [(b"a", b"b\n")], [(b"connection", b"x")], [(b"a", b"x" * 9000)]):
        with pytest.raises(Malformed):
            trailers_in(bad)
    assert trailers_out([(b"X-Sum", b"1"), (b"Transfer-Encoding", b"chunked"), (b"Host", b"x")]) == [(b"x-sum", b"1")]
