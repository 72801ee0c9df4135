"""What instances write, from the shim's raw files into rotated logs: read by a thread, so that no disk holds up a start.

The container never waits for us: its output goes to files. While the agent is away they only grow; it goes on where it was.
What exceeds an instance's rate is skipped unread and counted.
"""

import asyncio
import os
import select
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nodeagent.inotify import Inotify
from nodeagent.logfile import CHUNK_BYTES, TAG_BYTES, Line, RateCap, Raw, Rotated, format_line, read_lines
from process import logs, metrics

RATE_BYTES = 2 * 2**20
BURST_BYTES = 8 * 2**20
SETTLE_S = 0.01
"""After a look the thread rests so long: what came meanwhile is read at once."""
REST_S = 1.0
"""A last line without an end is taken as one after so long."""

_log = logs.get("logs")
_dropped = metrics.counter("log_dropped_bytes_total", "Output skipped because an instance wrote faster than its rate")


class Owner(msgspec.Struct, frozen=True):
    """Whose log it is; kept beside it."""

    project: str = ""
    service: str = ""
    revision: str = ""


Listener = Callable[[str, list[Line]], None]


@dataclass(slots=True)
class _Book:
    directory: Path
    out: Rotated
    raws: tuple[Raw, Raw]
    cap: RateCap
    numbers: tuple[int, int]
    partial_since: float = 0.0
    dropped_bytes: int = 0


class Logs:
    """All instances' logs under `root`; one directory an instance, kept after the instance is gone until `prune`."""

    def __init__(self, root: Path, *, rate_bytes: float = RATE_BYTES, burst_bytes: float = BURST_BYTES) -> None:
        self._root = root
        self._rate, self._burst = rate_bytes, burst_bytes
        self._books: dict[str, _Book] = {}
        self._owners: dict[str, Owner] = {}
        self._by_number: dict[int, str] = {}
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inotify = Inotify()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False

    def start(self) -> None:
        """Begin to read. Call on the event loop that listeners live on."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Read what is there and end."""
        self._stopping = True
        os.write(self._wake_w, b"x")
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5)
        for instance in list(self._books):
            await asyncio.to_thread(self._close, instance, keep=True)
        self._inotify.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def path(self, instance: str) -> Path:
        return self._root / instance / "log"

    def instances(self) -> list[str]:
        """Instances with a log here, running or gone."""
        return sorted(entry.name for entry in self._root.iterdir() if entry.is_dir())

    def owner(self, instance: str) -> Owner:
        """Whose it is; nobody's when that is not known."""
        known = self._owners.get(instance)
        if known is None:
            try:
                known = msgspec.json.decode((self._root / instance / "owner.json").read_bytes(), type=Owner)
            except (OSError, msgspec.DecodeError):
                return Owner()
            self._owners[instance] = known
        return known

    def dropped_bytes(self, instance: str) -> int:
        """How much of what it wrote was skipped, because it wrote faster than its rate."""
        book = self._books.get(instance)  # without the lock: the loop does not wait for a flood to be read
        return book.dropped_bytes if book is not None else 0

    def open(self, instance: str, owner: Owner | None = None) -> tuple[str, str]:
        """Where the task shall write stdout and stderr. Opens what is there already again: nothing is lost or doubled."""
        directory = self._root / instance
        names = (str(directory / "stdout"), str(directory / "stderr"))
        with self._lock:
            if instance in self._books:
                return names
        directory.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            (directory / "owner.json").write_bytes(msgspec.json.encode(owner))
        last = read_lines(directory / "log", tail=1)
        offsets = last[0].offsets if last else (0, 0)
        raws = (Raw(directory / "stdout", "o", offsets[0]), Raw(directory / "stderr", "e", offsets[1]))
        numbers = (self._inotify.add(raws[0].path), self._inotify.add(raws[1].path))
        cap = RateCap(self._rate, self._burst, time.monotonic())
        with self._lock:
            self._books[instance] = _Book(directory, Rotated(directory / "log"), raws, cap, numbers)
            self._by_number |= dict.fromkeys(numbers, instance)
        if last or raws[0].waiting() or raws[1].waiting():
            os.write(self._wake_w, b"x")
        return names

    async def close(self, instance: str) -> None:
        """Read the rest and close; the log stays, the raw files go. Nothing happens when it is not open."""
        if instance in self._books:
            await asyncio.to_thread(self._close, instance)

    def _close(self, instance: str, *, keep: bool = False) -> None:
        """`keep`: its task runs on and writes, for the next agent to read."""
        self._take(instance, last=not keep)
        with self._lock:
            book = self._books.pop(instance, None)
            if book is None:
                return
            for number, raw in zip(book.numbers, book.raws, strict=True):
                self._by_number.pop(number, None)
                self._inotify.remove(number)
                raw.close()
                if not keep:
                    raw.path.unlink(missing_ok=True)
            book.out.close()

    async def tail(self, instance: str, count: int) -> list[str]:
        """The last `count` lines it wrote, with what was written until now."""
        return await asyncio.to_thread(self._tail, instance, count)

    def _tail(self, instance: str, count: int) -> list[str]:
        # The exit is told before the shim has copied the last bytes: a moment's patience, in this thread.
        for pause_s in (0.005, 0.01, 0.02, 0.04):
            time.sleep(pause_s)
            self._take(instance, last=True)
            lines = read_lines(self.path(instance), tail=count)
            if lines:
                break
        return [line.text for line in lines]

    async def history(self, instance: str, *, tail: int | None, since: float) -> list[Line]:
        """Lines on disk, oldest first."""
        return await asyncio.to_thread(lambda: read_lines(self.path(instance), tail=tail, since=since))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(instance, lines)` on the event loop from now on; returns how to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def prune(self, keep: set[str], older_than: float, most: int) -> None:
        """Delete logs of instances not in `keep` that were last written before `older_than` (wall), or beyond `most`."""
        await asyncio.to_thread(self._prune, keep, older_than, most)

    def _prune(self, keep: set[str], older_than: float, most: int) -> None:
        gone = [entry for entry in self._root.iterdir() if entry.name not in keep and entry.name not in self._books]
        aged = sorted(((entry.stat().st_mtime, entry) for entry in gone), reverse=True)
        for index, (modified, entry) in enumerate(aged):
            if modified < older_than or index >= most:
                self._owners.pop(entry.name, None)
                shutil.rmtree(entry, ignore_errors=True)

    # -- the thread ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._inotify.fd, select.POLLIN)
        poll.register(self._wake_r, select.POLLIN)
        again: set[str] = set()
        while not self._stopping:
            ready = {fd for fd, _ in poll.poll(100 if again else None)}
            numbers = self._inotify.read()
            if self._wake_r in ready:
                os.read(self._wake_r, 4096)
            with self._lock:
                every = -1 in numbers or self._wake_r in ready
                touched = set(self._books) if every else {self._by_number[n] for n in numbers if n in self._by_number}
            again = {instance for instance in touched | again if self._take(instance)}
            time.sleep(SETTLE_S)

    def _take(self, instance: str, *, last: bool = False) -> bool:
        """Move what is waiting into the log. Whether to look again soon."""
        with self._lock:
            book = self._books.get(instance)
            if book is None:
                return False
            try:
                lines, again = self._read(book, last)
                if lines:
                    offsets = (book.raws[0].logged, book.raws[1].logged)
                    book.out.write(b"".join(format_line(line, offsets) for line in lines))
            except OSError as error:
                _log.error("log not written", instance=instance, error=str(error), cure="free some space on the disk")
                return False
            for raw in book.raws:
                raw.free()
        if lines and self._listeners and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell, instance, lines)
        return again

    def _read(self, book: _Book, last: bool) -> tuple[list[Line], bool]:
        now, at = time.monotonic(), time.time()
        lines: list[Line] = []
        for raw in book.raws:
            waiting = raw.waiting()
            end = raw.offset + waiting
            while raw.offset < end and (granted := book.cap.take(min(CHUNK_BYTES, end - raw.offset), now)):
                read = raw.read(at, granted)
                # A flood of empty lines is work too, and more of it than long ones.
                book.cap.spend(TAG_BYTES * len(read))
                lines += read
            if dropped := end - raw.offset:
                raw.skip(dropped)
                _dropped.inc(dropped)
                book.dropped_bytes += dropped
                lines.append(Line(at, raw.stream, f"[{dropped} bytes dropped: faster than the log's rate]"))
        partial = any(raw.partial for raw in book.raws)
        if partial and not book.partial_since:
            book.partial_since = now
        if partial and (last or now - book.partial_since >= REST_S):
            lines += [line for raw in book.raws for line in raw.rest(at)]
            partial = False
        if not partial:
            book.partial_since = 0.0
        return lines, partial

    def _tell(self, instance: str, lines: list[Line]) -> None:
        for listener in list(self._listeners):
            listener(instance, lines)
