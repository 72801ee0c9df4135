"""The access log: one JSON object a request on stdout, written by a thread of its own so that a slow reader stops nobody.

Modes: `off`; `sampled`: every error (5xx) and one in a hundred others; `full`.
"""

import os
import queue
import threading
from typing import TYPE_CHECKING

import msgspec

from activator.balance import Target
from ingress.metrics import Metrics
from ingress.traffic import Choice

if TYPE_CHECKING:
    from ingress.forward import Exchange

MODES = ("off", "sampled", "full")
SAMPLE_EVERY = 100
LINES_MOST = 10_000
"""Lines that wait for the writer; above it they are dropped and counted."""


class Line(msgspec.Struct, omit_defaults=True):
    """One request. Times in seconds; JSON escapes what a client could put into it."""

    at: float
    client: str
    method: str
    host: str
    target: str
    status: int
    took_s: float
    request_id: str
    revision: str = ""
    instance: str = ""
    sent_bytes: int = 0
    queued_s: float = 0
    reason: str = ""
    cause_id: str = ""
    protocol: str = "HTTP/1.1"
    cut: bool = False
    """The answer was not delivered whole."""


def line_of(exchange: "Exchange", choice: Choice | None, target: Target | None, now: float, wall: float) -> Line:
    """The line of an exchange that has just ended."""
    request = exchange.request
    return Line(
        at=wall,
        client=request.client or exchange.front.client,
        method=request.method.decode("latin-1"),
        host=request.host.decode("latin-1"),
        target=request.target.decode("latin-1"),
        status=exchange.status,
        took_s=round(now - exchange.started, 6),
        request_id=request.request_id.decode("latin-1"),
        revision=choice.revision if choice is not None else "",
        instance=target.instance if target is not None else "",
        sent_bytes=exchange.sent_bytes,
        queued_s=round(exchange.waited_s, 6),
        reason=exchange.reason,
        cause_id=exchange.cause_id,
        cut=exchange.cut,
        protocol=exchange.front.protocol,
    )


def server_timing(exchange: "Exchange", now: float) -> bytes:
    """Where the time of a request went until its first byte, in ms (W3C Server Timing): in line, connecting, at the app."""
    app_s = now - exchange.sent_at - exchange.connect_s
    phases = (b"queue", exchange.waited_s), (b"connect", exchange.connect_s), (b"app", app_s)
    return b", ".join(b"%b;dur=%.2f" % (name, took_s * 1000) for name, took_s in phases)


class AccessLog:
    """Started by making it, ended by `close`."""

    def __init__(self, mode: str, metrics: Metrics, fd: int = 1) -> None:
        if mode not in MODES:
            raise ValueError(f"access log {mode!r}: one of {', '.join(MODES)}")
        self.mode = mode
        self._metrics = metrics
        self._fd = fd
        self._skipped = 0
        self._lines: queue.Queue[Line | None] = queue.Queue(LINES_MOST)
        self._thread: threading.Thread | None = None
        if mode != "off":
            self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
            self._thread.start()

    def wants(self, status: int) -> bool:
        """Whether a request that ended with `status` is to be written."""
        if self.mode == "sampled" and status < 500:
            self._skipped += 1
            if self._skipped < SAMPLE_EVERY:
                return False
            self._skipped = 0
        return self.mode != "off"

    def write(self, line: Line) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._metrics.access_lines_lost += 1

    def close(self) -> None:
        """Write what waits, for a second at most."""
        if self._thread is not None:
            try:
                self._lines.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(1)

    def _write(self) -> None:
        encoder = msgspec.json.Encoder()
        while (line := self._lines.get()) is not None:
            data = encoder.encode(line) + b"\n"
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                self._metrics.access_lines_lost += 1
