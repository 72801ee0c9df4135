"""Where the first process of a created container waits to be started, and how it is let go.

crun keeps a directory for each container. Until the start, there is a pipe `exec.fifo` in it that the created process reads; `crun start`
writes one byte into it and takes it away. That is done here without containerd, its shim and a program of crun's, which is 7 ms and as much
CPU. containerd is not told: it calls the task created until it ends, and kills, deletes and waits as for any other.
"""

import contextlib
import os
from pathlib import Path

STATE = Path("/run/containerd/runc")
"""Where containerd's shim has the OCI runtime keep a directory for each container, by namespace; as containerd sees the file system."""
_PIPE, _RECORD, _FILTER = "exec.fifo", "status", "seccomp.bpf"


def state(socket: str) -> Path:
    """`STATE` of the containerd at `socket`, as we see it. One that the engine started has a /run/containerd of its own, `shims` beside
    its socket."""
    own = Path(socket).parent / "shims"
    return own / "runc" if own.is_dir() else STATE


def let_go(place: Path) -> bool:
    """Start the created container whose directory is `place`. False: it cannot be done this way; nothing has happened then."""
    pipe = place / _PIPE
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # nobody waits at it, or there is none
        return False
    try:
        # The pipe goes first: who looks in between sees a container that has started, as it is about to.
        pipe.unlink()
        with contextlib.suppress(BrokenPipeError):  # it has just ended, which is told as every end is
            os.write(descriptor, b"1")
    finally:
        os.close(descriptor)
    return True


def has_gone(place: Path) -> bool:
    """Whether the container whose directory is `place` was started, whatever containerd thinks."""
    return (place / _RECORD).exists() and not (place / _PIPE).exists()


def compiled_filter(place: Path) -> bytes:
    """The filter of system calls that crun compiled for the container whose directory is `place`. Raises OSError."""
    return (place / _FILTER).read_bytes()
