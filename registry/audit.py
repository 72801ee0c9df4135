"""The audit log: who did what to which object, from where, and what came of it; appended to files that are chained.

    log = AuditLog(directory, clock)
    log.open()
    log.write(Attempt(…), code=201)

A line is in the file before the answer leaves (`write` returns after the kernel has it; the disk has it within SYNC_S). No body
and no secret is in it. What was refused is in it too, but not more than so many lines a second: how many were left out is said by
the next one that is not.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from process import logs
from process.clock import Clock, rfc3339
from registry.ratelimit import Buckets
from store.auditchain import Head, Line, link

FILE_MOST_BYTES = 64 * 2**20
FILES_MOST = 20
SYNC_S = 1.0
REFUSED_PER_S, REFUSED_BURST = 20.0, 200.0
"""Of all; one address has a tenth of it."""
_TEXT_MOST = 300
log = logs.get("registry.audit")


class AuditFailed(Exception):
    """The log cannot be written; the message says why. Nothing that would be in it may be done."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What somebody tried."""

    who: str = ""
    """Empty: nobody who is known."""
    token: str = ""
    action: str = ""
    kind: str = ""
    project: str = ""
    name: str = ""
    address: str = ""
    cause_id: str = ""
    why: str = ""
    """Why it was refused."""


class AuditLog:
    """Files `audit-<first seq>.jsonl` in a directory of their own; one process writes there."""

    def __init__(
        self, directory: Path, clock: Clock, file_most_bytes: int = FILE_MOST_BYTES, files_most: int = FILES_MOST
    ) -> None:
        self._directory, self._clock = directory, clock
        self._file_most_bytes, self._files_most = file_most_bytes, files_most
        self._fd, self._size, self._unsynced = -1, 0, False
        self.head = Head()
        self._all = Buckets(REFUSED_PER_S, REFUSED_BURST)
        self._by_address = Buckets(REFUSED_PER_S / 10, REFUSED_BURST / 10)
        self._left_out = 0
        self._listeners: list[asyncio.Queue[bytes]] = []

    def files(self) -> list[Path]:
        """From the oldest to the one that is written."""
        return sorted(self._directory.glob("audit-*.jsonl"))

    def open(self) -> None:
        """Go on where the last line is; half a line, of a machine that lost power, is cut off. Raises AuditFailed."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.chmod(self._directory, 0o700)
            found = self.files()
            if not found:
                return self._begin()
            data = found[-1].read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            self._fd, self._size = os.open(found[-1], os.O_WRONLY | os.O_APPEND), len(whole)
            if len(whole) != len(data):
                os.ftruncate(self._fd, len(whole))
            last = whole.rstrip(b"\n").rpartition(b"\n")[2] or self._last_of(found[:-1])
            if last:
                line = json.loads(last)
                self.head = Head(int(line["seq"]), str(line["hash"]))
        except (OSError, ValueError, KeyError) as error:
            raise AuditFailed(
                f"the audit log in {self._directory} cannot be used: {error}; make room or move it away"
            ) from None

    def writable(self) -> None:
        """Raises AuditFailed when the next line would not be written: asked before something is done."""
        if self._fd < 0:
            raise AuditFailed(f"the audit log in {self._directory} is not open")
        try:
            space = os.fstatvfs(self._fd)
        except OSError as error:
            raise AuditFailed(f"{self._directory}: {error}") from None
        if not space.f_bavail:
            raise AuditFailed(f"{self._directory}: the disk is full; make room")

    def refused(self, attempt: Attempt, code: int) -> None:
        """`write` for what was refused: bounded. Raises AuditFailed."""
        now = self._clock.now()
        if self._by_address.take(attempt.address, now) or self._all.take("", now):
            self._left_out += 1
            return
        self.write(attempt, code)

    def write(self, attempt: Attempt, code: int) -> None:
        """Append a line. Raises AuditFailed."""
        said: Line = {"at": round(self._clock.wall(), 3), "time": rfc3339(self._clock.wall()), "code": code}
        said |= {name: _clean(value) for name in Attempt.__slots__ if (value := getattr(attempt, name))}
        if self._left_out:
            said["left_out"], self._left_out = self._left_out, 0
        try:
            self._append(said)
        except OSError as error:
            raise AuditFailed(f"the audit log in {self._directory} cannot be written: {error}; make room there") from None

    def _append(self, said: Line) -> None:
        line, head = link(said, self.head)
        data = json.dumps(line, sort_keys=True).encode() + b"\n"
        if self._size + len(data) > self._file_most_bytes:
            self._rotate()
        done = os.write(self._fd, data)
        if done != len(data):  # a full disk takes a part
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "No space left on device")
        self._size, self.head, self._unsynced = self._size + len(data), head, True
        for queue in self._listeners:
            if not queue.full():
                queue.put_nowait(data)

    def _begin(self) -> None:
        path = self._directory / f"audit-{self.head.seq + 1:012d}.jsonl"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, os.fstat(fd).st_size

    def _rotate(self) -> None:
        os.fsync(self._fd)
        self._begin()
        for old in self.files()[: -self._files_most]:
            log.info("an old file of the audit log is deleted", file=str(old), kept=self._files_most)
            old.unlink(missing_ok=True)

    @staticmethod
    def _last_of(files: list[Path]) -> bytes:
        return files[-1].read_bytes().rstrip(b"\n").rpartition(b"\n")[2] if files else b""

    @contextlib.contextmanager
    def heard(self, queue: asyncio.Queue[bytes]) -> Iterator[None]:
        """Every line that is written inside goes into `queue` too, unless that is full."""
        self._listeners.append(queue)
        try:
            yield
        finally:
            self._listeners.remove(queue)

    async def sync(self) -> None:
        """For ever: what was written reaches the disk within SYNC_S."""
        while True:
            await asyncio.sleep(SYNC_S)
            if self._unsynced:
                self._unsynced = False
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(os.fdatasync, self._fd)

    def lines(self) -> Iterator[bytes]:
        """Every line that is kept, oldest first. Blocking, a line at a time."""
        for path in self.files():
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))


def _clean(text: str) -> str:
    """As it is written: one line, no control characters, of a bounded length."""
    return "".join(c if c.isprintable() else "?" for c in text[:_TEXT_MOST])
