"""What an instance writes to: a file system of its own with a size, in memory or in a file that has no name.

It is mounted nowhere but under the instance's root: when that is gone, the kernel frees loop device, file and memory alike.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from nodeagent import mounts
from nodeagent.profiles import Writable

MKFS_S = 30.0
_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR = 4
_TRIES = 16


def make(limit: Writable, directory: Path) -> int:
    """A detached mount. `directory`: on the disk that is to hold it, when it is `on_disk`. Raises OSError."""
    if not limit.on_disk:
        return mounts.new("tmpfs", {"size": str(limit.size_bytes), "nr_inodes": str(limit.inodes), "mode": "0755"})
    file = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, limit.size_bytes)
        _format(file, limit.inodes)
        device = _loop(file)
    finally:
        os.close(file)
    try:
        return mounts.new("ext4", {"source": os.readlink(f"/proc/self/fd/{device}")}, ("discard",))
    finally:
        os.close(device)


def _format(file: int, inodes: int) -> None:
    # No journal: nobody reads it after a crash. Nothing is kept back for root, who is nobody in particular here.
    program = shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4"
    argv = [program, "-q", "-F", "-b", "4096", "-m", "0", "-N", str(inodes), "-O", "^has_journal,^resize_inode"]
    argv += ["-E", "lazy_itable_init=1,nodiscard", f"/proc/self/fd/{file}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=MKFS_S, check=False, pass_fds=(file,))
    if done.returncode:
        raise OSError(f"cannot make a file system of its own: mkfs.ext4: {done.stderr.strip()[-300:]}")


def _loop(file: int) -> int:
    """A block device over `file` that ends with its last user."""
    info = struct.pack("=QQQQQIIII64s64s32sQQ", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", 0, 0)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = os.open(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, struct.pack("=II", file, 4096) + info + bytes(64))
            except OSError:
                os.close(device)  # somebody else was quicker to take it
                continue
            return device
    finally:
        os.close(control)
    raise OSError(f"no loop device could be had in {_TRIES} tries; see losetup --list")
