"""HTTP/1 heads: llhttp for the grammar, and around it every check that it leaves to its user. What llhttp itself refuses (bare CR
or LF, NUL, folded lines, a space before the colon, odd lengths, …) is pinned by a table of bytes in the tests.

A parser is fed exactly one head, from its first byte to the empty line; bodies are framed elsewhere (`chunked`, or a count).
So nothing is ever parsed twice, and what follows a head is not looked at before its turn.
"""

import httptools

from ingress import limits
from ingress.headers import (
    CONNECTION,
    DROP,
    ENCODING,
    EXPECT,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    GOOD_REQUEST_ID,
    GOOD_TRACE,
    HOST,
    KEEP_ALIVE,
    LENGTH,
    REQUEST,
    REQUEST_ID,
    TAG,
    TRACE,
    UPGRADE,
    Kind,
    named_in,
    serialise,
    without,
)
from ingress.hosts import well_formed
from ingress.memo import Memo
from ingress.refusals import Refused

END = b"\r\n\r\n"
_SLASH = 0x2F
_BLANKS = (b" ", b"\t")
_STAYS = (CONNECTION, b"keep-alive")
_PLAIN = frozenset((DROP, HOST, CONNECTION, LENGTH, ENCODING, KEEP_ALIVE))
"""Kinds of fields that say the same of every request that has them."""
CHUNKED = -1
UNTIL_CLOSE = -2

Fields = list[tuple[bytes, bytes]]


class Request:
    """One request as it will be passed on. `length`: bytes of body, or CHUNKED. `fields` are without what the front door writes.

    No slots: what most requests leave at its default is kept once, on the class.
    """

    http10 = False
    keep_alive = True
    expects = False
    trailers_wanted = False
    """`TE: trailers` came by HTTP/2."""
    request_id = b""
    trace = b""
    tag = b""
    """`Knative-Serving-Tag`; no tag has a space in its name."""
    forwarded_for = forwarded_proto = b""
    """What a proxy says of its client; looked at where the proxy is trusted."""
    client = ""
    """The client's address, where it is not the peer's."""
    websocket_key = b""
    """Not empty: the request asks for a WebSocket."""

    def __init__(self, method: bytes, target: bytes, host: bytes, fields: Fields, length: int = 0, begun: bytes = b"") -> None:
        self.method = method
        self.target = target
        self.host = host
        self.fields = fields
        """Shared by requests with the same head: `add` makes new ones."""
        self.length = length
        self.begun = begun
        """`begin(request)`, where that is known already."""

    def add(self, name: bytes, value: bytes) -> None:
        """One more field to pass on."""
        self.fields = [*self.fields, (name, value)]
        if self.begun:
            self.begun = b"%b%b: %b\r\n" % (self.begun, name, value)

    def note(self, kind: Kind, value: bytes) -> None:
        """Take in what one of its fields says of where it comes from and belongs; of another kind, or ill-formed, it says nothing."""
        if kind == REQUEST_ID and GOOD_REQUEST_ID.fullmatch(value):
            self.request_id = value
        elif kind == TRACE and GOOD_TRACE.fullmatch(value):
            self.trace = value
        elif kind == TAG:
            self.tag = value if not self.tag else b"more than one"
        elif kind == FORWARDED_FOR:
            self.forwarded_for += b"," + value if self.forwarded_for else value
        elif kind == FORWARDED_PROTO:
            self.forwarded_proto = value

    def aim(self, target: bytes) -> None:
        """Pass it on as a request for `target`."""
        self.target = target
        self.begun = b""


class Response:
    """The head of an answer. `length`: bytes of body, CHUNKED or UNTIL_CLOSE; `line` is what follows the version."""

    length = UNTIL_CLOSE
    keep_alive = True
    keep_for_s = 0.0
    """`Keep-Alive: timeout=`, when the instance says so; 0: unsaid."""
    upgrade = b""
    dated = False
    head = b""
    """It as HTTP/1 to the end of its fields; empty: not written yet. Answers with the same head share one Response."""
    head2: Fields | None = None
    """The same as HTTP/2."""

    def __init__(self, status: int, line: bytes, fields: Fields) -> None:
        self.status = status
        self.line = line
        self.fields = fields

    def adding(self, name: bytes, value: bytes) -> "Response":
        """The same with one more field."""
        other = Response(self.status, self.line, [*self.fields, (name, value)])
        other.length, other.keep_alive, other.keep_for_s = self.length, self.keep_alive, self.keep_for_s
        other.upgrade, other.dated = self.upgrade, self.dated
        return other


class BadResponse(Exception):
    """The instance's answer is not HTTP/1; the message says what is wrong."""


class Collector:
    """What llhttp calls back: fields that pass are kept in order, the others by kind."""

    __slots__ = ("_classify", "_memo", "fields", "special", "url")

    def __init__(self, memo: dict[bytes, Kind], classify: object) -> None:
        self._memo = memo
        self._classify = classify
        self.fields: Fields = []
        self.special: list[tuple[Kind, bytes]] = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url = url

    # llhttp's shell looks all of these up for each new parser; found as None is quicker than not found.
    on_message_begin = on_status = on_body = on_message_complete = on_chunk_header = on_chunk_complete = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if value[-1:] in _BLANKS:
            value = value.rstrip(b" \t")
        kind = self._memo.get(name)
        if kind is None:
            kind = self._classify(name)  # type: ignore[operator]
        if not kind:
            self.fields.append((name, value))
        else:
            self.special.append((kind, value))


class RequestParser:
    """Parses request heads; one serves all connections of a process."""

    def __init__(self) -> None:
        self._sink = Collector(REQUEST.memo, REQUEST.classify)
        self._parser = httptools.HttpRequestParser(self._sink)
        self._hosts: set[bytes] = set()
        """Hosts that were found well-formed."""
        self.memo: Memo[tuple[bytes, bytes, bytes, Fields, int, bytes]] = Memo()
        """Heads that mean nothing but themselves: a client that stays asks with the same one again and again."""

    def known(self, data: bytes) -> Request | None:
        """The request that `data` is, when that is one head without a body and it was here before."""
        found = self.memo.known.get(data)
        return Request(*found) if found is not None and not found[4] else None

    def parse(self, head: bytes) -> Request:
        """The request whose head is `head`, its empty line included. Raises Refused."""
        found = self.memo.known.get(head)
        if found is not None:
            return Request(*found)
        request, plain = self._parse(head)
        if plain and self.memo.worth(head):
            begun = request.begun = begin(request)
            self.memo.keep(head, (request.method, request.target, request.host, request.fields, request.length, begun))
        return request

    def _parse(self, head: bytes) -> tuple[Request, bool]:
        """The same, and whether a head with these bytes is always that request and no more (no id, upgrade, …)."""
        sink = self._sink
        sink.fields = []
        special: list[tuple[Kind, bytes]] = []
        sink.special = special
        if head.count(b"\r\n") > limits.HEAD_FIELDS + 2:
            raise Refused("headers-too-large", f"more than {limits.HEAD_FIELDS} fields")
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self._renew()
            raise Refused("bad-request", str(error)) from None
        method = self._parser.get_method()
        line = head[: head.find(b"\r\n")]
        if len(line) > limits.REQUEST_LINE_BYTES:
            self._renew()
            raise Refused("uri-too-long", f"the request line has {len(line)} bytes; the limit is {limits.REQUEST_LINE_BYTES}")
        request = Request(method, sink.url, b"", sink.fields)
        if line != b"%b %b HTTP/1.1" % (method, sink.url):
            self._renew()
            if line != b"%b %b HTTP/1.0" % (method, sink.url):
                raise Refused("version" if b" HTTP/" in line and line.count(b" ") == 2 else "bad-request")
            request.http10 = True
            request.keep_alive = False
        plain = not request.http10
        if len(special) == 2 and special[1] == _STAYS and plain:
            special.pop()  # As if it had not been said; llhttp thinks so too.
        if len(special) == 1 and special[0][0] == HOST:
            request.host = special[0][1]
        else:
            self._renew()
            _special(request, special)
            plain = plain and request.keep_alive and all(kind in _PLAIN for kind, _ in special)
        host = request.host
        if host not in self._hosts:
            if not host or not well_formed(host):
                raise Refused("bad-request", "Host is not a name with an optional port" if host else "no Host")
            if len(self._hosts) >= limits.HOST_MEMO_MOST:
                self._hosts.clear()
            self._hosts.add(host)
        if request.target[0] != _SLASH or b"#" in request.target:
            _check_target(request)
        return request, plain

    def _renew(self) -> None:
        """llhttp keeps state after anything but a plain head: start over."""
        self._parser = httptools.HttpRequestParser(self._sink)


def begin(request: Request) -> bytes:
    """`request` as an instance of HTTP/1 gets it, but for what is said of this one request alone and the empty line."""
    framing = b""
    if request.length > 0:
        framing = b"Content-Length: %d\r\n" % request.length
    elif request.length == CHUNKED:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif request.method in (b"POST", b"PUT", b"PATCH"):
        framing = b"Content-Length: 0\r\n"
    if request.expects:
        framing += b"Expect: 100-continue\r\n"
    if request.websocket_key:
        framing += b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    fields = serialise(request.fields)
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b" % (request.method, request.target, request.host, fields, framing)


def check_partial(data: bytes) -> None:
    """Whether a head that is not whole yet may still become one: a bare LF or NUL will not get better. Raises Refused."""
    if len(data) > limits.HEAD_BYTES:
        raise Refused("headers-too-large", f"the head is above {limits.HEAD_BYTES} bytes")
    line = data.find(b"\r\n")
    if (len(data) if line < 0 else line) > limits.REQUEST_LINE_BYTES:
        raise Refused("uri-too-long", f"the request line is above {limits.REQUEST_LINE_BYTES} bytes")
    if data.count(b"\n") != data.count(b"\r\n") or b"\0" in data:
        raise Refused("bad-request", "bare LF or NUL in the request head")


def _special(request: Request, special: list[tuple[Kind, bytes]]) -> None:
    """Take in the fields that mean something. Raises Refused."""
    hosts = lengths = 0
    connection: set[bytes] = set()
    encoding = upgrade = None
    for kind, value in special:
        if kind == HOST:
            hosts += 1
            request.host = value
        elif kind == CONNECTION:
            connection |= named_in(value)
        elif kind == LENGTH:
            lengths += 1
            if not value.isdigit() or len(value) > limits.BODY_LENGTH_DIGITS:
                raise Refused("bad-request", "Content-Length is not a number")
            request.length = int(value)
        elif kind == ENCODING:
            if encoding is not None or value.lower() != b"chunked":
                raise Refused("bad-request", "Transfer-Encoding other than chunked")
            encoding = value
        elif kind == EXPECT and not request.http10:
            if value.lower() != b"100-continue":
                raise Refused("expectation-failed")
            request.expects = True
        elif kind == UPGRADE:
            upgrade = value
        else:
            request.note(kind, value)
    if hosts > 1:
        raise Refused("bad-request", "more than one Host")
    if lengths > 1:
        raise Refused("bad-request", "more than one Content-Length")
    if encoding is not None:
        if lengths or request.http10:
            raise Refused("bad-request", "Transfer-Encoding with Content-Length or HTTP/1.0")
        request.length = CHUNKED
    _connection(request, connection, upgrade)


def _connection(request: Request, connection: set[bytes], upgrade: bytes | None) -> None:
    """What `Connection` says: keep or close, which fields end here, a WebSocket."""
    if connection:
        request.keep_alive = b"close" not in connection and (not request.http10 or b"keep-alive" in connection)
        named = connection - {b"close", b"keep-alive", b"upgrade"}
        if named:
            request.fields = without(request.fields, named)
    asks = upgrade is not None and b"upgrade" in connection and upgrade.lower() == b"websocket"
    if asks and request.method == b"GET" and not request.http10 and request.length == 0:
        keys = [value for name, value in request.fields if name.lower() == b"sec-websocket-key"]
        if len(keys) != 1:
            raise Refused("bad-request", "a WebSocket needs one Sec-WebSocket-Key")
        request.websocket_key = keys[0]


def _check_target(request: Request) -> None:
    """A target that is not a plain path, as RFC 9112 §3.2 wants it; absolute-form becomes origin-form. Raises Refused."""
    target = request.target
    if b"#" in target:
        raise Refused("bad-request", "a fragment in the target")
    if target == b"*" and request.method == b"OPTIONS":
        return
    if request.method in (b"CONNECT", b"PRI"):
        raise Refused("method-not-allowed")
    _absolute(request)


def _absolute(request: Request) -> None:
    scheme, colon, rest = request.target.partition(b"://")
    if not colon or scheme.lower() not in (b"http", b"https"):
        raise Refused("bad-request", "the target is neither a path nor an http URL")
    stop = min(at for at in (rest.find(b"/"), rest.find(b"?"), len(rest)) if at >= 0)
    authority, path = rest[:stop], rest[stop:]
    if authority.lower() != request.host.lower():
        raise Refused("bad-request", "the target's host is not the Host field's")
    request.target = path if path.startswith(b"/") else b"/" + path
