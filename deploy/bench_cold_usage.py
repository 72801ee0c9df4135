"""What the processes of a bench's engine take: memory and CPU, by name."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bench_cold_engine import note

ROLES = frozenset({"ingress", "autoscaler", "registry", "nodeagent"})


@dataclass
class Taken:
    """What processes take, by name: memory in MiB (`pss`: pages that several share are counted once), CPU in cores."""

    rss_mb: dict[str, float] = field(default_factory=dict)
    pss_mb: dict[str, float] = field(default_factory=dict)
    cores_by_name: dict[str, float] = field(default_factory=dict)

    @property
    def cores(self) -> float:
        return sum(self.cores_by_name.values())


def measure_idle(home: Path, idle_s: float) -> Taken:
    """What everything of the engine at `home` takes over `idle_s` seconds in which nobody calls."""
    time.sleep(3)
    pids, taken = processes(home), Taken()
    before, began = {pid: _cpu_s(pid) for pid in pids}, time.monotonic()
    time.sleep(idle_s)
    spent_s = time.monotonic() - began
    for pid, name in pids.items():
        taken.cores_by_name[name] = taken.cores_by_name.get(name, 0) + max(0.0, _cpu_s(pid) - before[pid]) / spent_s
        with contextlib.suppress(OSError, ValueError):
            sizes = _sizes(pid)
            taken.rss_mb[name] = taken.rss_mb.get(name, 0) + sizes["Rss"] / 2**20
            taken.pss_mb[name] = taken.pss_mb.get(name, 0) + sizes["Pss"] / 2**20
    for name in sorted(taken.pss_mb, key=taken.pss_mb.__getitem__, reverse=True):
        count = sum(other == name for other in pids.values())
        size = f"RSS {taken.rss_mb[name]:7.1f} MiB  PSS {taken.pss_mb[name]:7.1f} MiB"
        note(f"idle: {name:16} {count:4} processes  {size}  {taken.cores_by_name[name]:7.4f} cores")
    return taken


@contextlib.contextmanager
def metered(home: Path, spent: dict[str, float]) -> Iterator[None]:
    """Adds to `spent`, by name, the CPU seconds that the processes of the engine at `home` use while the context lasts.

    What lives too short to be looked at (crun) is in none: it is its shim's child, as is the instance, whose whole life's CPU would be
    the shim's at its end.
    """
    before = {pid: _cpu_s(pid) for pid in processes(home)}
    yield
    for pid, name in processes(home).items():
        spent[name] = spent.get(name, 0.0) + _cpu_s(pid) - before.get(pid, 0.0)


def own_bytes(home: Path) -> dict[str, int]:
    """Role → memory that only its process holds."""
    found: dict[str, int] = {}
    for pid, name in processes(home).items():
        with contextlib.suppress(OSError):
            if name in ROLES:
                sizes = _sizes(pid)
                found[name] = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return found


def processes(home: Path) -> dict[int, str]:
    """Pid → name (of Python's: the module) of all that names `home`, and their descendants, shims' included."""
    parents, names, own = dict[int, int](), dict[int, str](), set[int]()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            stat = (entry / "stat").read_text()
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
            names[pid] = words[words.index("-m") + 1] if "-m" in words[:-1] else stat[stat.index("(") + 1 : stat.rindex(")")]
            if any(str(home) in word for word in words) and pid != os.getpid():
                own.add(pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in own and pid not in own}
        own |= more
        grown = bool(more)
    return {pid: names[pid] for pid in own}


def _sizes(pid: int) -> dict[str, int]:
    """The kernel's words on a process's memory, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


def _cpu_s(pid: int) -> float:
    """CPU seconds that a process has used; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
