"""What both ends of HTTP/2 share: a connection (Link) with its streams (Lanes), flow control each way, and bounded memory.

Bytes out wait in their lane while the peer's window or the socket is full; above a bound their sender is told to pause. Bytes in
are acknowledged when whoever they are for has room, so that a slow reader stops its own sender and nobody else.
"""

import asyncio
from collections import deque
from typing import Any, cast

from ingress import limits
from ingress.chunked import Trailers
from ingress.frames2 import ENHANCE_YOUR_CALM, RESET_COST, BadFrame, Flood
from ingress.gate import Gate
from ingress.heads2 import trailers_in, trailers_out
from ingress.hpack2 import Field
from ingress.http1 import Fields
from ingress.speaker2 import WireLane
from ingress.wire2 import Wire

FLUSH_BYTES = 64 * 1024
LAST_STREAM = 2**31 - 1


class Lane(WireLane):
    """One stream of a Link."""

    __slots__ = ("_ending", "_full", "_holding", "_queue", "_queued", "_trailers", "_unread", "link")

    def __init__(self, link: "Link", id: int) -> None:
        super().__init__(id)
        self.link = link
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
        self._trailers = self.link.trailers_out(trailers) if trailers else ()
        self.push(b"", last=True)

    def advance(self) -> bool:
        """Send one frame if that can be; False when it cannot, or there is nothing more to send."""
        if not self.waiting or self.link.stuck:
            return False
        sent = self._one()
        if self._full and self._queued <= limits.LANE_HIGH_BYTES // 4:
            self._full = False
            self.roomy()
        if not self.open_out:
            self.sent_all()
        return sent

    def _one(self) -> bool:
        link = self.link
        if self._queue:
            room = link.frame_room(self)
            if room <= 0:
                return False
            data = self._queue.popleft()
            if len(data) > room:
                self._queue.appendleft(data[room:])
                data = data[:room]
            self._queued -= len(data)
            ends = self._ending and not self._queue and not self._trailers
            self.open_out = not ends
            link.send_data(self, data, ends)
            link.wrote(len(data))
            return True
        self.open_out = False
        if self._trailers:
            link.send_head(self, self._trailers, True)
        else:
            link.send_data(self, b"", True)
        return False

    # -- in -------------------------------------------------------------------------------------------------------------------

    def read(self, size: int) -> None:
        """`size` flow-controlled bytes came and were passed on; the peer may send as many more, unless this lane is held."""
        if self._holding:
            self._unread += size
        elif size:
            self.link.took(self, size)

    def hold(self) -> None:
        self._holding = True

    def unhold(self) -> None:
        self._holding = False
        unread, self._unread = self._unread, 0
        if unread and self.link.open:
            self.link.took(self, unread)
            self.link.flush()

    def reset(self, code: int) -> None:
        """End both halves at once, if they are not over."""
        begun = self.open_in or self.open_out
        self.open_in = self.open_out = False
        self._queue.clear()
        self._queued = 0
        unread, self._unread = self._unread, 0
        if not self.link.open:
            return
        if unread:
            self.link.took(None, unread)
        if begun:
            self.link.send_reset(self.id, code)
        self.link.flush()


class Link(Wire, asyncio.Protocol):
    """One HTTP/2 connection, whichever end of it."""

    def __init__(self, gate: Gate, *, client_side: bool) -> None:
        super().__init__(gate.now(), client_side=client_side)
        self.gate = gate
        self.transport: Any = None
        self.stuck = False
        """The socket takes no more for now."""
        self._flushing = False
        self._unflushed = 0
        self._call_soon = asyncio.get_running_loop().call_soon
        # What came last, and what it means: trailers mostly say the same each time, and then are the same list.
        self._last_in: tuple[list[Field], Trailers] = [], ()
        self._last_out: tuple[Trailers, Fields] = (), []

    def hello(self, transport: Any, stream_window: int, window: int, settings: dict[int, int]) -> None:
        """Say who we are, on `transport`; the rest is as in `begin`."""
        self.transport = transport
        cast(Any, transport).set_write_buffer_limits(high=limits.WRITE_HIGH_BYTES)
        self.begin(stream_window, window, settings)
        self.flush_now()

    # -- in -------------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self.open:
            return
        try:
            self.receive(data, self.gate.now())
        except Flood as flood:
            self.gate.metrics.refused("flood")
            self.goodbye(ENHANCE_YOUR_CALM, str(flood))
        except BadFrame as error:
            self.goodbye(error.code, str(error))
        self.flush_now()

    def broken(self, what: str) -> None:
        """The connection cannot go on: the peer does not speak HTTP/2 as it should."""

    def on_window(self, lane: Lane | None) -> None:
        if lane is None:
            self.advance_all()
        else:
            while lane.advance():
                pass

    def on_settings(self) -> None:
        self.advance_all()

    def trailers(self, head: list[Field]) -> Trailers:
        """Trailers that came as `head`. Raises Malformed."""
        if head is not self._last_in[0]:
            self._last_in = head, trailers_in(head)
        return self._last_in[1]

    # -- out ------------------------------------------------------------------------------------------------------------------

    def trailers_out(self, trailers: Trailers) -> Fields:
        """`trailers` as they are sent."""
        if trailers is not self._last_out[0]:
            self._last_out = trailers, trailers_out(trailers)
        return self._last_out[1]

    def advance_all(self) -> None:
        """A frame of each lane in turn, so that none keeps the connection's window to itself."""
        busy = [lane for lane in list(self.lanes.values()) if lane.waiting]
        while busy:
            busy = [lane for lane in busy if lane.advance()]

    def wrote(self, size: int) -> None:
        self._unflushed += size
        if self._unflushed > FLUSH_BYTES:
            self.flush_now()

    def flush(self) -> None:
        """Write what is to be sent, once for all that is said before the loop's next turn."""
        if not self._flushing:
            self._flushing = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self.flush_now()

    def flush_now(self) -> None:
        self._unflushed = 0
        data = self.take()
        if data and self.open and not self.transport.is_closing():
            self.transport.write(data)

    def reset(self, lane: Lane, code: int) -> None:
        """Reset a stream for what its peer did, which costs the peer. Raises Flood."""
        self.lanes.pop(lane.id, None)
        lane.reset(code)
        self.budget.spend(RESET_COST, "one that had its stream reset")

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        self.advance_all()
        self.flush()

    def say_goaway(self, last: int, code: int = 0, why: str = "") -> None:
        """GOAWAY, at once; what is open goes on."""
        self.send_goaway(last, code, why)
        self.flush_now()

    def goodbye(self, code: int, why: str) -> None:
        """End the connection because of what the peer did."""
        self.say_goaway(self.highest, code, why)
        self.broken(why)
