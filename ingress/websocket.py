"""Where WebSocket frames begin and end in a stream of bytes: a close frame of our own may only stand between two frames. Pure.

Payloads are never looked at; permessage-deflate and fragments pass as they are (control frames may stand between fragments).
"""

GOING_AWAY = b"\x88\x02\x03\xe9"
"""Close, code 1001, from a server."""
GOING_AWAY_MASKED = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
"""The same from a client."""


class Frames:
    """Follows one direction of a WebSocket."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """Whether what was fed ends exactly with a frame's end."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                continue
            need = self._need() - len(self._head)
            self._head += data[at : at + need]
            at += need
            if len(self._head) >= 2 and len(self._head) == self._need():
                self._left = self._payload()
                self._head = b""

    def _need(self) -> int:
        """How long the head is, as far as can be said."""
        if len(self._head) < 2:
            return 2
        second = self._head[1]
        return 2 + {126: 2, 127: 8}.get(second & 0x7F, 0) + (4 if second & 0x80 else 0)

    def _payload(self) -> int:
        length = self._head[1] & 0x7F
        if length == 126:
            return int.from_bytes(self._head[2:4], "big")
        if length == 127:
            return int.from_bytes(self._head[2:10], "big")
        return length
