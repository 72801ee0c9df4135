"""What all instances of this machine may take together, and one project's, so that the engine beside them lives.

Each instance has limits of its own, but many of them add up: thirty fork bombs have all pids of a machine, and instances that name no
limit of memory have all of it. `bounds` is pure, `impose` writes to cgroups.
"""

from dataclasses import dataclass
from pathlib import Path

from nodeagent import cgroups
from nodeagent.cgroups import ROOT, Mode

RESERVED_BYTES = 512 << 20
"""Memory that instances leave to the engine and the machine, or a tenth of all if that is more; never more than half."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of all instances together: bytes of memory, processes and threads. Of one project: processes and threads."""

    memory_bytes: int
    pids: int
    project_pids: int


def bounds(total_bytes: int, most_pids: int) -> Bounds:
    """For a machine with so much memory and so many pids. A project gets at most half of what all have: others can still fork."""
    reserved = min(max(RESERVED_BYTES, total_bytes // 10), total_bytes // 2)
    pids = most_pids * 3 // 4
    return Bounds(total_bytes - reserved, pids, pids // 2)


def most_pids(proc: Path = Path("/proc")) -> int:
    """How many processes and threads this machine can have. Raises OSError, ValueError."""
    return min(int((proc / "sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max"))


def impose_all(mode: Mode, path: str, found: Bounds, root: Path = ROOT) -> None:
    """Bound the cgroup of all instances. Raises OSError."""
    memory = cgroups.controlled(mode, path, "memory", root)
    name = "memory.max" if mode is Mode.V2 else "memory.limit_in_bytes"
    _write(memory / name, found.memory_bytes)
    _write(cgroups.controlled(mode, path, "pids", root) / "pids.max", found.pids)


def impose_one(mode: Mode, path: str, found: Bounds, root: Path = ROOT) -> None:
    """Bound the cgroup of one project. Raises OSError."""
    _write(cgroups.controlled(mode, path, "pids", root) / "pids.max", found.project_pids)


def _write(path: Path, value: int) -> None:
    # A controller that a container was not given has no such file: there, the container's own limit holds.
    if path.exists():
        path.write_text(str(value))
