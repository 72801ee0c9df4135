"""Progress step by step: a line when a step is done, with its time; on a terminal also what is going on right now."""

import sys
import time
from types import TracebackType
from typing import Any


class Steps:
    """Use as a context manager. Writes to stderr, so that stdout holds only results."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._began = self._last = time.monotonic()
        self._status: Any = None
        self._now = ""

    def __enter__(self) -> "Steps":
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("", spinner="dots")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def now(self, text: str) -> None:
        """Show what is being waited for; on a pipe only when its first words change, so that long steps are seen to move."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif not self._quiet and text.partition(":")[0] != self._now.partition(":")[0]:
            sys.stderr.write(f"  … {text}\n")
        self._now = text

    def done(self, text: str) -> None:
        """A step is done: a line, within 80 columns, with how long it took and when it was, since the beginning."""
        now = time.monotonic()
        self._line("✓", f"{text:<52} {now - self._last:6.2f} s  at {now - self._began:6.2f} s")
        self._last = now
        if self._status is not None:
            self._status.update("")

    def failed(self, text: str) -> None:
        self._line("✗", text)

    def _line(self, mark: str, text: str) -> None:
        if not self._quiet:
            sys.stderr.write(("\r\033[K" if self._status is not None else "") + f"{mark} {text}\n")
            sys.stderr.flush()
