"""Heads of answers of HTTP/1: llhttp for the grammar, as in `http1`, and what it leaves to its user."""

import httptools

from ingress import limits
from ingress.headers import (
    CONNECTION,
    DATE,
    ENCODING,
    KEEP_ALIVE,
    LENGTH,
    RESPONSE,
    UPGRADE,
    Kind,
    named_in,
    serialise,
    without,
)
from ingress.http1 import CHUNKED, BadResponse, Collector, Response
from ingress.memo import Memo


class ResponseParser:
    """Parses heads of answers; one serves all connections of a process."""

    def __init__(self) -> None:
        self._sink = Collector(RESPONSE.memo, RESPONSE.classify)
        self._memo: Memo[Response] = Memo()

    def parse(self, head: bytes, method: bytes) -> Response:
        """The answer to a `method` request whose head is `head`, its empty line included. Raises BadResponse.

        What it gives may be given again: it is not to be changed.
        """
        if method == b"HEAD":
            return self._parse(head, method)
        found = self._memo.known.get(head)
        if found is None:
            found = self._parse(head, method)
            if self._memo.worth(head):
                found.head = begin(found)
                self._memo.keep(head, found)
        return found

    def _parse(self, head: bytes, method: bytes) -> Response:
        sink = self._sink
        sink.fields = []
        sink.special = []
        parser = httptools.HttpResponseParser(sink)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadResponse(str(error)) from None
        line = head[: head.find(b"\r\n")]
        if not line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            raise BadResponse("not HTTP/1.1 or HTTP/1.0")
        response = Response(parser.get_status_code(), line[9:], sink.fields)
        if response.status < 100 or response.status > 599:
            raise BadResponse(f"status {response.status}")
        if line[7] != 0x31:
            response.keep_alive = False
        _take_in(response, sink.special)
        status = response.status
        if method == b"HEAD" or status == 204 or status == 304 or status < 200:
            if status != 304 and method != b"HEAD":
                response.fields = without(response.fields, {b"content-length"})
            response.length = 0
        return response


def begin(response: Response) -> bytes:
    """`response` as a client of HTTP/1 gets it, but for its framing, what the front door says itself, and the empty line."""
    return b"HTTP/1.1 %b\r\n%b" % (response.line, serialise(response.fields))


def _take_in(response: Response, special: list[tuple[Kind, bytes]]) -> None:
    """Take in the fields of an answer that mean something. Raises BadResponse."""
    length: bytes | None = None
    for kind, value in special:
        if kind == LENGTH:
            if not value.isdigit() or len(value) > limits.BODY_LENGTH_DIGITS or (length is not None and length != value):
                raise BadResponse("its Content-Length is not one number")
            if length is None:
                response.fields.append((b"Content-Length", value))
            length = value
            if response.length != CHUNKED:
                response.length = int(value)
        elif kind == DATE:
            response.dated = True
            response.fields.append((b"Date", value))
        elif kind == CONNECTION:
            if value == b"keep-alive":
                response.keep_alive = True
                continue
            tokens = named_in(value)
            if b"close" in tokens:
                response.keep_alive = False
            elif b"keep-alive" in tokens:
                response.keep_alive = True
            named = tokens - {b"close", b"keep-alive", b"upgrade"}
            if named:
                response.fields = without(response.fields, named)
        elif kind == ENCODING:
            if value.lower() != b"chunked":
                raise BadResponse("its Transfer-Encoding is not chunked")
            response.length = CHUNKED
        elif kind == UPGRADE:
            response.upgrade = value.lower()
        elif kind == KEEP_ALIVE:
            response.keep_for_s = _keep_for(value)
    if response.length == CHUNKED and length is not None:
        raise BadResponse("Content-Length with Transfer-Encoding")


def _keep_for(value: bytes) -> float:
    for part in value.split(b","):
        name, _, seconds = part.strip().partition(b"=")
        if name.lower() == b"timeout" and seconds.isdigit() and len(seconds) < 6:
            return float(seconds)
    return 0.0
