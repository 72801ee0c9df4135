"""What both ends of HTTP/2 share: a connection (Link) with its streams (Lanes), flow control each way, and bounded memory.

Bytes out wait in their lane while the peer's window or the socket is full; above a bound their sender is told to pause. Bytes in
are acknowledged when whoever they are for has room, so that a slow reader stops its own sender and nobody else.
"""

import asyncio
from collections import deque
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RemoteSettingsChanged, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hpack import HPACKError
from hyperframe.frame import GoAwayFrame

from ingress import limits
from ingress.chunked import Trailers
from ingress.frames2 import RESET_COST, BadFrame, Flood, FrameCounter
from ingress.gate import Gate
from ingress.heads2 import trailers_out

FLUSH_BYTES = 64 * 1024
LAST_STREAM = 2**31 - 1


class Lane:
    """One stream of a Link."""

    __slots__ = ("_ending", "_full", "_holding", "_queue", "_queued", "_trailers", "_unread", "id", "link", "open_out")

    def __init__(self, link: "Link", id: int) -> None:
        self.link = link
        self.id = id
        self.open_out = True
        """Our half is not ended yet."""
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._ending = self._full = self._holding = False
        self._trailers: Trailers = ()
        self._unread = 0

    # -- for those who know what the stream is of -----------------------------------------------------------------------------

    def full(self) -> None:
        """Too much waits: whoever sends into this lane should pause."""

    def roomy(self) -> None:
        """There is room again."""

    def sent_all(self) -> None:
        """Our half has ended."""

    # -- out ------------------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return self.open_out and (bool(self._queue) or self._ending)

    def push(self, data: bytes, *, last: bool = False) -> None:
        """Send `data` when there is room; `last`: and end our half."""
        if not self.open_out:
            return
        if data:
            self._queue.append(data)
            self._queued += len(data)
        self._ending = self._ending or last
        while self.advance():
            pass
        if self._queued > limits.LANE_HIGH_BYTES and not self._full:
            self._full = True
            self.full()

    def finish(self, trailers: Trailers) -> None:
        """End our half after what waits."""
        self._trailers = trailers_out(trailers)
        self.push(b"", last=True)

    def advance(self) -> bool:
        """Send one frame if that can be; False when it cannot, or there is nothing more to send."""
        if not self.waiting or self.link.stuck:
            return False
        try:
            sent = self._one()
        except ProtocolError:
            self.open_out = False  # The peer has reset it; the event is on its way.
            return False
        if self._full and self._queued <= limits.LANE_HIGH_BYTES // 4:
            self._full = False
            self.roomy()
        if not self.open_out:
            self.sent_all()
        return sent

    def _one(self) -> bool:
        h2 = self.link.h2
        if self._queue:
            room = min(h2.local_flow_control_window(self.id), limits.FRAME_BYTES)
            if room <= 0:
                return False
            data = self._queue.popleft()
            if len(data) > room:
                self._queue.appendleft(data[room:])
                data = data[:room]
            self._queued -= len(data)
            ends = self._ending and not self._queue and not self._trailers
            h2.send_data(self.id, data, end_stream=ends)
            self.link.wrote(len(data))
            self.open_out = not ends
            return True
        if self._trailers:
            h2.send_headers(self.id, self._trailers, end_stream=True)
        else:
            h2.end_stream(self.id)
        self.open_out = False
        return False

    # -- in -------------------------------------------------------------------------------------------------------------------

    def read(self, size: int) -> None:
        """`size` flow-controlled bytes came and were passed on; the peer may send as many more, unless this lane is held."""
        if self._holding:
            self._unread += size
        elif size:
            self.link.h2.acknowledge_received_data(size, self.id)

    def hold(self) -> None:
        self._holding = True

    def unhold(self) -> None:
        self._holding = False
        unread, self._unread = self._unread, 0
        if unread and self.link.open:
            self.link.h2.acknowledge_received_data(unread, self.id)
            self.link.flush()

    def reset(self, code: int) -> None:
        """End both halves at once."""
        self.open_out = False
        self._queue.clear()
        self._queued = 0
        unread, self._unread = self._unread, 0
        if not self.link.open:
            return
        if unread:
            self.link.h2.acknowledge_received_data(unread, self.id)
        try:
            self.link.h2.reset_stream(self.id, code)
        except ProtocolError:
            pass  # It is over already.
        self.link.flush()


class Link(asyncio.Protocol):
    """One HTTP/2 connection, whichever end of it."""

    def __init__(self, gate: Gate, *, client_side: bool) -> None:
        self.gate = gate
        config = H2Configuration(
            client_side=client_side,
            header_encoding=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        self.transport: Any = None
        self.lanes: dict[int, Any] = {}
        self.frames = FrameCounter(gate.now(), 0 if client_side else 24)
        self.stuck = False
        """The socket takes no more for now."""
        self.open = False
        self._working = False
        self._unflushed = 0

    def hello(self, transport: Any, stream_window: int, window: int, settings: dict[SettingCodes, int]) -> None:
        """Say who we are. `stream_window`, `window`: bytes that the peer may send unread, on a stream and in all."""
        self.transport = transport
        self.open = True
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)
        h2 = self.h2
        h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = stream_window
        for code, value in settings.items():
            h2.local_settings[code] = value
        h2.local_settings.acknowledge()
        h2.initiate_connection()
        h2.increment_flow_control_window(window - 65_535)
        self.flush()

    # -- in -------------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.open:
            return
        self._working = True
        try:
            data = self.frames.feed(data, self.gate.now())
            for event in self.h2.receive_data(data):
                if isinstance(event, WindowUpdated):
                    self._window(event.stream_id or 0)
                elif isinstance(event, RemoteSettingsChanged):
                    self._settings()
                else:
                    self.on_event(event)
        except Flood as flood:
            self.gate.metrics.refused("flood")
            self.goodbye(ErrorCodes.ENHANCE_YOUR_CALM, str(flood))
        except BadFrame as error:
            self.goodbye(error.code, str(error))
        except ProtocolError as error:
            self._last_words(error)
            self.broken(f"{type(error).__name__}: {error}")
        finally:
            self._working = False
        if self.frames.goaway is not None and self.open:
            (last, code), self.frames.goaway = self.frames.goaway, None
            self.on_goaway(last, code)
        self.flush()

    def _last_words(self, error: ProtocolError) -> None:
        """Write what is left; its end is the library's GOAWAY, which calls an error of compression one of the protocol."""
        data = self.h2.data_to_send()
        if isinstance(error.__cause__, HPACKError) and data:
            data = data[:-4] + ErrorCodes.COMPRESSION_ERROR.to_bytes(4, "big")
        self.transport.write(data)

    def on_event(self, event: Event) -> None:
        """One event of a stream."""

    def on_goaway(self, last: int, code: int) -> None:
        """The peer takes no streams above `last`."""

    def broken(self, what: str) -> None:
        """The connection cannot go on: the peer does not speak HTTP/2 as it should."""

    def _window(self, id: int) -> None:
        lane = self.lanes.get(id)
        if not id:
            self.advance_all()
        elif lane is not None:
            while lane.advance():
                pass

    def _settings(self) -> None:
        if self.h2.encoder.header_table_size > limits.HEADER_TABLE_BYTES:
            self.h2.encoder.header_table_size = limits.HEADER_TABLE_BYTES
        self.advance_all()
        self.on_settings()

    def on_settings(self) -> None:
        """The peer's settings are known, or others."""

    # -- out ------------------------------------------------------------------------------------------------------------------

    def advance_all(self) -> None:
        """A frame of each lane in turn, so that none keeps the connection's window to itself."""
        busy = [lane for lane in list(self.lanes.values()) if lane.waiting]
        while busy:
            busy = [lane for lane in busy if lane.advance()]

    def wrote(self, size: int) -> None:
        self.frames.earn(1)
        self._unflushed += size
        if self._unflushed > FLUSH_BYTES:
            self.flush(force=True)

    def flush(self, *, force: bool = False) -> None:
        """Write what is to be sent; while frames are being taken in, that is done once for all."""
        if (self._working and not force) or not self.open:
            return
        self._unflushed = 0
        data = self.h2.data_to_send()
        if data:
            self.transport.write(data)

    def reset(self, lane: Lane, code: int) -> None:
        """Reset a stream for what its peer did, which costs the peer. Raises Flood."""
        self.lanes.pop(lane.id, None)
        lane.reset(code)
        self.frames.spend(RESET_COST, "one that had its stream reset")

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        self.advance_all()
        self.flush()

    def say_goaway(self, last: int, code: int = 0, why: str = "") -> None:
        """GOAWAY by hand: the library would take no more frames of the streams that are open."""
        self.flush(force=True)
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=why.encode("latin-1", "replace")[:100])
        self.transport.write(frame.serialize())

    def goodbye(self, code: int, why: str) -> None:
        """End the connection because of what the peer did."""
        self.say_goaway(self.h2.highest_inbound_stream_id, code, why)
        self.broken(why)
