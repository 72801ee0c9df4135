"""HTTP/2 as frames and streams (RFC 9113), whichever end of a connection this is. Pure: bytes in, calls and bytes out.

    receive ─▶ frames ─▶ on_request · on_head · on_data · on_trailers · on_reset · on_window · on_settings · on_goaway

A stream is known by its lane from the first frame until both are done with it; `lanes` is its owner's. A frame that only its stream
dies of comes out as `on_fault`, one that the connection dies of as BadFrame or Flood. What is said is in ingress/speaker2.py.
"""

from typing import Any

from ingress import limits
from ingress.frames2 import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_LEAST_BYTES,
    FRAME_MOST_BYTES,
    FRAME_SIZE_ERROR,
    GOAWAY_BYTES,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITISED,
    PROTOCOL_ERROR,
    RESET_COST,
    SETTINGS,
    SMALL_BYTES,
    STREAM_CLOSED,
    WINDOW_MOST_BYTES,
    BadFrame,
    BadStream,
    Flood,
)
from ingress.hpack2 import BadBlock, BigHead, Decoder, Field
from ingress.speaker2 import NO_LENGTH, PREFACE, Speaker, frame


class Wire(Speaker):
    """One connection. `begin` first; then `open` until it is broken."""

    def __init__(self, now: float, *, client_side: bool) -> None:
        super().__init__(now, client_side=client_side)
        self.streams_most = 2**31
        """How many streams the peer takes at once."""
        self._decoder = Decoder(limits.HEADER_TABLE_BYTES, limits.HEAD_BYTES)
        self._partial = b""
        self._preface = b"" if client_side else PREFACE
        self._greeted = False
        self._block: list[bytes] = []
        self._block_of = self._block_bytes = 0
        self._block_ends = False

    # -- what its owner hears -------------------------------------------------------------------------------------------------

    def on_request(self, id: int, head: list[Field], ended: bool) -> None:
        """The peer opens a stream."""

    def on_head(self, lane: Any, head: list[Field], ended: bool) -> None:
        """The head of an answer, or of an interim one."""

    def on_data(self, lane: Any, data: bytes, size: int, ended: bool) -> None:
        """A piece of a body; `size` is to be given to `took` when it is passed on."""

    def on_trailers(self, lane: Any, head: list[Field]) -> None:
        """The body has ended, with trailers."""

    def on_reset(self, lane: Any, code: int) -> None:
        """The peer wants, or sends, no more."""

    def on_fault(self, lane: Any, fault: BadStream) -> None:
        """The peer broke a rule, and the stream with it: it is to be reset."""

    def on_window(self, lane: Any) -> None:
        """The peer takes more; None: on all streams."""

    def on_settings(self) -> None:
        """The peer's settings are known, or others."""

    def on_goaway(self, last: int, code: int) -> None:
        """The peer takes no streams above `last`."""

    # -- in -------------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take in what came. Raises BadFrame, Flood."""
        self.budget.refill(now)
        if self._partial:
            data = self._partial + data
            self._partial = b""
        if self._preface:
            begin = data[: len(self._preface)]
            if not self._preface.startswith(begin):
                raise BadFrame(PROTOCOL_ERROR, "not HTTP/2's preface")
            self._preface = self._preface[len(begin) :]
            data = data[len(begin) :]
        at, size = 0, len(data)
        while size - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            if length > FRAME_LEAST_BYTES:
                raise BadFrame(FRAME_SIZE_ERROR, f"a frame of {length} bytes; the limit is {FRAME_LEAST_BYTES}")
            end = at + 9 + length
            if end > size:
                break
            self._frame(kind, data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF, data[at + 9 : end])
            if not self.open:
                return
            at = end
        if at < size:
            self._partial = data[at:]

    def _frame(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block_of and (kind != CONTINUATION or id != self._block_of):
            raise BadFrame(PROTOCOL_ERROR, "another frame within a header block")
        if not self._greeted:
            if kind != SETTINGS or flags & ACK:
                raise BadFrame(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._greeted = True
        try:
            if kind == HEADERS:
                self._headers(flags, id, payload)
            elif kind == DATA:
                self._data(flags, id, payload)
            elif kind < len(_OTHERS):
                _OTHERS[kind](self, flags, id, payload)
            else:
                self.budget.spend(1, f"of kind {kind}")
        except BadStream as fault:
            self._fault(id, fault)

    def _fault(self, id: int, fault: BadStream) -> None:
        lane = self.lanes.get(id)
        if lane is not None:
            self.on_fault(lane, fault)
        else:
            self.send_reset(id, fault.code)
            self.budget.spend(RESET_COST, "one on a stream that is over")

    def _is_idle(self, id: int) -> bool:
        return id > self.highest or (id % 2 == 0)

    def _headers(self, flags: int, id: int, payload: bytes) -> None:
        if not id:
            raise BadFrame(PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITISED:
            if len(payload) < 5:
                raise BadFrame(FRAME_SIZE_ERROR, "HEADERS too short for a priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._head(id, payload, bool(flags & END_STREAM))
        else:
            self._block, self._block_of, self._block_bytes = [payload], id, len(payload)
            self._block_ends = bool(flags & END_STREAM)

    def _continuation(self, flags: int, id: int, payload: bytes) -> None:
        if not self._block_of:
            raise BadFrame(PROTOCOL_ERROR, "CONTINUATION without a header block")
        if len(payload) < SMALL_BYTES:
            self.budget.spend(1, "a short CONTINUATION")
        self._block.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > limits.HEAD_BYTES:
            raise Flood(f"a header block above {limits.HEAD_BYTES} bytes")
        if flags & END_HEADERS:
            block, self._block, self._block_of = b"".join(self._block), [], 0
            self._head(id, block, self._block_ends)

    def _head(self, id: int, block: bytes, ended: bool) -> None:
        try:
            head = self._decoder.decode(block)
        except BadBlock as error:
            raise BadFrame(COMPRESSION_ERROR, str(error)) from None
        except BigHead as error:
            raise BadFrame(ENHANCE_YOUR_CALM, str(error)) from None
        lane = self.lanes.get(id)
        if lane is None:
            self._head_of_none(id, head, ended)
            return
        if not lane.open_in:
            raise BadStream(STREAM_CLOSED, "HEADERS after the end")
        if self._client_side and not lane.headed:
            lane.headed = not (head and head[0][0] == b":status" and head[0][1][:1] == b"1")
            if ended and not lane.headed:
                raise BadStream(PROTOCOL_ERROR, "an interim answer that is the last")
            lane.open_in = not ended
            self.on_head(lane, head, ended)
            return
        if not ended:
            raise BadStream(PROTOCOL_ERROR, "HEADERS within a body")
        if lane.left > 0:
            raise BadStream(PROTOCOL_ERROR, "less than content-length said")
        lane.open_in = False
        self.on_trailers(lane, head)

    def _head_of_none(self, id: int, head: list[Field], ended: bool) -> None:
        """HEADERS on a stream that has no lane: a new one, or one that is over."""
        if self._client_side:
            if self._is_idle(id):
                raise BadFrame(PROTOCOL_ERROR, "HEADERS on a stream that nobody opened")
            return
        if id % 2 == 0:
            raise BadFrame(PROTOCOL_ERROR, "a client's stream with an even number")
        if id <= self.highest:
            reset_by_us = self._known.get(id)
            if reset_by_us is None:
                raise BadFrame(PROTOCOL_ERROR, "a stream's number below the last")
            if not reset_by_us:
                raise BadStream(STREAM_CLOSED, "HEADERS on a stream that is over")
            return
        if len(self.lanes) >= limits.STREAMS_MOST:
            raise BadFrame(PROTOCOL_ERROR, f"more than {limits.STREAMS_MOST} streams")
        self.highest = id
        self._remember(id)
        self.on_request(id, head, ended)

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        ended = bool(flags & END_STREAM)
        if not ended and (not size or (flags & PADDED and size <= SMALL_BYTES)):
            self.budget.spend(1, "empty DATA")
        if flags & PADDED:
            payload = _unpadded(payload)
        self._window_in -= size
        if self._window_in < 0:
            raise BadFrame(FLOW_CONTROL_ERROR, "more than the connection's window")
        lane = self.lanes.get(id)
        if lane is None:
            if not id or self._is_idle(id):
                raise BadFrame(PROTOCOL_ERROR, "DATA on a stream that nobody opened")
            self.took(None, size)
            if not self._client_side and not self._known.get(id):
                raise BadStream(STREAM_CLOSED, "DATA on a stream that is over")
            return
        wrong = self._wrong_data(lane, len(payload), size, ended)
        if wrong is not None:
            self.took(None, size)
            raise wrong
        if ended:
            lane.open_in = False
        self.on_data(lane, payload, size, ended)

    def _wrong_data(self, lane: Any, length: int, size: int, ended: bool) -> BadStream | None:
        if not lane.open_in:
            return BadStream(STREAM_CLOSED, "DATA after the end")
        if self._client_side and not lane.headed:
            return BadStream(PROTOCOL_ERROR, "DATA before the head")
        lane.window_in -= size
        if lane.window_in < 0:
            return BadStream(FLOW_CONTROL_ERROR, "more than the stream's window")
        if lane.left != NO_LENGTH:
            if length > lane.left or (ended and length != lane.left):
                return BadStream(PROTOCOL_ERROR, "not as much as content-length said")
            lane.left -= length
        return None

    def _priority(self, flags: int, id: int, payload: bytes) -> None:
        self.budget.spend(1, "PRIORITY")
        if not id:
            raise BadFrame(PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise BadFrame(FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes")
        if int.from_bytes(payload[:4], "big") & 0x7FFFFFFF == id:
            raise BadFrame(PROTOCOL_ERROR, "a stream that depends on itself")

    def _rst_stream(self, flags: int, id: int, payload: bytes) -> None:
        self.budget.spend(RESET_COST, "RST_STREAM")
        if len(payload) != 4:
            raise BadFrame(FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} bytes")
        if not id or self._is_idle(id):
            raise BadFrame(PROTOCOL_ERROR, "RST_STREAM on a stream that nobody opened")
        lane = self.lanes.get(id)
        if lane is not None:
            lane.open_in = lane.open_out = False
            self.on_reset(lane, int.from_bytes(payload, "big"))

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        self.budget.spend(1, "SETTINGS")
        if id:
            raise BadFrame(PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise BadFrame(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        if flags & ACK:
            return
        for at in range(0, len(payload), 6):
            self._setting(int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        self._out.append(frame(SETTINGS, ACK, 0, b""))
        self.on_settings()

    def _setting(self, code: int, value: int) -> None:
        if code == HEADER_TABLE_SIZE:
            self._encoder.resize(min(value, limits.HEADER_TABLE_BYTES))
        elif code == ENABLE_PUSH and value > 1:
            raise BadFrame(PROTOCOL_ERROR, f"ENABLE_PUSH {value}")
        elif code == MAX_CONCURRENT_STREAMS:
            self.streams_most = value
        elif code == INITIAL_WINDOW_SIZE:
            if value > WINDOW_MOST_BYTES:
                raise BadFrame(FLOW_CONTROL_ERROR, f"a window of {value} bytes")
            more, self._stream_out = value - self._stream_out, value
            for lane in self.lanes.values():
                lane.window_out += more
                if lane.window_out > WINDOW_MOST_BYTES:
                    raise BadFrame(FLOW_CONTROL_ERROR, "settings that make a window overflow")
        elif code == MAX_FRAME_SIZE:
            if not FRAME_LEAST_BYTES <= value <= FRAME_MOST_BYTES:
                raise BadFrame(PROTOCOL_ERROR, f"frames of {value} bytes")
            self._frame_out = min(value, limits.FRAME_BYTES)

    def _push_promise(self, flags: int, id: int, payload: bytes) -> None:
        raise BadFrame(PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send here")

    def _ping(self, flags: int, id: int, payload: bytes) -> None:
        self.budget.spend(1, "PING")
        if id:
            raise BadFrame(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise BadFrame(FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if not flags & ACK:
            self._out.append(frame(PING, ACK, 0, payload))

    def _goaway(self, flags: int, id: int, payload: bytes) -> None:
        self.budget.spend(1, "GOAWAY")
        if id:
            raise BadFrame(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise BadFrame(FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        if len(payload) > GOAWAY_BYTES:
            raise Flood(f"GOAWAY of {len(payload)} bytes")
        self.on_goaway(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF, int.from_bytes(payload[4:8], "big"))

    def _window_update(self, flags: int, id: int, payload: bytes) -> None:
        self.budget.spend(0.1, "WINDOW_UPDATE")
        if len(payload) != 4:
            raise BadFrame(FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes")
        more = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if not id:
            self._window_out += more
            if not more or self._window_out > WINDOW_MOST_BYTES:
                raise BadFrame(FLOW_CONTROL_ERROR if more else PROTOCOL_ERROR, f"a window that grows by {more}")
            self.on_window(None)
            return
        if self._is_idle(id):
            raise BadFrame(PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that nobody opened")
        lane = self.lanes.get(id)
        if lane is not None:
            lane.window_out += more
            if not more or lane.window_out > WINDOW_MOST_BYTES:
                raise BadStream(FLOW_CONTROL_ERROR if more else PROTOCOL_ERROR, f"a window that grows by {more}")
            self.on_window(lane)


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise BadFrame(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]


_OTHERS = (
    Wire._data,
    Wire._headers,
    Wire._priority,
    Wire._rst_stream,
    Wire._settings,
    Wire._push_promise,
    Wire._ping,
    Wire._goaway,
    Wire._window_update,
    Wire._continuation,
)
