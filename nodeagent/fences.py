"""The fences of this node's instances: who has which ids, and the roots that are laid for them.

fence = await fences.enter(instance, revision)            # before its spec is built
async with fences.lay(instance, mount) as mounts: …       # while its task is created
fences.leave(instance)                                    # it is gone
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nodeagent import bounds, cgroups, processors, profiles, rootfs, uids
from nodeagent.cgroups import WEIGHT, Places
from nodeagent.profiles import HARDENED, IDS, Fence, Writable
from nodeagent.rootfs import Mount
from nodeagent.userns import UserNamespaces, make
from process import logs
from store.model import Revision
from store.projects import Project

_log = logs.get("fences")


@dataclass(frozen=True, slots=True)
class Ids:
    """Whether instances get ids of their project's own, and from which. Raises ValueError for another word.

    auto: where the kernel can, else the machine's, and that is said; on: a kernel that cannot is an error; off: the machine's.
    """

    mode: str = "auto"
    first_id: int = uids.FIRST_ID
    ranges: int = uids.MOST

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "on", "off"):
            raise ValueError(f"--user-namespaces {self.mode!r}: want auto, on or off")
        if not (self.first_id >= IDS and self.ranges >= 1 and self.first_id + self.ranges * IDS < 1 << 32):
            raise ValueError(
                f"--first-id {self.first_id} with --id-ranges {self.ranges}: want ids from {IDS} up, and {IDS} a range below 2^32"
            )


class Fences:
    """`directory`: where the record of ids is kept, and disks. `projects`: their records. `project_processors`: how many of this machine's
    one project's instances run on, 0 for all. Start it before use."""

    def __init__(
        self, projects: Callable[[str], Project], directory: Path, ids: Ids, places: Places, project_processors: int = 0
    ) -> None:
        if project_processors < 0:
            raise ValueError(f"--project-processors {project_processors}: want a number of processors, or 0 for all")
        self._project_processors = project_processors
        self._projects, self._places, self._mode = projects, places, cgroups.detect()
        self._directory, self._must = directory, ids.mode == "on"
        self._namespaces = None if ids.mode == "off" else UserNamespaces(directory, ids.first_id, ids.ranges)
        self.detached = False
        """Whether the kernel makes roots of mounts that are attached nowhere: an image's layers, and what the instance writes."""
        self._members: dict[str, str] = {}
        """Instance → its project."""
        self._rooms: dict[str, tuple[Fence, Writable]] = {}
        self._lock = asyncio.Lock()
        self._bounds = bounds.bounds(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), bounds.most_pids())

    def start(self) -> None:
        """Read the record of ids, and try what this kernel can. Blocks for some milliseconds. Raises OSError, ValueError."""
        # All instances together weigh half of what one process of the machine's own does: the front door goes first.
        cgroups.weigh(self._mode, self._places.parent, WEIGHT // 2)
        cgroups.weigh_io(self._mode, self._places.parent, WEIGHT // 2)
        bounds.impose_all(self._mode, self._places.parent, self._bounds)
        if self._project_processors and (lacking := processors.problem(self._mode)):
            raise OSError(f"--project-processors {self._project_processors}: {lacking}; leave the flag out")
        why = rootfs.usable(self._directory, -1)
        self.detached = not why
        if self._namespaces is None:
            return
        if not why:
            self._namespaces.load()
            trial = make(uids.FIRST_ID)
            try:
                why = rootfs.usable(self._directory, trial)
            finally:
                os.close(trial)
        if why:
            said = (
                f"instances cannot have ids of their own here: {why}; it needs Linux 6.15 and a file system that maps ids (ext4, xfs,"
                f" btrfs) under {self._directory}"
            )
            if self._must:
                raise OSError(f"{said}; --user-namespaces=auto runs them with the machine's ids")
            _log.warning(said)
            self._namespaces = None

    def bound(self, revision: Revision) -> Revision:
        """`revision` as its project's policy wants it now: in gVisor, when that says so."""
        runtime = self._projects(revision.project).policy.runtime
        return msgspec.structs.replace(revision, runtime=runtime) if runtime and not revision.runtime else revision

    async def enter(self, instance: str, revision: Revision) -> Fence:
        """The fence of a new instance. Raises uids.Exhausted, OSError."""
        project = self._projects(revision.project)
        hardened = HARDENED in (revision.profile, project.policy.profile)
        self._members[instance] = revision.project
        self._places.put(instance, revision.project)
        async with self._lock:  # the last instance of the project may be about to take its cgroup along
            place = self._places.of_project(revision.project)
            await asyncio.to_thread(self._share, place, project.weight)
        first_id = 0
        if self._namespaces is not None and not revision.runtime:
            async with self._lock:
                busy = frozenset(self._members.values())
                first_id, _ = await asyncio.to_thread(self._namespaces.of, revision.project, busy)
        fence = Fence(first_id, hardened)
        self._rooms[instance] = fence, profiles.writable(revision)
        return fence

    def _share(self, place: str, weight: int) -> None:
        cgroups.weigh(self._mode, place, weight * WEIGHT)
        cgroups.weigh_io(self._mode, place, weight * WEIGHT)
        bounds.impose_one(self._mode, place, self._bounds)
        if self._project_processors:
            processors.confine(self._mode, place, self._project_processors)

    @contextlib.asynccontextmanager
    async def lay(self, instance: str, project: str, mount: Mount) -> AsyncIterator[Sequence[Mount]]:
        """What containerd is to mount as the instance's root, while inside. Raises OSError."""
        if not self.detached:
            rootfs.furnish(rootfs.upper_of(mount.options) or mount.source)
            yield [mount]
            return
        fence, limit = self._rooms.get(instance, (Fence(), Writable()))
        namespace = -1
        if fence.first_id and self._namespaces is not None:
            async with self._lock:
                _, namespace = await asyncio.to_thread(self._namespaces.of, project, frozenset(self._members.values()))
        laid = await asyncio.to_thread(rootfs.lay, mount, namespace, fence.first_id, limit, self._directory)
        try:
            yield [laid.mount]
        finally:
            await asyncio.to_thread(laid.close)

    def stdio(self, instance: str) -> int:
        """Who owns the pipes that it writes its output to: root inside."""
        return self._rooms[instance][0].first_id if instance in self._rooms else 0

    def adopt(self, instance: str, project: str) -> None:
        """It was found here by an agent that begins anew."""
        self._members[instance] = project

    async def leave(self, instance: str) -> None:
        """It is gone, and with the last one of its project the project's namespace and cgroup."""
        self._rooms.pop(instance, None)
        async with self._lock:
            if place := self._places.drop(instance):
                await asyncio.to_thread(cgroups.remove, self._mode, place)
        project = self._members.pop(instance, None)
        if self._namespaces is not None and project is not None and project not in self._members.values():
            self._namespaces.close(project)

    async def sweep(self) -> None:
        """Take away the cgroups of projects that have nobody here: left by an agent that was killed before it came to them."""
        async with self._lock:
            below = await asyncio.to_thread(cgroups.children, self._mode, self._places.parent)
            for place in self._places.forsaken(below):
                await asyncio.to_thread(cgroups.remove, self._mode, place)
