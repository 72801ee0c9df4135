"""The chunked body, decoded strictly. Pure: bytes in, pieces out.

    size [;extension] CRLF  data CRLF  …  0 CRLF  (trailer CRLF)*  CRLF

Extensions are dropped, as RFC 9112 lets a recipient. Anything else that is off is an error, never a guess.
"""

import re
from collections.abc import Sequence

from ingress.limits import CHUNK_LINE_BYTES, TRAILER_BYTES

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")

NOT_TRAILERS = frozenset(
    (
        b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade",
        b"content-length", b"host", b"te", b"trailer", b"content-encoding", b"authorization",
    )
)  # fmt: skip
"""What says how a message is framed, or where it goes, comes too late after it; some who read it take it for the next one's."""

Trailers = Sequence[tuple[bytes, bytes]]


class BadChunk(Exception):
    """The body is not chunked as it should be; the message says what is wrong. `reason` is a row of refusals."""

    def __init__(self, message: str, reason: str = "bad-request") -> None:
        super().__init__(message)
        self.reason = reason


class ChunkDecoder:
    """Feed it until `done`; what is fed beyond the end comes back as the rest."""

    __slots__ = ("_left", "_line", "_state", "done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._state = "size"
        self._left = 0
        self._line = b""

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """(pieces of the body, what follows its end). Raises BadChunk."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._state == "data":
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                if not self._left:
                    self._state = "end"
                continue
            at = self._take_line(data, at)
        return pieces, data[at:]

    def _take_line(self, data: bytes, at: int) -> int:
        """Take up to the next CRLF; the index after what was taken."""
        newline = data.find(b"\n", at)
        stop = len(data) if newline < 0 else newline + 1
        self._line += data[at:stop]
        bound = TRAILER_BYTES if self._state == "trailer" else CHUNK_LINE_BYTES
        if len(self._line) > bound:
            reason = "headers-too-large" if self._state == "trailer" else "bad-request"
            raise BadChunk(f"a line of {len(self._line)} bytes; the limit is {bound}", reason)
        if newline >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
                raise BadChunk("a line does not end in CRLF")
            self._line_done(line[:-2])
        elif self._state == "end" and self._line not in (b"\r", b""):
            raise BadChunk("data is longer than its size")
        return stop

    def _line_done(self, line: bytes) -> None:
        if self._state == "size":
            size = _SIZE.fullmatch(line)
            if size is None:
                raise BadChunk(f"not a chunk size: {line[:32]!r}")
            self._left = int(size[1], 16)
            self._state = "data" if self._left else "trailer"
        elif self._state == "end":
            if line:
                raise BadChunk("data is longer than its size")
            self._state = "size"
        elif not line:
            self.done = True
        else:
            trailer = _TRAILER.fullmatch(line)
            if trailer is None:
                raise BadChunk(f"not a trailer: {line[:32]!r}")
            self.trailers.append((trailer[1], trailer[2].rstrip(b" \t")))
            if sum(len(name) + len(value) for name, value in self.trailers) > TRAILER_BYTES:
                raise BadChunk(f"trailers above {TRAILER_BYTES} bytes", "headers-too-large")


def encode_chunk(data: bytes) -> bytes:
    """`data`, not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_end(trailers: Trailers) -> bytes:
    """The last chunk, with those of the `trailers` that may be some."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % pair for pair in trailers if pair[0].lower() not in NOT_TRAILERS]) + b"\r\n"
