"""Which limits a running instance has met, told in its status, so that who owns it need not guess. `words` is pure, `look` reads files.

A process that is killed for memory, a fork or a write that fails: the app sees it, but often says something else.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from nodeagent import cgroups
from nodeagent.cgroups import ROOT, Mode
from nodeagent.failures import size
from nodeagent.logs import RATE_BYTES
from nodeagent.ocispec import NOFILE

FULL = 0.01
"""With less than this part free, what it writes to counts as full."""


@dataclass(frozen=True, slots=True)
class Met:
    """What the kernel says. Sizes of what it writes to; processes that could not be made; processes killed for memory."""

    size_bytes: int = 0
    free_bytes: int = 0
    files: int = 0
    free_files: int = 0
    forks_refused: int = 0
    oom_kills: int = 0
    open_files: int = 0
    """Of its first process."""
    log_dropped_bytes: int = 0
    connections_most: int = 0
    """Where it was refused one more."""


def words(met: Met, pids_limit: int, memory_limit_bytes: int) -> list[str]:
    """One line for each limit: what, its value, the cure. No counts that grow: what is said once is not written again."""
    found = []
    if met.size_bytes and met.free_bytes < met.size_bytes * FULL:
        found.append(
            f"DiskFull: what it may write, {size(met.size_bytes)}, is full; set resources.limits.ephemeral-storage, or write less"
        )
    if met.files and met.free_files < met.files * FULL:
        found.append(
            f"TooManyFiles: it has the {met.files} files that it may have; remove some, or set resources.limits.ephemeral-storage"
        )
    if met.forks_refused:
        found.append(f"TooManyProcesses: it has {pids_limit} processes and threads, its limit; more are refused")
    if met.oom_kills:
        limit = f"its limit of {size(memory_limit_bytes)}" if memory_limit_bytes else "this machine's memory"
        found.append(f"OutOfMemory: processes of it were killed at {limit}; raise resources.limits.memory, or use less")
    if met.open_files > NOFILE * (1 - FULL):
        found.append(
            f"TooManyOpenFiles: its first process has the {NOFILE} open files and sockets that it may have; close some"
        )
    if met.connections_most:
        found.append(
            f"TooManyConnections: it has the {met.connections_most} connections out that an instance may have, and more are dropped; "
            "close some, or share them"
        )
    if met.log_dropped_bytes:
        found.append(f"LogRateLimited: it wrote more than {size(RATE_BYTES)} a second to its log; what exceeds that is dropped")
    return found


def look(mode: Mode, path: str, pid: int, log_dropped_bytes: int = 0, connections_most: int = 0, root: Path = ROOT) -> Met:
    """What the instance at the cgroup `path`, whose first process is `pid`, has met; zeros when it is gone. The rest is known already."""
    used = cgroups.usage(mode, path, root)
    try:
        disk = os.statvfs(f"/proc/{pid}/root")
        open_files = os.stat(f"/proc/{pid}/fd").st_size  # the kernel's own count, since Linux 6.2; 0 before
    except OSError:
        return Met()
    return Met(
        size_bytes=disk.f_blocks * disk.f_frsize,
        free_bytes=disk.f_bavail * disk.f_frsize,
        files=disk.f_files,
        free_files=disk.f_ffree,
        forks_refused=_forks_refused(mode, path, root),
        oom_kills=used.oom_kills if used is not None else 0,
        open_files=open_files,
        log_dropped_bytes=log_dropped_bytes,
        connections_most=connections_most,
    )


def _forks_refused(mode: Mode, path: str, root: Path) -> int:
    try:
        text = ((root if mode is Mode.V2 else root / "pids") / path.lstrip("/") / "pids.events").read_text()
    except OSError:
        return 0
    return cgroups.field(text, "max")
