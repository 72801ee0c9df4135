"""HTTP/2 frames counted as they come in, before they cost anything: floods end the connection. Pure.

Every frame that makes work but brings nothing (resets, settings, pings, priorities, empty data, empty continuations, unknown ones)
takes from a budget that time refills and the data we send earns back. A header block is bounded however it is cut into frames.
GOAWAY is taken out of the stream: streams that are open when it comes may end, which the protocol library would not let them.
"""

from ingress.limits import HEAD_BYTES

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8

BUDGET = 1000.0
"""Idle frames that one connection may send at once."""
REFILL_PER_S = 100.0
RESET_COST = 2.0
"""A reset throws a request away that was already begun."""
GOAWAY_BYTES = 1024
"""A GOAWAY with what it says of its reason."""
PROTOCOL_ERROR, FRAME_SIZE_ERROR = 1, 6
SMALL_BYTES = 256
"""Padded data below this may be nothing but padding."""


class Flood(Exception):
    """The peer sends more than it may; the message says what."""


class BadFrame(Exception):
    """A frame that no peer may send, by the rules that the protocol library does not see or calls by another name."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class FrameCounter:
    """One direction of one connection. `now`: monotonic seconds."""

    __slots__ = ("_block", "_dropping", "_goaway_head", "_left", "_partial", "_tokens", "_touched", "goaway")

    def __init__(self, now: float, preface: int = 0) -> None:
        self._left = preface
        """Bytes of the current frame (at first: of the preface) that are still to come."""
        self._partial = b""
        self._dropping = False
        self._goaway_head = b""
        self._block = 0
        """Bytes of the header block that is coming in; 0: none."""
        self._tokens = BUDGET
        self._touched = now
        self.goaway: tuple[int, int] | None = None
        """(last stream, error code) of the last GOAWAY."""

    def feed(self, data: bytes, now: float) -> bytes:
        """What of `data` goes on to the protocol library. Raises Flood, BadFrame."""
        if now > self._touched:
            self._tokens = min(BUDGET, self._tokens + (now - self._touched) * REFILL_PER_S)
            self._touched = now
        if self._partial:
            data, self._partial = self._partial + data, b""
        at = begin = 0
        passed: list[bytes] = []
        size = len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                if self._dropping and len(self._goaway_head) < 8:
                    self._goaway_head += data[at : min(at + step, at + 8 - len(self._goaway_head))]
                self._left -= step
                at += step
                if self._dropping:
                    begin = at
                    if not self._left:
                        self._went_away()
                continue
            if size - at < 9:
                self._partial = data[at:]
                break
            self._left = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            self._count(kind, data[at + 4], self._left)
            if kind == GOAWAY:
                self._check_goaway(data[at + 5 : at + 9], self._left)
                passed.append(data[begin:at])
                begin = at + 9
                self._dropping = True
                self._goaway_head = b""
            at += 9
        if begin == 0 and at == size:
            return data
        passed.append(data[begin:at])
        return b"".join(passed)

    def earn(self, frames: float) -> None:
        """We sent so many frames of data: the peer may answer them."""
        self._tokens = min(BUDGET, self._tokens + frames)

    def spend(self, cost: float, what: str) -> None:
        """Take from the budget. Raises Flood when it is empty."""
        self._tokens -= cost
        if self._tokens < 0:
            raise Flood(f"too many frames that bring nothing; the last is {what}")

    def _count(self, kind: int, flags: int, length: int) -> None:
        if kind == DATA:
            empty = length == 0 or (flags & PADDED and length <= SMALL_BYTES)
            if empty and not flags & END_STREAM:
                self.spend(1, "empty DATA")
        elif kind in (HEADERS, CONTINUATION):
            self._block += length
            if kind == CONTINUATION and length < SMALL_BYTES:
                self.spend(1, "a short CONTINUATION")
            if self._block > HEAD_BYTES:
                raise Flood(f"a header block above {HEAD_BYTES} bytes")
            if flags & END_HEADERS:
                self._block = 0
        elif kind == RST_STREAM:
            self.spend(RESET_COST, "RST_STREAM")
        elif kind in (SETTINGS, PING):
            self.spend(1, "SETTINGS" if kind == SETTINGS else "PING")
            if kind == SETTINGS and flags & ACK and length:
                raise BadFrame(FRAME_SIZE_ERROR, "a SETTINGS acknowledgement with a payload")
        elif kind == GOAWAY:
            self.spend(1, "GOAWAY")
            if length > GOAWAY_BYTES:
                raise Flood(f"a GOAWAY of {length} bytes")
        else:
            self.spend(0.1 if kind == WINDOW_UPDATE else 1, "WINDOW_UPDATE" if kind == WINDOW_UPDATE else f"of kind {kind}")

    @staticmethod
    def _check_goaway(stream: bytes, length: int) -> None:
        if length < 8:
            raise BadFrame(FRAME_SIZE_ERROR, f"a GOAWAY of {length} bytes")
        if int.from_bytes(stream, "big") & 0x7FFFFFFF:
            raise BadFrame(PROTOCOL_ERROR, "a GOAWAY on a stream")

    def _went_away(self) -> None:
        head = self._goaway_head
        self._dropping = False
        self.goaway = (int.from_bytes(head[:4], "big") & 0x7FFFFFFF, int.from_bytes(head[4:8], "big"))
