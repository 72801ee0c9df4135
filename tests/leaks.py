"""What an engine has on this machine, to be compared before and after: nothing may be left of what came and went.

    before = await at_rest(lambda: snapshot_machine("ebb", containerd=socket, store=store, pids={"agent": pid}, marks=[str(root)]))
    … cycles …
    await settled(before, lambda: snapshot_machine(…))      # fails with the differences when they stay

Things that change their names by themselves (veths of the ready pool, descriptors) are compared by number, all others by name.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent import cgroups
from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.pb import containers_pb2, leases_pb2, snapshots_pb2, tasks_pb2
from store.backend import Store

FD_SLACK = 4
"""Descriptors that a process may have more or less from one moment to the next (timers, connections that come and go)."""


@dataclass(frozen=True)
class Snapshot:
    """`named`: category → names. `counted`: category → how many."""

    named: Mapping[str, frozenset[str]]
    counted: Mapping[str, int]


async def snapshot_machine(
    id: str,
    *,
    containerd: str = "",
    store: Store | None = None,
    pids: Mapping[str, int] | None = None,
    marks: Sequence[str] = (),
) -> Snapshot:
    """Everything of the engine called `id`. `containerd`: its socket; `store`: its etcd; `pids`: processes whose descriptors count;
    `marks`: words that mark a process's command line or a mount as the engine's (its directories, say)."""
    marks = [*marks, *([containerd] if containerd else [])]
    links = _lines("ip", "-o", "link", "show")
    named = {
        "processes": frozenset(_processes(marks)),
        "mounts": frozenset(_mounts(marks, pids or {})),
        "named netns": frozenset(_listed(Path("/run/netns"))),
        "nft tables": frozenset(line for line in _lines("nft", "list", "tables") if line.split()[-1:] == [f"ebb_{id}"]),
        "cgroups": frozenset(_cgroups(f"/ebb-{id}")),
    }
    counted = {
        "shims": sum("containerd-shim" in name for name in named["processes"]),
        "veths": sum(f": {id}-" in line for line in links),
        "routes": sum(f"dev {id}-" in line for line in _lines("ip", "-4", "route", "show", "table", "all")),
        "netns": len(set(_namespaces(f"/ebb-{id}/"))),
    }
    for label, pid in (pids or {}).items():
        counted[f"descriptors of {label}"] = len(_listed(Path(f"/proc/{pid}/fd")))
    if containerd:
        named |= await _containerd(containerd)
    if store is not None:
        named["etcd keys"] = frozenset(entry.key for entry in (await store.list("/ebb/")).entries)
    return Snapshot(named, counted)


def compare(before: Snapshot, after: Snapshot, fd_slack: int = FD_SLACK) -> list[str]:
    """What there is more or less of, a line each; empty when nothing is."""
    found = []
    for category in sorted(before.named.keys() | after.named.keys()):
        was, now = before.named.get(category, frozenset()), after.named.get(category, frozenset())
        found += [f"{category}: left behind: {name}" for name in sorted(now - was)]
        found += [f"{category}: gone: {name}" for name in sorted(was - now)]
    for category in sorted(before.counted.keys() & after.counted.keys()):
        more = after.counted[category] - before.counted[category]
        slack = fd_slack if category.startswith("descriptors") else 0
        if abs(more) > slack:
            found.append(f"{category}: {before.counted[category]} before, {after.counted[category]} after")
    return found


async def at_rest(look: Callable[[], Awaitable[Snapshot]], for_s: float = 1.0, timeout_s: float = 30) -> Snapshot:
    """What there is when nothing has changed for `for_s`, descriptors included: connections kept for reuse have ended."""
    until = time.monotonic() + timeout_s
    seen, since = await look(), time.monotonic()
    while time.monotonic() - since < for_s:
        await asyncio.sleep(0.1)
        now = await look()
        if differences := compare(seen, now, fd_slack=0):
            assert time.monotonic() < until, f"no rest within {timeout_s} s:\n" + "\n".join(differences)
            seen, since = now, time.monotonic()
    return seen


async def settled(before: Snapshot, again: Callable[[], Awaitable[Snapshot]], timeout_s: float = 30) -> None:
    """Wait until nothing differs. Fails with what still does."""
    until = time.monotonic() + timeout_s
    while differences := compare(before, await again()):
        assert time.monotonic() < until, f"after {timeout_s} s:\n" + "\n".join(differences)
        await asyncio.sleep(0.1)


async def _containerd(socket: str) -> dict[str, frozenset[str]]:
    engine = Containerd(socket)
    try:
        containers = await engine.containers.List(containers_pb2.ListContainersRequest())
        tasks = await engine.tasks.List(tasks_pb2.ListTasksRequest())
        leases = await engine.leases.List(leases_pb2.ListRequest())
        snapshots: set[str] = set()
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER)
        async for answer in engine.snapshots.stream("List", request):
            snapshots |= {info.name for info in answer.info}
    finally:
        await engine.close()
    return {
        "containers": frozenset(container.id for container in containers.containers),
        "tasks": frozenset(task.container_id or task.id for task in tasks.tasks),
        "gc_leases": frozenset(lease.id for lease in leases.leases),
        "snapshots": frozenset(snapshots),
    }


def _lines(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _processes(marks: Sequence[str]) -> Iterable[str]:
    """`pid argv`, of those with a mark in their arguments; zombies of them are shown by their parent's mark alone."""
    for pid in _all_pids():
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if any(mark in argv for mark in marks):
            yield f"{pid} {argv[:200]}"


def _mounts(marks: Sequence[str], pids: Mapping[str, int]) -> Iterable[str]:
    """Mount points with a mark, as seen from here and from the mount namespaces of `pids` (containerd may have its own)."""
    for label, pid in (("here", os.getpid()), *pids.items()):
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if any(mark in line for mark in marks):
                yield f"{label}: {line.split()[4]}"


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _namespaces(parent: str) -> Iterable[str]:
    """Network namespaces of the processes in cgroups below `parent`."""
    for pid in _all_pids():
        try:
            if parent in Path(f"/proc/{pid}/cgroup").read_text():
                yield os.readlink(f"/proc/{pid}/ns/net")
        except OSError:
            continue


def _cgroups(parent: str) -> Iterable[str]:
    top = cgroups.ROOT
    tops = [top, *(entry for entry in top.iterdir() if entry.is_dir())]
    for each in tops:
        for current, _, _ in os.walk(each / parent.lstrip("/")):
            yield str(Path(current).relative_to(top))
