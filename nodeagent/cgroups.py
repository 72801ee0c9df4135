"""What instances use, read from their cgroups; v1, v2 and the mixture of both. The text of the kernel's files is parsed by pure functions.

`<parent>/p-<project>/<instance>` is where an instance is (`Places`): so projects share the processors by their weights, however many
instances each has. Only cgroups below the engine's own parent are ever removed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


WEIGHT = 1024
"""Of a process of the machine's own, and of a project of weight 1 among projects, in the terms of cgroup v1."""

_IO_WEIGHTS = {False: {"blkio.bfq.weight": 1_000, "blkio.weight": 1_000}, True: {"io.weight": 10_000, "io.bfq.weight": 1_000}}
"""Whether it is v2 → files that a kernel may have, and the most that each takes; 100 is one."""


class Places:
    """Where instances are. One that is not known is nowhere: its path leads to no cgroup."""

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self._projects: dict[str, str] = {}

    def put(self, instance: str, project: str) -> None:
        self._projects[instance] = project

    def drop(self, instance: str) -> str:
        """It is gone. The path of its project's cgroup when it was the last one in there, else empty."""
        project = self._projects.pop(instance, None)
        return self.of_project(project) if project is not None and project not in self._projects.values() else ""

    def of(self, instance: str) -> str:
        return f"{self.of_project(self._projects.get(instance, ''))}/{instance}"

    def forsaken(self, names: Iterable[str]) -> list[str]:
        """The paths of those cgroups among `names`, children of the parent, that are of projects with nobody here."""
        here = {self.of_project(project) for project in self._projects.values()}
        return [path for name in names if name.startswith("p-") and (path := f"{self.parent}/{name}") not in here]

    def of_project(self, project: str) -> str:
        return f"{self.parent}/p-{project}"


class Mode(StrEnum):
    """How the machine arranges its controllers. HYBRID: v1 controllers with a v2 tree beside them (`unified`)."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one instance uses. `memory_bytes` is what cannot be reclaimed at once (without inactive file cache)."""

    memory_bytes: int
    cpu_s: float
    oom_kills: int
    """Processes killed for memory since it began."""


def detect(root: Path = ROOT) -> Mode:
    """Which arrangement is mounted at `root`."""
    if (root / "cgroup.controllers").exists():
        return Mode.V2
    return Mode.HYBRID if (root / "unified" / "cgroup.procs").exists() else Mode.V1


def swap_limit(mode: Mode, root: Path = ROOT) -> bool:
    """Whether swap can be limited on this machine."""
    if mode is Mode.V2:
        return any(path.exists() for path in (root / "init.scope/memory.swap.max", root / "system.slice/memory.swap.max"))
    return (root / "memory/memory.memsw.limit_in_bytes").exists()


def usage(mode: Mode, path: str, root: Path = ROOT) -> Usage | None:
    """What the cgroup `path` (`/ebb-x/<instance>`) uses; None when it is gone."""
    inner = path.lstrip("/")
    try:
        if mode is Mode.V2:
            at = root / inner
            return Usage(
                memory_bytes=working_set(int(_read(at / "memory.current")), _read(at / "memory.stat"), "inactive_file"),
                cpu_s=cpu_s(mode, path, root),
                oom_kills=field(_read(at / "memory.events"), "oom_kill"),
            )
        memory = root / "memory" / inner
        return Usage(
            memory_bytes=working_set(
                int(_read(memory / "memory.usage_in_bytes")), _read(memory / "memory.stat"), "total_inactive_file"
            ),
            cpu_s=cpu_s(mode, path, root),
            oom_kills=field(_read(memory / "memory.oom_control"), "oom_kill"),
        )
    except (OSError, ValueError):
        return None


def cpu_s(mode: Mode, path: str, root: Path = ROOT) -> float:
    """Seconds of processors that the cgroup `path` has used. Raises OSError, ValueError."""
    inner = path.lstrip("/")
    if mode is Mode.V2:
        return field(_read(root / inner / "cpu.stat"), "usage_usec") / 1e6
    return int(_read(root / "cpuacct" / inner / "cpuacct.usage")) / 1e9


def threads(mode: Mode, path: str, root: Path = ROOT) -> list[int]:
    """Ids of the threads in the cgroup `path`. Raises OSError, ValueError."""
    inner = path.lstrip("/")
    file = root / inner / "cgroup.threads" if mode is Mode.V2 else root / "cpu" / inner / "tasks"
    return [int(line) for line in _read(file).split()]


def field(text: str, name: str) -> int:
    """The number after `name` in `name number` lines; 0 when there is none."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name:
            return int(words[1])
    return 0


def working_set(current: int, stat: str, inactive: str) -> int:
    """Memory in use without file cache that nobody touched lately."""
    return max(0, current - field(stat, inactive))


def weigh(mode: Mode, path: str, weight: int, root: Path = ROOT) -> None:
    """Give the cgroup `path`, made if it is not there, its part of the processors among its neighbours: 1024 is one. Raises OSError."""
    at = controlled(mode, path, "cpu", root)
    if mode is not Mode.V2:
        (at / "cpu.shares").write_text(str(min(262_144, max(2, weight))))
        return
    if (at / "cpu.weight").exists():
        (at / "cpu.weight").write_text(str(min(10_000, max(1, weight * 100 // WEIGHT))))


def weigh_io(mode: Mode, path: str, weight: int, root: Path = ROOT) -> None:
    """The same of the disks, where the kernel divides them: under BFQ, or by v2's io.cost. Raises OSError."""
    if mode is not Mode.V2 and not (root / "blkio").is_dir():
        return
    at = controlled(mode, path, "io" if mode is Mode.V2 else "blkio", root)
    for name, most in _IO_WEIGHTS[mode is Mode.V2].items():
        if (at / name).exists():
            (at / name).write_text(str(min(most, max(10, weight * 100 // WEIGHT))))


def controlled(mode: Mode, path: str, controller: str, root: Path = ROOT) -> Path:
    """Where the files of `controller` are for the cgroup `path`, which is made if it is not there. Raises OSError."""
    inner = path.lstrip("/")
    at = root / inner if mode is Mode.V2 else root / controller / inner
    at.mkdir(parents=True, exist_ok=True)
    if mode is Mode.V2:
        for above in reversed(at.relative_to(root).parents):
            _write_if_can(root / above / "cgroup.subtree_control", f"+{controller}")
    return at


def children(mode: Mode, parent: str, root: Path = ROOT) -> list[str]:
    """Names of the cgroups below `parent`, in any hierarchy."""
    found: set[str] = set()
    for directory in _directories(mode, parent, root):
        found.update(entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
    return sorted(found)


def remove(mode: Mode, path: str, root: Path = ROOT) -> bool:
    """Remove the cgroup `path` and what is below it in every hierarchy, as far as no process is in it. True: nothing is left."""
    clean = True
    for directory in _directories(mode, path, root):
        for current, _, _ in os.walk(directory, topdown=False):
            try:
                os.rmdir(current)
            except FileNotFoundError:
                continue
            except OSError:
                clean = False
    return clean


def stir(root: Path = ROOT) -> None:
    """Say ahead that a process will be moved to another cgroup soon. Blocks for some 10 ms.

    The first move after a while waits until every processor has passed through the kernel's scheduler; moves in the next 10 ms or so do
    not. This one moves nobody: from a cgroup to the same."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        at = root / controllers.removeprefix("name=") / path.lstrip("/") / "cgroup.procs"
        if at.exists():
            _write_if_can(at, str(os.getpid()))
            return


def _directories(mode: Mode, path: str, root: Path) -> list[Path]:
    inner = path.strip("/")
    if not inner or ".." in inner.split("/"):
        raise ValueError(f"cgroup {path!r}: want a path below the root, such as /ebb-x")
    # v1: every mounted hierarchy, for runtimes make the cgroup in all of them, systemd's included.
    tops = [root] if mode is Mode.V2 else [Path(entry) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    return [top / inner for top in tops if (top / inner).is_dir()]


def _write_if_can(path: Path, text: str) -> None:
    """Controllers that are not there to be given (a container's cgroup namespace) leave everybody equal."""
    try:
        path.write_text(text)
    except OSError:
        pass


def _read(path: Path) -> str:
    return path.read_text()
