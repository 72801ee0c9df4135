"""HTTP/2 heads to requests and answers, and back. The checks of RFC 9113 §8.2 and §8.3 are all here: what passes may be written as
HTTP/1.1, for no name or value holds CR, LF or NUL and no field speaks of the connection.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from ingress import limits
from ingress.chunked import NOT_TRAILERS, Trailers
from ingress.headers import (
    DROP,
    EXPECT,
    LENGTH,
    REQUEST,
    RESPONSE,
)
from ingress.hosts import well_formed
from ingress.http1 import CHUNKED, Fields, Request, Response
from ingress.refusals import Refused

Head = Iterable[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[A-Z](?:[A-Z-]{0,30}[A-Z])?")
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_PHRASES = {status.value: b"%d %b" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus}
ABOUT_MOST = 256
_ABOUT: dict[bytes, Fields] = {}
"""The front door's own lines, by connection and host, as fields."""
GOOD_MOST, GOOD_BYTES = 4096, 128
_GOOD: set[tuple[bytes, bytes]] = set()
"""Short fields that were found well-formed: most come again."""


class Malformed(Exception):
    """Not HTTP/2 as RFC 9113 wants it: the stream is reset. The message says what is wrong."""


def _pseudo(head: Head, allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], Fields]:
    """(pseudo-fields, fields), each name and value well-formed. Raises Malformed."""
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    for field in head:
        if field in _GOOD:
            fields.append(field)
            continue
        name, value = field
        if name[:1] == b":":
            if fields or name in pseudo or name not in allowed:
                raise Malformed(f"the pseudo-field {name[:32]!r} is unknown, doubled or after others")
            pseudo[name] = value
        elif _NAME.fullmatch(name) is None:
            raise Malformed(f"not a field name: {name[:32]!r}")
        elif name in _CONNECTION:
            raise Malformed(f"{name.decode('ascii')} is of HTTP/1")
        else:
            fields.append(field)
        if _VALUE.fullmatch(value) is None:
            raise Malformed(f"the value of {name[:32]!r} has characters that no field may have")
        if name[:1] != b":" and len(name) + len(value) <= GOOD_BYTES:
            if len(_GOOD) >= GOOD_MOST:
                _GOOD.clear()
            _GOOD.add(field)
    return pseudo, fields


def request_of(head: Head, ended: bool) -> Request:
    """The request that begins with `head`; `ended`: it has no body. Raises Malformed, Refused."""
    pseudo, fields = _pseudo(head, _PSEUDO)
    method = pseudo.get(b":method", b"")
    if method == b"CONNECT":
        raise Refused("method-not-allowed")
    path = pseudo.get(b":path", b"")
    if b":scheme" not in pseudo or not _METHOD.fullmatch(method) or not path:
        raise Malformed("no :method, :scheme or :path")
    if len(path) > limits.REQUEST_LINE_BYTES:
        raise Refused("uri-too-long", f"the path has {len(path)} bytes; the limit is {limits.REQUEST_LINE_BYTES}")
    if not _PATH.fullmatch(path) and (path, method) != (b"*", b"OPTIONS"):
        raise Malformed("the :path is not a path")
    if len(fields) > limits.HEAD_FIELDS:
        raise Refused("headers-too-large", f"more than {limits.HEAD_FIELDS} fields")
    request = Request(method, path, pseudo.get(b":authority", b""), [])
    if not ended:
        request.length = CHUNKED
    _take_in(request, fields, ended)
    if not well_formed(request.host):
        raise Malformed("no :authority, or it is not a name with an optional port")
    return request


def _take_in(request: Request, fields: Fields, ended: bool) -> None:
    """Sort the fields of a request: what passes, what means something. Raises Malformed, Refused."""
    memo, cookies, hosts, lengths = REQUEST.memo, [], 0, 0
    for name, value in fields:
        kind = memo.get(name)
        if kind is None:
            kind = REQUEST.classify(name)
        if name == b"cookie":
            cookies.append(value)
        elif not kind:
            request.fields.append((name, value))
        elif name == b"host":
            hosts += 1
            if hosts > 1 or (request.host and request.host.lower() != value.lower()):
                raise Malformed("Host is doubled or is not the :authority")
            request.host = value
        elif kind == LENGTH:
            lengths += 1
            if lengths > 1 or not value.isdigit() or len(value) > limits.BODY_LENGTH_DIGITS or (ended and int(value)):
                raise Malformed("content-length is doubled, no number or not that of the body")
            request.length = int(value)
        elif name == b"te":
            if value.lower() != b"trailers":
                raise Malformed("te is not trailers")
            request.trailers_wanted = True
        elif kind == EXPECT:
            if value.lower() != b"100-continue":
                raise Refused("expectation-failed")
            request.expects = True
        else:
            request.note(kind, value)
    if cookies:
        request.fields.append((b"cookie", b"; ".join(cookies)))


def says_no_more(request: Request) -> bool:
    """Whether `request`, just taken in, says nothing of this one request alone: asked again, it is the same."""
    of_one = request.request_id or request.trace or request.tag or request.forwarded_for or request.forwarded_proto
    return not of_one and not request.expects


def is_grpc(request: Request) -> bool:
    return any(name == b"content-type" and value.startswith(b"application/grpc") for name, value in request.fields)


def _fields_of(lines: bytes) -> Fields:
    """Lines of HTTP/1 as fields of HTTP/2."""
    split = [line.partition(b": ") for line in lines.split(b"\r\n") if line]
    return [(name.lower(), value) for name, _, value in split]


def head_of(request: Request, forwarded: bytes) -> Fields:
    """`request` as HTTP/2 wants it; `forwarded` are the front door's own fields as HTTP/1 lines."""
    head = [(b":method", request.method), (b":scheme", b"http"), (b":path", request.target), (b":authority", request.host)]
    for name, value in request.fields:
        head.append((name.lower(), value))
    # What a connection says of all its requests comes before the ids, which never come again.
    ids = forwarded.rfind(b"X-Request-Id: ")
    about = forwarded[:ids] if ids > 0 else b""
    known = _ABOUT.get(about)
    if known is None:
        if len(_ABOUT) >= ABOUT_MOST:
            _ABOUT.clear()
        known = _ABOUT[about] = _fields_of(about)
    head += known
    head += _fields_of(forwarded[len(about) :])
    if request.trailers_wanted:
        head.append((b"te", b"trailers"))
    if request.length > 0:
        head.append((b"content-length", b"%d" % request.length))
    if request.expects:
        head.append((b"expect", b"100-continue"))
    return head


def response_of(head: Head, method: bytes, ended: bool) -> Response:
    """The answer to a `method` request that begins with `head`; `ended`: it has no body. Raises Malformed."""
    pseudo, fields = _pseudo(head, frozenset((b":status",)))
    status = pseudo.get(b":status", b"")
    if len(status) != 3 or not status.isdigit() or not b"100" <= status <= b"599":
        raise Malformed(f"status {status[:8]!r}")
    if status == b"101":
        raise Malformed("a 101, which HTTP/2 does not have")
    response = Response(int(status), _PHRASES.get(int(status), status + b" "), [])
    response.length = CHUNKED
    length = b""
    for name, value in fields:
        kind = RESPONSE.memo.get(name)
        if kind is None:
            kind = RESPONSE.classify(name)
        if kind == LENGTH:
            if (length and value != length) or not value.isdigit() or len(value) > limits.BODY_LENGTH_DIGITS:
                raise Malformed("content-length is not one number")
            length = value
        elif kind != DROP:
            response.dated = response.dated or name == b"date"
            response.fields.append((name, value))
    bodiless = response.status < 200 or response.status == 204
    if length and not bodiless:
        response.fields.append((b"content-length", length))
        response.length = int(length)
    elif ended and not bodiless and method != b"HEAD" and response.status != 304:
        response.fields.append((b"content-length", b"0"))
    if ended or bodiless:
        response.length = 0
    return response


def answer_head(response: Response) -> Fields:
    """The head of an answer as HTTP/2 wants it; the same list for the same answer, not to be changed."""
    if response.head2 is None:
        fields = [(name.lower(), value) for name, value in response.fields]
        response.head2 = [(b":status", b"%d" % response.status), *fields]
    return response.head2


def trailers_in(head: Head) -> Fields:
    """Trailers that came in HTTP/2. Raises Malformed."""
    _, fields = _pseudo(head, frozenset())
    if len(fields) > limits.HEAD_FIELDS or sum(len(name) + len(value) for name, value in fields) > limits.TRAILER_BYTES:
        raise Malformed(f"trailers above {limits.TRAILER_BYTES} bytes or {limits.HEAD_FIELDS} fields")
    return fields


def trailers_out(trailers: Trailers) -> Fields:
    """`trailers` as HTTP/2 may have them."""
    fields = [(name.lower(), value) for name, value in trailers]
    return [(name, value) for name, value in fields if name not in NOT_TRAILERS]
