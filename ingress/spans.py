"""Spans of requests as OpenTelemetry's OTLP/HTTP wants them in JSON, and the trace context that ties them together (W3C). Pure.

One span a request, of kind SERVER; `queue` and `connect` are children of it, where there was any. The instance gets our span as its parent.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

SERVER, INTERNAL = 2, 1
ERROR = 2


class Context(msgspec.Struct, frozen=True):
    """Where a request stands in a trace. Ids in hex, as the header has them."""

    trace: bytes
    span: bytes
    parent: bytes = b""
    sampled: bool = False

    @property
    def header(self) -> bytes:
        """`traceparent` for whom the request is passed on to."""
        return b"00-%b-%b-%b" % (self.trace, self.span, b"01" if self.sampled else b"00")


def context(header: bytes, trace: bytes, span: bytes, chance: float, share: float) -> Context:
    """That of a request which came with the well-formed traceparent `header`, or none: then it begins `trace`, sampled by `chance`.

    `span` is the id that our span gets. Who began a trace decides whether it is sampled.
    """
    if not header:
        return Context(trace, span, b"", chance < share)
    _, given, parent, flags = header.split(b"-")[:4]
    return Context(given, span, parent, bool(int(flags, 16) & 1))


class Ended(msgspec.Struct, frozen=True):
    """A request that is over. Times in seconds, `at` by the wall clock."""

    context: Context
    at: float
    took_s: float
    queued_s: float
    connect_s: float
    sent_after_s: float
    """From its beginning until it had a slot at an instance."""
    name: str
    status: int
    reason: str
    attributes: dict[str, str | int]


def encode(ended: Iterable[Ended], resource: dict[str, str]) -> bytes:
    """The body of one `POST /v1/traces`."""
    spans = [span for each in ended for span in _spans(each)]
    scope = {"scope": {"name": "ebb.ingress"}, "spans": spans}
    return msgspec.json.encode({"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]})


def _spans(ended: Ended) -> Iterable[dict[str, Any]]:
    begun = ended.at - ended.took_s
    attributes: dict[str, str | int] = {**ended.attributes, "http.response.status_code": ended.status}
    if ended.reason:
        attributes["error.type"] = ended.reason
    whole = _span(ended.context.trace, ended.context.span, ended.context.parent, ended.name, SERVER, begun, ended.took_s)
    whole["attributes"] = _attributes(attributes)
    if ended.status >= 500:
        whole["status"] = {"code": ERROR, "message": ended.reason}
    yield whole
    # Ids of children only have to differ in one trace: our own id, turned by what the child is.
    number = int(ended.context.span, 16)
    slot = begun + ended.sent_after_s
    if ended.queued_s:
        yield _child(ended, number ^ (1 << 62), "queue", slot - ended.queued_s, ended.queued_s)
    if ended.connect_s:
        yield _child(ended, number ^ (1 << 61), "connect", slot, ended.connect_s)


def _child(ended: Ended, id: int, name: str, at: float, took_s: float) -> dict[str, Any]:
    return _span(ended.context.trace, b"%016x" % id, ended.context.span, name, INTERNAL, at, took_s)


def _span(trace: bytes, span: bytes, parent: bytes, name: str, kind: int, at: float, took_s: float) -> dict[str, Any]:
    made: dict[str, Any] = {
        "traceId": trace.decode(),
        "spanId": span.decode(),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(int(at * 1e9)),
        "endTimeUnixNano": str(int((at + took_s) * 1e9)),
    }
    if parent:
        made["parentSpanId"] = parent.decode()
    return made


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in values.items()
    ]
