"""Who wrote to which file: just enough of inotify, by ctypes. Idle files cost nothing."""

import ctypes
import os
import struct
from pathlib import Path

MODIFY = 0x2
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_HEAD = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """A set of watched files. `fd` is readable when one was written to."""

    def __init__(self) -> None:
        self.fd = _libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify: raise fs.inotify.max_user_instances")

    def add(self, path: Path) -> int:
        """Watch `path`; the number its events carry. Raises OSError."""
        number: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), MODIFY)
        if number < 0:
            raise OSError(ctypes.get_errno(), f"inotify: {path}: raise fs.inotify.max_user_watches")
        return number

    def remove(self, number: int) -> None:
        _libc.inotify_rm_watch(self.fd, number)

    def read(self) -> set[int]:
        """Numbers of the files written to since the last call. -1: some were missed, look at all."""
        found: set[int] = set()
        while True:
            try:
                data = os.read(self.fd, 64 * 1024)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                number, _, _, length = _HEAD.unpack_from(data, at)
                found.add(number)
                at += _HEAD.size + length

    def close(self) -> None:
        os.close(self.fd)
