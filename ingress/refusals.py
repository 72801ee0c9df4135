"""What a client gets when things go wrong: reason → status. Every one carries `x-ebb-reason`, and a short body that says what to do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    status: int
    phrase: str
    text: str
    """The body, unless there is something more exact to say."""
    retry_after_s: float = 0
    challenge: str = ""
    """`WWW-Authenticate`: what would be accepted."""


TABLE: dict[str, Row] = {
    "bad-request": Row(400, "Bad Request", "the request is malformed"),
    "plain-http": Row(400, "Bad Request", "this port speaks TLS: use https://"),
    "unauthenticated": Row(
        401,
        "Unauthorized",
        "this service wants an identity token: Authorization: Bearer (ebb token identity --audience URL)",
        challenge='Bearer realm="ebb"',
    ),
    "forbidden": Row(403, "Forbidden", "the caller may not call this service"),
    "no-route": Row(404, "Not Found", "no service answers to this host"),
    "method-not-allowed": Row(405, "Method Not Allowed", "this method is not passed on"),
    "header-timeout": Row(408, "Request Timeout", "the request head took too long"),
    "body-timeout": Row(408, "Request Timeout", "the request body comes too slowly"),
    "body-too-large": Row(413, "Content Too Large", "the request body is too large"),
    "uri-too-long": Row(414, "URI Too Long", "the request line is too long"),
    "expectation-failed": Row(417, "Expectation Failed", "only 100-continue may be expected"),
    "misdirected": Row(421, "Misdirected Request", "this connection's certificate is not for this host"),
    "flood": Row(429, "Too Many Requests", "too many HTTP/2 frames that bring nothing"),
    "address-full": Row(429, "Too Many Requests", "too many connections from this address", 1),
    "rate-limited": Row(429, "Too Many Requests", "more requests a second than are taken", 1),
    "project-full": Row(429, "Too Many Requests", "the project's quota of requests is used up", 1),
    "headers-too-large": Row(431, "Request Header Fields Too Large", "the request head is too large"),
    "client-gone": Row(499, "Client Closed Request", "the client went away"),
    "instance-failed": Row(502, "Bad Gateway", "the instance failed before it answered"),
    "bad-response": Row(502, "Bad Gateway", "the instance's answer is malformed"),
    "unreachable": Row(502, "Bad Gateway", "no instance can be reached"),
    "queue-full": Row(503, "Service Unavailable", "too many requests wait", 1),
    "cannot-start": Row(503, "Service Unavailable", "the service cannot be started", 1),
    "overloaded": Row(503, "Service Unavailable", "too many connections", 1),
    "shutting-down": Row(503, "Service Unavailable", "this front door closes", 1),
    "timeout": Row(504, "Gateway Timeout", "the request took longer than its service allows"),
    "version": Row(505, "HTTP Version Not Supported", "HTTP/1.0 and HTTP/1.1 are spoken here"),
}

UNANSWERED = frozenset({"instance-failed", "bad-response", "timeout"})
"""Of a request that an instance had: it counts against that instance (`activator/ejection.py`)."""


class Refused(Exception):
    """A request that is answered by the front door itself. `reason` is a row of TABLE."""

    def __init__(self, reason: str, message: str = "", retry_after_s: float = 0) -> None:
        super().__init__(message or TABLE[reason].text)
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


def printable(text: str) -> str:
    """`text` as it may stand in a header or log line: no control characters, bounded."""
    return "".join(each if " " <= each <= "~" else "?" for each in text[:300])


def body_of(reason: str, message: str = "") -> str:
    """`reason: what is wrong`, one line."""
    return f"{reason}: {printable(message) if message else TABLE[reason].text}\n"


def retry_after(reason: str, retry_after_s: float = 0) -> int:
    """Whole seconds for `Retry-After`; 0: none."""
    wanted = retry_after_s or TABLE[reason].retry_after_s
    return -int(-wanted // 1)


def answer_of(reason: str, message: str, retry_after_s: float, cause: str, tail: bytes, *, bodiless: bool) -> bytes:
    """The whole answer in HTTP/1.1; `tail` are fields that the connection adds."""
    row = TABLE[reason]
    body = body_of(reason, message).encode("ascii")
    wait_s = retry_after(reason, retry_after_s)
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nx-ebb-reason: %b\r\n%b%b%b%b\r\n%b"
        % (
            row.status,
            row.phrase.encode("ascii"),
            len(body),
            reason.encode("ascii"),
            b"Retry-After: %d\r\n" % wait_s if wait_s else b"",
            b"WWW-Authenticate: %b\r\n" % row.challenge.encode("ascii") if row.challenge else b"",
            b"x-ebb-cause: %b\r\n" % cause.encode("ascii") if cause else b"",
            tail,
            b"" if bodiless else body,
        )
    )
