"""The agent put together: what it is made of, in which order it begins, and how it ends."""

import asyncio
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nodeagent import cgroups, notices, pressure, runtime, sandbox, shims, turns, usage, volumes
from nodeagent.blueprint import Blueprints
from nodeagent.containerd.client import Containerd
from nodeagent.containerd.errors import ContainerdError
from nodeagent.engine import Engine
from nodeagent.executor import Hands
from nodeagent.fences import Fences, Ids
from nodeagent.freezer import Freezer
from nodeagent.gate import Gate
from nodeagent.groups import Groups
from nodeagent.images.facade import ImageStore
from nodeagent.images.registry import Registry
from nodeagent.inputs import Inputs
from nodeagent.joining import Joining
from nodeagent.logs import Logs
from nodeagent.loop import Loop
from nodeagent.observed import Observed
from nodeagent.prober import Prober
from nodeagent.reporter import Reporter
from nodeagent.surroundings import Ground, Surroundings
from nodeagent.tasks import Found, Tasks
from nodeagent.volumes import Volumes
from process import logs as process_logs
from process.admin import Check
from process.clock import SystemClock
from process.run import Jobs
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.errors import Unavailable
from store.lease import Presence
from store.messages import PullProgress, UsageReport
from store.model import GVISOR, Node, encode
from store.scaling import Taint
from store.seal import Keyring
from store.story import Story

CONTAINERD_S = 60.0
END_ALL_S = 60.0
SHIM_LOOKS_S = (1.0, 4.0, 10.0)
"""When, after the start, shims are looked at that an earlier agent left empty."""
NODE_EVERY_S = 5.0
TIDY_EVERY_S = 60.0
USAGE_EVERY_S = 5.0
LIMITS_EVERY_S = 5.0
LOOKED_AT = 20
"""Instances whose limits are looked at in one turn of a thread: some milliseconds."""
LOGS_KEPT = 1000
SPARE_BYTES = 256 * 2**20
"""With less room on the disk nothing new is placed here."""

_log = process_logs.get("nodeagent")


def labels_of(node: str, zone: str) -> dict[str, str]:
    """The labels that every node has, by Kubernetes' names."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    found = {"kubernetes.io/hostname": node, "kubernetes.io/arch": arch, "kubernetes.io/os": "linux"}
    return found | ({"topology.kubernetes.io/zone": zone} if zone else {})


def _look(mode: cgroups.Mode, asked: Sequence[tuple[str, int, int, int]]) -> list[notices.Met]:
    return [notices.look(mode, path, pid, dropped, connections) for path, pid, dropped, connections in asked]


class Agent:
    """One node's agent. `start`, then `stop`."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        jobs: Jobs,
        *,
        node: str,
        containerd: str,
        root: Path,
        ground: Ground | None = None,
        runtime: str = "auto",
        registry: Registry | None = None,
        lease_ttl_s: float = 5,
        creates: int = 3,
        shim_bound: int = 10,
        log_keep_s: float = 3600,
        image_keep_s: float = 7 * 24 * 3600,
        zone: str = "",
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Taint] = (),
        secret_keys: Path | None = None,
        parked_most: int = 0,
        pressure_file: Path = Path("/proc/pressure/memory"),
        ids: Ids = Ids(),  # noqa: B008
        project_processors: int = 0,
    ) -> None:
        self.clock, ground = SystemClock(), ground or Ground()
        self.places, self.root = cgroups.Places(f"/ebb-{ground.prefix}"), root
        self._store, self._bus, self._jobs = store, bus, jobs
        self._node, self._zone, self._runtime = node, zone, runtime
        self._labels, self._taints = labels_of(node, zone) | dict(labels or {}), list(taints)
        self._log_keep_s, self._image_keep_s = log_keep_s, image_keep_s
        instances, files = root / "instances", volumes.place_of(Path(containerd), ground.prefix)
        instances.mkdir(parents=True, exist_ok=True)
        self._containerd = Containerd(containerd)
        self.inputs = Inputs(store, Keyring(secret_keys) if secret_keys is not None else None)
        self.images = ImageStore(
            self._containerd, node=node, spool=root / "spool", registry=registry, on_progress=self._progress,
            credentials=self.inputs.credentials, in_use=self.images_in_use, quota=self.image_bytes,
        )  # fmt: skip
        self.around = Surroundings(store, bus, jobs, self.clock, node, root, ground)
        self.pool, self.logs = self.around.pool, Logs(instances)
        self.presence, story = Presence(store, lease_ttl_s), Story(bus, "nodeagent", self.clock)
        self.presence.on_regrant = self._say_all
        self.reporter = Reporter(node, bus, self.presence, story, self.clock, jobs, instances)
        self._hands = Hands(
            store=store,
            images=self.images,
            pool=self.pool,
            tasks=Tasks(self._containerd, ""),
            logs=self.logs,
            prober=Prober(self.clock, jobs),
            blueprints=Blueprints(instances, self.places),
            clock=self.clock,
            root=instances,
            inputs=self.inputs,
            volumes=Volumes(files, self.inputs.files, self.inputs.known, jobs),
            freezer=Freezer(cgroups.detect(), self.places),
            residents=self.around.residents,
            fences=Fences(self.around.project, root, ids, self.places, project_processors),
            joining=Joining(root, instances, files),
            groups=Groups(shim_bound, width=creates),
            gate=Gate(creates, weight=self.around.weight),
        )
        self.loop = Loop(node, self._hands, self.reporter, story, jobs)
        self.inputs.stale, self.around.apply = self.loop.stale, self.loop.executor.permit
        self.inputs.changed = self._hands.volumes.hear
        self._engine = Engine(self._containerd, self._hands, self.loop, self.reporter, self.places)
        self._parked_most, self._pressure_file = parked_most, pressure_file
        self._pressed, self._address, self._started = "", "", False

    def checks(self) -> dict[str, Check]:
        """For /readyz."""
        return {
            "start": lambda: None if self._started else "adopting what is here",
            "containerd": self._engine.problem,
            "assignments": self.loop.assignments.problem,
            "lease": self.presence.problem,
        }

    def images_in_use(self) -> set[str]:
        """References by digest that instances here stand on."""
        return {have.revision.image for have in self.loop.observed.values() if have.revision is not None}

    def image_bytes(self, project: str) -> int:
        """The most that it may hold here; 0: no limit."""
        return self.around.project(project).quota.image_bytes

    async def start(self, address: str) -> None:
        """Adopt what is here and begin to act. Raises what makes that impossible."""
        self._address = address
        await self._containerd.ready(CONTAINERD_S)
        await runtime.clear(self._containerd)
        chosen = await runtime.choose(self._containerd, self._runtime, self.places.parent)
        self._hands.tasks.use(chosen.path)
        self._hands.tasks.direct = chosen.direct
        self._hands.blueprints.host = replace(self._hands.blueprints.host, filter=chosen.filter)
        self._hands.tasks.hidden = self._hands.volumes.hidden
        await asyncio.to_thread(self._hands.fences.start)
        self._hands.tasks.shim = self._hands.joining.program() or self._hands.tasks.shim
        self.logs.start()
        await self.around.start()
        await self.images.load()
        await self.presence.start()
        self._jobs.start(self.loop.assignments.run(), "assignments", fatal=True)
        self._jobs.start(self.loop.ingresses.run(), "ingresses", fatal=True)
        await asyncio.to_thread(self._hands.volumes.start)
        for table in self.inputs.tables:
            self._jobs.start(table.run(), "secrets and configs", fatal=True)
            await table.synced()
        await self.loop.assignments.synced()
        await self.loop.ingresses.synced()
        adopted, found = await self._adopt()
        await self._bus.handle(messages.drained(self._node), self.loop.drained)
        self._jobs.start(self._engine.hear(), "containerd's events", fatal=True)
        self._hands.volumes.keep(adopted)
        self.loop.begin(adopted)
        self.inputs.check()
        self._jobs.start(self._hands.volumes.follow(), "files of instances")
        self._engine.settle(adopted, found)
        self._say_all()
        for name in adopted:
            self.reporter.store_again(name)
        await self.pool.sweep()
        await self._hands.fences.sweep()
        for project in self.loop.executor.projects():
            await self.loop.executor.permit(project)
        self._jobs.start(self._engine.compare_for_ever(), "compare", fatal=True)
        self._jobs.start(self._find_sandbox(), "find gVisor")
        self._jobs.start(self._end_empty_shims(), "empty shims")
        self._jobs.start(self._tend(), "tend", fatal=True)
        self._jobs.start(self._tidy(), "tidy", fatal=True)
        self._jobs.start(self._tell_usage(), "usage", fatal=True)
        self._jobs.start(self._give_turns(), "turns", fatal=True)
        self._jobs.start(self._tell_limits(), "limits", fatal=True)
        self._started = True

    async def _adopt(self) -> tuple[dict[str, Observed], dict[str, Found]]:
        while True:
            try:
                return await self._engine.adopt(self._node)
            except (Unavailable, ContainerdError) as error:
                _log.warning("cannot see what is here yet", error=str(error))
                await asyncio.sleep(0.2)

    async def stop(self, *, everything: bool) -> None:
        """End. `everything`: stop all instances and leave nothing on the machine; else they run on without us."""
        if everything:
            await self.loop.end_all(END_ALL_S)
        if everything and self._started:
            # A trial cut off in its create would leave what containerd made after that.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hands.sandbox_tried.wait(), 2 * runtime.TRIAL_S)
        self.loop.close()
        await self.around.stop()
        await self.pool.stop(frozenset() if everything else self.loop.executor.networks_in_use())
        await self.logs.stop()
        await self.presence.stop(revoke=everything)
        await self._jobs.cancel()
        if everything:
            await asyncio.to_thread(self._hands.volumes.stop)
            await asyncio.to_thread(cgroups.remove, cgroups.detect(), self.places.parent)
        await self.images.close()
        await self._containerd.close()

    # -- in the background -----------------------------------------------------------------------------------------------------

    def _say_all(self) -> None:
        for status in self.reporter.all():
            self.reporter.say_again(status.instance)

    def _progress(self, progress: PullProgress) -> None:
        self._bus.publish(messages.image_progress(self._node), encode(progress))

    async def _find_sandbox(self) -> None:
        """Beside everything else: trying it takes half a second, and few need it."""
        try:
            found = await sandbox.find(self._containerd, self.root, self.places.parent)
            if found:
                self._hands.tasks.use(found, GVISOR)
        finally:
            self._hands.sandbox_tried.set()
        if found:
            await self.presence.put(keys.node(self._node), encode(self._describe()))

    async def _end_empty_shims(self) -> None:
        """A few times: what stopped while nobody looked is told of first, and hides them until then."""
        for pause_s in SHIM_LOOKS_S:
            await asyncio.sleep(pause_s)
            try:
                found = await self._hands.tasks.list()
            except ContainerdError:
                continue
            if ended := await asyncio.to_thread(shims.end_empty, self._containerd.socket, found.values()):
                _log.info("empty shims ended", count=ended)

    async def _tend(self) -> None:
        """The node's own key, what NATS may have lost, the gauges."""
        beat = 0
        while True:
            before, self._pressed = self._pressed, self._pressure()
            if beat % int(NODE_EVERY_S) == 0 or bool(before) != bool(self._pressed):
                await self.presence.put(keys.node(self._node), encode(self._describe()))
            self.loop.say_leaving_again()
            self.reporter.count()
            beat += 1
            await asyncio.sleep(1.0)

    def _pressure(self) -> str:
        """Why this machine has too little memory, or empty; also where the kernel does not tell."""
        try:
            psi = self._pressure_file.read_text()
        except OSError:
            psi = ""
        return pressure.pressed(psi, Path("/proc/meminfo").read_text(), self._pressed)

    def _describe(self) -> Node:
        room = os.statvfs(self.root)
        free = room.f_bavail * room.f_frsize
        return Node(
            node=self._node,
            cpu_m=(os.cpu_count() or 1) * 1000,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            disk_bytes=max(0, room.f_blocks * room.f_frsize - SPARE_BYTES),
            labels=self._labels,
            taints=self._taints,
            zone=self._zone,
            address=self._address,
            images=self.images.unpacked_digests,
            pressed=self._pressed,
            parked_most=self._parked_most,
            runtimes=self._hands.tasks.runtimes,
            unschedulable=f"disk full: {free // 2**20} MiB left under {self.root}" if free < SPARE_BYTES else "",
        )

    async def _tell_usage(self) -> None:
        """One message a round for all instances whose revisions scale by what they use; none while there are none."""
        meter = usage.Meter(cgroups.detect(), self.places)
        while True:
            await asyncio.sleep(USAGE_EVERY_S)
            observed = list(self.loop.observed.items())
            asked = [name for name, have in observed if have.ready and have.revision and usage.asked_for(have.revision)]
            if asked:
                used = await asyncio.to_thread(meter.read, asked, self.clock.now())
                report = UsageReport(node=self._node, at=self.clock.wall(), used=used)
                self._bus.publish(messages.usage(self._node), encode(report))

    async def _give_turns(self) -> None:
        """Short turns at the processors for those that use little; nothing while nobody runs."""
        decided, mode = turns.Turns(), cgroups.detect()
        while True:
            await asyncio.sleep(turns.EVERY_S)
            if running := [name for name, have in list(self.loop.observed.items()) if have.ready]:
                await asyncio.to_thread(turns.give, decided, mode, self.places, running, self.clock.now())

    async def _tell_limits(self) -> None:
        """Which limits instances have met."""
        mode, tasks = cgroups.detect(), self._hands.tasks
        while True:
            await asyncio.sleep(LIMITS_EVERY_S)
            found = [
                (name, have.address, have.revision, pid)
                for name, have in self.loop.observed.items()
                if have.ready and not have.frozen and have.revision is not None and (pid := tasks.pid(name))
            ]
            most, crowded = self.pool.connections_most, await self.pool.crowded() if found else frozenset()
            for first in range(0, len(found), LOOKED_AT):
                some = found[first : first + LOOKED_AT]
                asked = [(self.places.of(n), pid, self.logs.dropped_bytes(n), most * (at in crowded)) for n, at, _, pid in some]
                met = await asyncio.to_thread(_look, mode, asked)
                for (name, _, revision, _), what in zip(some, met, strict=True):
                    self.reporter.notice(name, notices.words(what, revision.pids_limit, revision.memory_limit_bytes))

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            wall = self.clock.wall()
            await self._hands.fences.sweep()
            await self.logs.prune(set(self.loop.observed), wall - self._log_keep_s, LOGS_KEPT)
            try:
                await self.images.collect(self.images_in_use(), self._image_keep_s, wall)
            except ContainerdError as error:
                _log.warning("images not collected", error=str(error))
