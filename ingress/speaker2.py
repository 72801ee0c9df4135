"""The half of HTTP/2 that speaks: frames out, the windows that bound them, and the lanes they belong to. Pure."""

from collections.abc import Sequence
from typing import Any

from ingress import limits
from ingress.frames2 import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_LEAST_BYTES,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    Budget,
)
from ingress.hpack2 import Encoder, Field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_LENGTH = -1
REMEMBERED = 256
"""Streams that are over and still known as such: what their peer had on the way is told from what it may never send."""
NEVER_INDEXED = frozenset(
    (b"authorization", b"cookie", b"set-cookie", b"x-request-id", b"traceparent", b"x-ebb-cause", b"grpc-timeout")
)
"""Secrets, which must not be guessed by how well they compress; and what never comes again, which is not worth a place in a table."""


class WireLane:
    """What the wire knows of one stream."""

    __slots__ = ("debt", "headed", "id", "left", "open_in", "open_out", "window_in", "window_out")

    def __init__(self, id: int) -> None:
        self.id = id
        self.open_in = self.open_out = True
        """The halves that are not ended yet."""
        self.headed = False
        """The head of an answer has come."""
        self.left = NO_LENGTH
        """Bytes of the body still to come, when their number was said."""
        self.window_in = self.window_out = self.debt = 0


class Speaker:
    """What one end of a connection says. `begin` first; then `open` until it is broken."""

    def __init__(self, now: float, *, client_side: bool) -> None:
        self.lanes: dict[int, Any] = {}
        self.open = False
        self.budget = Budget(now)
        self.highest = 0
        """The highest stream: the peer's, or ours where we open them."""
        self._client_side = client_side
        self._encoder = Encoder(limits.HEADER_TABLE_BYTES, NEVER_INDEXED)
        self._out: list[bytes] = []
        self._known: dict[int, bool] = {}
        """The last streams, and whether we reset them."""
        self._window_out = self._window_in = WINDOW_BYTES
        self._window_bytes = self._stream_in = self._stream_out = WINDOW_BYTES
        self._frame_out = FRAME_LEAST_BYTES
        self._debt = 0

    def begin(self, stream_window: int, window: int, settings: dict[int, int]) -> None:
        """Say who we are. `stream_window`, `window`: bytes that the peer may send unread, on a stream and in all."""
        self.open = True
        self._stream_in = stream_window
        self._window_in = self._window_bytes = window
        said = {INITIAL_WINDOW_SIZE: stream_window, **settings}
        payload = b"".join(code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in said.items())
        if self._client_side:
            self._out.append(PREFACE)
        self._out.append(frame(SETTINGS, 0, 0, payload))
        self._out.append(frame(WINDOW_UPDATE, 0, 0, (window - WINDOW_BYTES).to_bytes(4, "big")))

    def take(self) -> bytes:
        """What is to be written."""
        out, self._out = self._out, []
        return b"".join(out)

    def enter(self, lane: Any) -> None:
        """`lane` is a stream of this connection from now on; ours when it has no number yet."""
        if not lane.id:
            self.highest = lane.id = self.highest + 2 if self.highest else 1
        lane.window_in, lane.window_out = self._stream_in, self._stream_out
        self.lanes[lane.id] = lane

    def frame_room(self, lane: Any) -> int:
        """Bytes that one frame of data on `lane` may have now."""
        room: int = min(lane.window_out, self._window_out, self._frame_out)
        return room

    def send_head(self, lane: Any, head: Sequence[Field], ended: bool) -> None:
        """HEADERS, and CONTINUATIONs when the block is above a frame."""
        block = self._encoder.encode(head)
        flags = END_STREAM if ended else 0
        if len(block) <= self._frame_out:
            self._out.append(frame(HEADERS, flags | END_HEADERS, lane.id, block))
            return
        kind = HEADERS
        for at in range(0, len(block), self._frame_out):
            last = at + self._frame_out >= len(block)
            self._out.append(frame(kind, flags | (END_HEADERS if last else 0), lane.id, block[at : at + self._frame_out]))
            kind, flags = CONTINUATION, 0

    def send_data(self, lane: Any, data: bytes, ended: bool) -> None:
        """One frame of data, of at most `frame_room` bytes."""
        size = len(data)
        lane.window_out -= size
        self._window_out -= size
        self._out.append(size.to_bytes(3, "big") + (b"\0\1" if ended else b"\0\0") + lane.id.to_bytes(4, "big"))
        self._out.append(data)
        self.budget.earn(1)

    def send_reset(self, id: int, code: int) -> None:
        """RST_STREAM; what the peer has on the way for the stream is let pass."""
        self._remember(id, True)
        self._out.append(frame(RST_STREAM, 0, id, code.to_bytes(4, "big")))

    def send_goaway(self, last: int, code: int, why: str) -> None:
        said = why.encode("latin-1", "replace")[:100]
        self._out.append(frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + said))

    def took(self, lane: Any, size: int) -> None:
        """`size` bytes that came on `lane` were passed on: the peer may send as many more. None: its stream is over."""
        self._debt += size
        if 2 * self._debt >= self._window_bytes:
            self._out.append(frame(WINDOW_UPDATE, 0, 0, self._debt.to_bytes(4, "big")))
            self._window_in += self._debt
            self._debt = 0
        if lane is not None and lane.open_in:
            lane.debt += size
            if 2 * lane.debt >= self._stream_in:
                self._out.append(frame(WINDOW_UPDATE, 0, lane.id, lane.debt.to_bytes(4, "big")))
                lane.window_in += lane.debt
                lane.debt = 0

    def _remember(self, id: int, reset_by_us: bool = False) -> None:
        self._known[id] = reset_by_us
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


def frame(kind: int, flags: int, id: int, payload: bytes) -> bytes:
    """One frame."""
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, id.to_bytes(4, "big"), payload)
