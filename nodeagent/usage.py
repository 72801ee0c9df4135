"""What the instances on this node use, for people, for `ebb top`, and for scaling by it."""

from collections.abc import Iterable
from pathlib import Path

from nodeagent import cgroups
from nodeagent.cgroups import Mode, Places, Usage
from store.model import Revision


def of_instances(mode: Mode, places: Places, instances: Iterable[str], root: Path = cgroups.ROOT) -> dict[str, Usage]:
    """By instance; those without a cgroup are left out."""
    found = {}
    for instance in instances:
        used = cgroups.usage(mode, places.of(instance), root)
        if used is not None:
            found[instance] = used
    return found


def asked_for(revision: Revision) -> bool:
    """Whether the autoscaler wants to know what instances of `revision` use."""
    return revision.scale.metric in ("cpu", "memory") or revision.scale.policy in ("learned", "frugal")


class Meter:
    """Mean CPU between one reading and the next."""

    def __init__(self, mode: Mode, places: Places, root: Path = cgroups.ROOT) -> None:
        self._mode, self._places, self._root = mode, places, root
        self._last: dict[str, tuple[float, float]] = {}

    def read(self, instances: Iterable[str], now: float) -> dict[str, tuple[float, int]]:
        """(cpu_m, memory_bytes) by instance; those read for the first time are left out. `now`: monotonic seconds. Blocks on files."""
        found, last = {}, {}
        for name, used in of_instances(self._mode, self._places, instances, self._root).items():
            before = self._last.get(name)
            last[name] = (now, used.cpu_s)
            if before is not None and now > before[0]:
                found[name] = (round(max(0.0, used.cpu_s - before[1]) * 1000 / (now - before[0]), 1), used.memory_bytes)
        self._last = last
        return found
