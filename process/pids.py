"""Processes named by pid and start time together, so that a pid used again is never mistaken for the old one."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import msgspec


class Pid(msgspec.Struct, frozen=True):
    """One process: its pid, and when it was started in clock ticks since boot (field 22 of /proc/<pid>/stat)."""

    pid: int
    ticks: int


def identify(pid: int) -> Pid | None:
    """The process that has `pid` now, or None when there is none (or only its zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else Pid(pid, int(fields[19]))


def alive(who: Pid | None) -> bool:
    """Whether exactly this process still runs."""
    return who is not None and identify(who.pid) == who


def open_fd(who: Pid) -> int | None:
    """A pidfd of `who`, readable when it ends; None when it has ended. The caller closes it."""
    try:
        fd = os.pidfd_open(who.pid)
    except OSError:
        return None
    if not alive(who):  # asked after the open: from here on the fd cannot come to mean another process
        os.close(fd)
        return None
    return fd


def send(who: Pid, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False when it has ended."""
    fd = open_fd(who)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


async def ended(who: Pid, timeout_s: float | None = None) -> bool:
    """Wait until exactly this process has ended; False when it has not within `timeout_s`."""
    fd = open_fd(who)
    if fd is None:
        return True
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(fd, gone.set)
    try:
        async with asyncio.timeout(timeout_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return True


def be_nice(pid: int, nice: int) -> None:
    """Give `pid`, just started, that priority; and the session it leads, which is what the kernel weighs where it groups by session
    (`sched_autogroup_enabled`). As far as we may, and it lives."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def command(pid: int) -> list[str]:
    """The argv of `pid`; empty when it has ended or hides it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def user(pid: int) -> int | None:
    """The user that `pid` runs as; None when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[2]) for line in lines if line.startswith("Uid:")), None)


def everyone() -> list[int]:
    """All pids that can be seen now."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def memory_bytes(pid: int) -> int:
    """Resident memory of `pid` in bytes; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
