"""Ports of loopback that tests and benches give to what they start: free now, and nobody else's for a long while.

They lie below those that the kernel gives to outgoing connections: such a one may be taken between being found free and being used.
Processes side by side never get the same: they count on in one file.
"""

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, END = 10_000, 32_000
COUNTER = Path(tempfile.gettempdir()) / "ebb-next-port"


def free_port() -> int:
    """Raises RuntimeError."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens at. Raises RuntimeError."""
    with os.fdopen(os.open(COUNTER, os.O_RDWR | os.O_CREAT, 0o600), "r+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        port = int(counter.read() or FIRST)
        for _ in range(END - FIRST):
            if not FIRST <= port <= END - count:
                port = FIRST
            taken = next((one for one in range(port, port + count) if not _is_free(one)), None)
            if taken is None:
                counter.seek(0)
                counter.truncate()
                counter.write(str(port + count))
                return port
            port = taken + 1
    raise RuntimeError(f"no {count} free ports in a row from {FIRST} to {END}")


def _is_free(port: int) -> bool:
    with contextlib.ExitStack() as stack:
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                stack.enter_context(socket.socket(type=kind)).bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
