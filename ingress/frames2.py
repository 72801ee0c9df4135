"""HTTP/2's numbers (RFC 9113 §6, §7), its two ways to fail, and the budget that floods run into. Pure."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 5, 6, 7, 8, 9, 11

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
WINDOW_BYTES = 65_535
"""Every window before anybody says otherwise."""
WINDOW_MOST_BYTES = 2**31 - 1
FRAME_LEAST_BYTES, FRAME_MOST_BYTES = 2**14, 2**24 - 1

BUDGET = 1000.0
"""Idle frames that one connection may send at once."""
REFILL_PER_S = 100.0
RESET_COST = 2.0
"""A reset throws a request away that was already begun."""
GOAWAY_BYTES = 1024
"""A GOAWAY with what it says of its reason."""
SMALL_BYTES = 256
"""Padded data below this may be nothing but padding."""


class Flood(Exception):
    """The peer sends more than it may; the message says what."""


class BadFrame(Exception):
    """A frame that ends the connection, with the code that says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BadStream(Exception):
    """A frame that ends its stream, with the code that says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Budget:
    """What one peer may still send of frames that make work and bring nothing: resets, settings, pings, priorities, empty data,
    short continuations, unknown ones. Time refills it, and data that we send earns back. `now`: monotonic seconds."""

    __slots__ = ("_tokens", "_touched")

    def __init__(self, now: float) -> None:
        self._tokens = BUDGET
        self._touched = now

    def refill(self, now: float) -> None:
        if now > self._touched:
            self._tokens = min(BUDGET, self._tokens + (now - self._touched) * REFILL_PER_S)
            self._touched = now

    def earn(self, frames: float) -> None:
        """We sent so many frames of data: the peer may answer them."""
        self._tokens = min(BUDGET, self._tokens + frames)

    def spend(self, cost: float, what: str) -> None:
        """Take from the budget. Raises Flood when it is empty."""
        self._tokens -= cost
        if self._tokens < 0:
            raise Flood(f"too many frames that bring nothing; the last is {what}")
