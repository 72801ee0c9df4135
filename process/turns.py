"""How long turns on a processor are: this process's own, and other threads'.

Linux lets whoever runs finish its slice before somebody who has just woken, and looks for its end only at ticks (4 ms at 250 Hz).
Who asks for shorter slices goes before whoever has longer ones, until it has had its share, and takes no more than its weight gives it.
"""

import ctypes
import os
import platform
import struct

SHORT_US = 100
"""The shortest there is."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_LIBC = ctypes.CDLL(None)
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority, then runtime (for SCHED_OTHER: the slice), deadline and period in ns."""


def shorten(slice_us: int = SHORT_US) -> bool:
    """Ask for slices of `slice_us` microseconds for the calling thread, and the threads that it starts from now on.

    False where that cannot be asked. Linux before 6.12 takes the question and does nothing.
    """
    return ask(0, slice_us)


def ask(thread: int, slice_us: int) -> bool:
    """The same for a thread by its id (0: the calling one); `slice_us` 0: as the kernel gives them. False also for one that is gone, or
    is scheduled otherwise than usual (real time, batch, idle)."""
    number = _SCHED_SETATTR.get(platform.machine())
    try:
        if number is None or os.sched_getscheduler(thread) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, thread)
    except OSError:
        return False
    asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, slice_us * 1000, 0, 0)
    return bool(_LIBC.syscall(number, thread, asked, 0) == 0)
