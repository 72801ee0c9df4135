"""Which fields pass, which are dropped, which mean something. One table for requests, one for responses.

Dropped from requests: hop-by-hop ones, everything a client could use to speak in our name (`Forwarded`, `X-Forwarded-*`, `X-Real-IP`,
`X-Ebb-*`; `Knative-Serving-Tag`, which is passed on where a rule followed it), and such names spelt with `_`, which CGI-like servers
cannot tell from the real ones. What a trusted proxy says of its client is read and written anew (`proxies`).
"""

import re

from ingress.limits import NAME_MEMO_MOST

(
    PASS,
    DROP,
    HOST,
    CONNECTION,
    LENGTH,
    ENCODING,
    EXPECT,
    UPGRADE,
    REQUEST_ID,
    TRACE,
    KEEP_ALIVE,
    DATE,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    TAG,
) = range(15)
"""Kinds of fields: plain ints, since every field of every request is asked for its kind. PASS is false."""
Kind = int

_HOP = ("proxy-connection", "te", "proxy-authenticate", "proxy-authorization", "http2-settings", "proxy", "alt-svc")
_OURS = (
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-original-forwarded-for",
)
_REQUEST: dict[bytes, Kind] = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"keep-alive": DROP,
    b"content-length": LENGTH,
    b"transfer-encoding": ENCODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACE,
    b"knative-serving-tag": TAG,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    **{name.encode(): DROP for name in _HOP + _OURS},
}
_RESPONSE: dict[bytes, Kind] = {
    b"connection": CONNECTION,
    b"keep-alive": KEEP_ALIVE,
    b"content-length": LENGTH,
    b"transfer-encoding": ENCODING,
    b"upgrade": UPGRADE,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"date": DATE,
}
_PREFIXES = (b"x-forwarded-", b"x-ebb-", b"x-envoy-")
GOOD_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""What is taken over as `X-Request-Id`; anything else is replaced."""
GOOD_TRACE = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?")


class Kinds:
    """Field name, as it was spelt → Kind, remembered up to a bound."""

    def __init__(self, table: dict[bytes, Kind], prefixes: tuple[bytes, ...]) -> None:
        self._table = table
        self._prefixes = prefixes
        self.memo: dict[bytes, Kind] = {}

    def classify(self, name: bytes) -> Kind:
        """The kind of a `name` that `memo` does not have yet."""
        lower = name.lower()
        dashed = lower.replace(b"_", b"-")
        kind = self._table.get(dashed, PASS)
        if (not kind and dashed.startswith(self._prefixes)) or (kind and dashed != lower):
            kind = DROP
        if len(self.memo) >= NAME_MEMO_MOST:
            self.memo.clear()
        if len(name) <= 64:
            self.memo[name] = kind
        return kind


REQUEST = Kinds(_REQUEST, _PREFIXES)
RESPONSE = Kinds(_RESPONSE, (b"x-ebb-",))


_COLON = b": "


def named_in(connection: bytes) -> set[bytes]:
    """The lower-case tokens of a `Connection` field."""
    return {token.strip(b" \t").lower() for token in connection.split(b",")}


def without(fields: list[tuple[bytes, bytes]], names: set[bytes]) -> list[tuple[bytes, bytes]]:
    """`fields` but those named."""
    return [pair for pair in fields if pair[0].lower() not in names]


def serialise(fields: list[tuple[bytes, bytes]]) -> bytes:
    """`fields` as they stand in a head, each with its CRLF."""
    return b"\r\n".join(map(_COLON.join, fields)) + b"\r\n" if fields else b""
