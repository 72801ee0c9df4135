"""The log of one instance on disk: rotated files of tagged lines, and the two raw files its output arrives in.

A line is `<wall seconds> <o|e> <offset>,<offset> <text>`: o is stdout, e stderr; the offsets are how far the two raw files were
read when it was written, so that a new agent goes on exactly there. Raw files are written by the shim and never waited for; what
was read is punched out of them, so that they take no room on the disk.
"""

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

ROTATE_BYTES = 10 * 2**20
KEEP = 3
"""Files of one instance, the current one included."""
LINE_BYTES = 16 * 1024
"""A longer line is cut into several."""
TAG_BYTES = 48
"""What a line takes in the log beside its text, about."""
CHUNK_BYTES = 64 * 1024
STREAMS = {"o": "stdout", "e": "stderr"}

_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an instance's log. `stream` is o or e."""

    at: float
    stream: str
    text: str
    offsets: tuple[int, int] = (0, 0)


def format_line(line: Line, offsets: tuple[int, int]) -> bytes:
    return f"{line.at:.6f} {line.stream} {offsets[0]},{offsets[1]} {line.text}\n".encode()


def parse_line(raw: bytes) -> Line | None:
    """The line in `raw`, or None when it was cut short by a crash."""
    parts = raw.rstrip(b"\n").decode(errors="replace").split(" ", 3)
    if len(parts) != 4 or parts[1] not in STREAMS:
        return None
    try:
        out, _, err = parts[2].partition(",")
        return Line(float(parts[0]), parts[1], parts[3], (int(out), int(err)))
    except ValueError:
        return None


class RateCap:
    """How many bytes may be taken now: `rate` a second, at most `burst` at once. Pure."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, burst, now

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` bytes are granted."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        granted = max(0, min(wanted, int(self._left)))
        self._left -= granted
        return granted

    def spend(self, count: int) -> None:
        """What was granted came to `count` bytes more: they are missing from what comes next."""
        self._left -= count


class Rotated:
    """`path`, and `path.1`, `path.2` before it. Raises OSError when the disk is full."""

    def __init__(self, path: Path, rotate_bytes: int = ROTATE_BYTES, keep: int = KEEP) -> None:
        self._path, self._rotate_bytes, self._keep = path, rotate_bytes, keep
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._rotate_bytes:
            self._rotate()
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._keep - 1, 0, -1):
            older = self._path if number == 1 else files(self._path)[number - 1]
            if older.exists():
                older.replace(files(self._path)[number])
        self._file = self._path.open("ab", buffering=0)
        self._size = 0


def files(path: Path, keep: int = KEEP) -> list[Path]:
    """The names of a rotated log, newest first."""
    return [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, keep))]


def read_lines(path: Path, *, tail: int | None = None, since: float = 0.0) -> list[Line]:
    """Lines of a rotated log, oldest first; the last `tail` of them, and none before the wall time `since`."""
    found: list[Line] = []
    for file in files(path):
        try:
            raw = file.read_bytes().removesuffix(b"\n").split(b"\n")  # at nothing else: the rest is an app's own text
        except FileNotFoundError:
            continue
        if tail is not None:
            raw = raw[max(0, len(raw) - (tail - len(found))) :]
        lines = [line for line in map(parse_line, raw) if line is not None and line.at >= since]
        found = lines + found
        if tail is not None and len(found) >= tail:
            break
    return found if tail is None else found[max(0, len(found) - tail) :]


class Raw:
    """A file that the shim appends to and we read from."""

    def __init__(self, path: Path, stream: str, offset: int = 0) -> None:
        self.path, self.stream, self.offset = path, stream, offset
        self.dropped_bytes = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._partial = b""
        self._mid_line = False

    @property
    def partial(self) -> bool:
        """Whether the last line read has no end yet."""
        return bool(self._partial)

    @property
    def logged(self) -> int:
        """Up to where whole lines were taken."""
        return self.offset - len(self._partial)

    def waiting(self) -> int:
        """Bytes that are not read yet."""
        size = os.fstat(self._fd).st_size
        if size < self.offset:  # truncated by somebody
            self.offset, self._partial = 0, b""
        return size - self.offset

    def read(self, at: float, limit: int) -> list[Line]:
        """The next whole lines, of at most `limit` bytes."""
        data = os.pread(self._fd, min(limit, CHUNK_BYTES), self.offset)
        self.offset += len(data)
        *whole, rest = (self._partial + data).split(b"\n")
        if self._mid_line and whole:  # the end of a line whose beginning was dropped
            whole, self._mid_line = whole[1:], False
        pieces = [piece for line in whole for piece in _cut(line)]
        while len(rest) > LINE_BYTES:
            pieces.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._partial = rest
        return [Line(at, self.stream, piece.decode(errors="replace")) for piece in pieces]

    def rest(self, at: float) -> list[Line]:
        """What stands there without an end of line."""
        if not self._partial:
            return []
        rest, self._partial = self._partial, b""
        return [Line(at, self.stream, rest.decode(errors="replace"))]

    def skip(self, count: int) -> None:
        """Drop the next `count` bytes unread, and what remains of the line they end in."""
        self.offset += count
        self.dropped_bytes += count
        self._partial, self._mid_line = b"", os.pread(self._fd, 1, self.offset - 1) != b"\n"

    def free(self) -> None:
        """Give the room of what was read back to the file system."""
        length = self.logged & ~4095
        if length:
            _libc.fallocate64(self._fd, _PUNCH, 0, length)  # where it cannot be, the file just stays as long as it is

    def close(self) -> None:
        os.close(self._fd)


def _cut(line: bytes) -> list[bytes]:
    if len(line) <= LINE_BYTES:
        return [line.removesuffix(b"\r")]
    return [line[i : i + LINE_BYTES] for i in range(0, len(line), LINE_BYTES)]
