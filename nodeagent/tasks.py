"""Containers and tasks in containerd: the shell that the executor drives.

Everything made here is found again after a restart by its labels. A call that finds its work done already succeeds.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf import any_pb2, empty_pb2

from nodeagent import waiting
from nodeagent.containerd import errors
from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.layers import GC_ROOT, Layers
from nodeagent.pb import (
    containers_pb2,
    events_pb2,
    runc_options_pb2,
    snapshots_pb2,
    task_events_pb2,
    task_types_pb2,
    tasks_pb2,
    types_pb2,
)
from nodeagent.rootfs import Mount
from process import pids
from process.ids import short_id

RUNTIME = "io.containerd.runc.v2"
SPEC_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS_URL = "types.containerd.io/opencontainers/runtime-spec/1/Process"
OPTIONS_URL = "containerd.runc.v1.Options"
LABEL = "ebb.dev/"

CREATE_S = 30.0
START_S = 20.0
DELETE_S = 20.0

CREATED = task_types_pb2.CREATED
RUNNING = task_types_pb2.RUNNING
STOPPED = task_types_pb2.STOPPED
PAUSED = task_types_pb2.PAUSED


@dataclass(frozen=True, slots=True)
class Found:
    """A container of ours as containerd shows it. `status` None: no task. `bare`: not even a container, only a snapshot."""

    instance: str
    labels: Mapping[str, str]
    status: int | None = None
    pid: int = 0
    exit_code: int = 0
    bare: bool = False


@dataclass(frozen=True, slots=True)
class TaskExit:
    """A first process of a task ended."""

    instance: str
    code: int


@dataclass(frozen=True, slots=True)
class TaskOom:
    """The kernel killed something in the task for its memory limit."""

    instance: str


class Tasks:
    """Our containers and their tasks. `binary`: the OCI runtime."""

    def __init__(self, containerd: Containerd, binary: str) -> None:
        self._containerd = containerd
        self._options: dict[str, any_pb2.Any] = {}
        self.shim = RUNTIME
        """containerd's name for the shim, or the path of a program that stands in for it."""
        self.use(binary)
        self.hidden: Callable[[str], bytes | None] = lambda _: None
        """An instance's whole spec, where containerd does not know all of it."""
        self._mounts: dict[str, list[types_pb2.Mount]] = {}
        """Of instances whose task is not created yet."""
        self._layers = Layers(containerd)
        self._owners: set[str] = set()
        """Instances with a snapshot of their own."""
        self._processes: dict[str, pids.Pid | None] = {}
        """The first process of each task that is there."""
        self._sandboxed: set[str] = set()
        """Those of them that are no app's but a sandbox's."""
        self.direct = False
        """Whether `start` lets the waiting process go by itself (`waiting`), without containerd."""

    def use(self, binary: str, runtime: str = "") -> None:
        """From now on create with this program what asks for `runtime`, or for none."""
        options = runc_options_pb2.Options(binary_name=binary)
        self._options[runtime] = any_pb2.Any(type_url=OPTIONS_URL, value=options.SerializeToString())

    @property
    def runtimes(self) -> list[str]:
        """What may be asked for beside the node's own runtime."""
        return sorted(name for name in self._options if name)

    async def prepare(self, instance: str, parent: str) -> list[types_pb2.Mount]:
        """A root filesystem on top of `parent` (a chain id; empty: an empty one). It holds itself until it is removed."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=SNAPSHOTTER, key=instance, parent=parent, labels={GC_ROOT: now}
        )
        self._owners.add(instance)
        try:
            answer = await self._containerd.snapshots.Prepare(request)
        except errors.AlreadyExists:
            return await self._mounts_of(instance)
        self._mounts[instance] = list(answer.mounts)
        return self._mounts[instance]

    async def stand_on(self, instance: str, chain_id: str) -> list[types_pb2.Mount]:
        """The layers of `chain_id` as the root of `instance`, which writes elsewhere: it has no snapshot of its own.

        Nothing holds them until its container does (`create_container`). Raises NotFound."""
        self._mounts[instance] = [await self._layers.find(chain_id)]
        return self._mounts[instance]

    async def _mounts_of(self, instance: str) -> list[types_pb2.Mount]:
        request = snapshots_pb2.MountsRequest(snapshotter=SNAPSHOTTER, key=instance)
        self._mounts[instance] = list((await self._containerd.snapshots.Mounts(request)).mounts)
        return self._mounts[instance]

    async def create_container(
        self, instance: str, labels: Mapping[str, str], spec: Mapping[str, Any], runtime: str = "", chain_id: str = ""
    ) -> None:
        """The container's record: what `list` finds after a restart. One that is there already is replaced.

        It holds what it stands on: its own snapshot, or that of `chain_id`. Raises NotFound when that one is not there: it went before
        it was held."""
        container = containers_pb2.Container(
            id=instance,
            labels={LABEL + name: value for name, value in labels.items()},
            runtime=containers_pb2.Container.Runtime(name=self.shim, options=self._options[runtime]),
            spec=any_pb2.Any(type_url=SPEC_URL, value=msgspec.json.encode(spec)),
            snapshotter=SNAPSHOTTER,
            snapshot_key=chain_id or instance,
        )
        request = containers_pb2.CreateContainerRequest(container=container)
        try:
            await self._containerd.containers.Create(request)
        except errors.AlreadyExists:
            await self._containerd.containers.Delete(containers_pb2.DeleteContainerRequest(id=instance))
            await self._containerd.containers.Create(request)
        if chain_id:
            await self._layers.check(chain_id)

    async def mounts(self, instance: str) -> list[types_pb2.Mount]:
        """The root filesystem that `prepare` made, or that `stand_on` found."""
        return self._mounts.get(instance) or await self._mounts_of(instance)

    async def create_task(
        self,
        instance: str,
        stdout: str,
        stderr: str,
        runtime: str = "",
        mounts: Sequence[Mount] | None = None,
        owner_id: int = 0,
    ) -> int:
        """Create the task without starting it: parked. Its first process's pid. Output goes to files that exist already.

        `mounts`: what its root is to be, instead of what `prepare` made. `owner_id`: owns the pipes of its output."""
        root = [
            types_pb2.Mount(type=each.type, source=each.source, options=each.options)
            for each in (mounts or await self.mounts(instance))
        ]
        options = self._options[runtime]
        if owner_id:
            own = runc_options_pb2.Options.FromString(options.value)
            own.io_uid = own.io_gid = owner_id
            options = any_pb2.Any(type_url=OPTIONS_URL, value=own.SerializeToString())
        create = tasks_pb2.CreateTaskRequest(container_id=instance, rootfs=root, stdout=stdout, stderr=stderr, options=options)
        try:
            answer = await self._containerd.tasks.Create(create, timeout_s=CREATE_S)
        except errors.AlreadyExists:
            return (await self.get(instance)).pid
        self._mounts.pop(instance, None)
        self._processes[instance] = pids.identify(answer.pid)
        if runtime:
            self._sandboxed.add(instance)
        return int(answer.pid)

    async def start(self, instance: str) -> None:
        """Run what create_task prepared. Raises FailedPrecondition and others with the runtime's own words."""
        if self.direct and instance not in self._sandboxed and self.let_go(instance):
            return
        try:
            await self._containerd.tasks.Start(tasks_pb2.StartRequest(container_id=instance), timeout_s=START_S)
        except errors.FailedPrecondition:
            if (await self.get(instance)).status not in (RUNNING, PAUSED):
                raise

    def let_go(self, instance: str) -> bool:
        """Start what create_task prepared, without containerd. False: it cannot be done, and nothing has happened."""
        return waiting.let_go(self._place(instance))

    def compiled_filter(self, instance: str) -> bytes:
        """What the runtime compiled the filter of system calls of a created container to. Blocking. Raises OSError."""
        return waiting.compiled_filter(self._place(instance))

    async def kill(self, instance: str, number: signal.Signals) -> bool:
        """Send a signal; SIGKILL ends every process of it. False: it runs no longer."""
        process = self._processes.get(instance)
        if process is not None and instance not in self._sandboxed:
            return pids.send(process, number)  # with the first process of its namespace, the kernel kills all others
        request = tasks_pb2.KillRequest(container_id=instance, signal=number, all=number == signal.SIGKILL)
        try:
            await self._containerd.tasks.Kill(request)
        except (errors.NotFound, errors.FailedPrecondition):
            return False
        return True

    async def exec_(self, instance: str, argv: list[str], timeout_s: float) -> int:
        """Run `argv` in a running instance; its exit code. Raises TimeoutError, and containerd's errors."""
        request = containers_pb2.GetContainerRequest(id=instance)
        known = self.hidden(instance) or (await self._containerd.containers.Get(request)).container.spec.value
        spec = msgspec.json.decode(known)
        process = {**spec["process"], "args": argv, "terminal": False}
        name = "exec-" + short_id()
        tasks = self._containerd.tasks
        await tasks.Exec(
            tasks_pb2.ExecProcessRequest(
                container_id=instance,
                exec_id=name,
                spec=any_pb2.Any(type_url=PROCESS_URL, value=msgspec.json.encode(process)),
            )
        )
        try:
            await tasks.Start(tasks_pb2.StartRequest(container_id=instance, exec_id=name))
            try:
                waited = await tasks.Wait(tasks_pb2.WaitRequest(container_id=instance, exec_id=name), timeout_s=timeout_s)
            except errors.TimedOut:
                kill = tasks_pb2.KillRequest(container_id=instance, exec_id=name, signal=signal.SIGKILL)
                await tasks.Kill(kill)
                await tasks.Wait(tasks_pb2.WaitRequest(container_id=instance, exec_id=name))
                raise TimeoutError(f"{argv[0]}: no end within {timeout_s:g} s") from None
            return int(waited.exit_status)
        finally:
            with contextlib.suppress(errors.ContainerdError):
                await tasks.DeleteProcess(tasks_pb2.DeleteProcessRequest(container_id=instance, exec_id=name))

    async def end(self, instance: str) -> None:
        """Kill whatever runs of the task and wait until it is gone. A shim that deletes a living one waits two seconds."""
        try:
            runs = await self.kill(instance, signal.SIGKILL)
        except errors.ContainerdError as error:
            # gVisor signals nothing that has not started (parked, or its start failed): the sandbox itself is a process.
            process = self._processes.get(instance)
            if error.retry or process is None or not pids.send(process, signal.SIGKILL):
                raise
            runs = True
        if runs:
            await self.wait(instance)

    async def delete_task(self, instance: str) -> None:
        """Delete the task, which `end` ended or which exited by itself. Nothing happens when there is none."""
        self._processes.pop(instance, None)
        self._sandboxed.discard(instance)
        request = tasks_pb2.DeleteTaskRequest(container_id=instance)
        try:
            await self._containerd.tasks.Delete(request, timeout_s=DELETE_S)
        except errors.NotFound:
            return
        except errors.FailedPrecondition:
            await self.end(instance)
            try:
                await self._containerd.tasks.Delete(request, timeout_s=DELETE_S)
            except errors.NotFound:
                return

    async def wait(self, instance: str) -> None:
        """Return when its first process is gone."""
        try:
            await self._containerd.tasks.Wait(tasks_pb2.WaitRequest(container_id=instance), timeout_s=DELETE_S)
        except errors.NotFound:
            return

    async def delete_container(self, instance: str) -> None:
        """Delete the container and its own snapshot, whichever are there."""
        self._mounts.pop(instance, None)
        try:
            await self._containerd.containers.Delete(containers_pb2.DeleteContainerRequest(id=instance))
        except errors.NotFound:
            pass
        if instance not in self._owners:
            return
        remove = snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=instance)
        try:
            await self._containerd.snapshots.Remove(remove, timeout_s=DELETE_S)
        except errors.NotFound:
            pass
        self._owners.discard(instance)

    async def get(self, instance: str) -> Found:
        """The task of one instance. Raises NotFound."""
        process = (await self._containerd.tasks.Get(tasks_pb2.GetRequest(container_id=instance))).process
        return Found(instance, {}, self._status(instance, process.status), process.pid, process.exit_status)

    async def list(self) -> dict[str, Found]:
        """All of ours, by instance."""
        containers, tasks = await asyncio.gather(
            self._containerd.containers.List(containers_pb2.ListContainersRequest()),
            self._containerd.tasks.List(tasks_pb2.ListTasksRequest()),
        )
        # containerd 1.6 names a task of the list in `id`, in others in `container_id`.
        by_id = {task.container_id or task.id: task for task in tasks.tasks}
        found: dict[str, Found] = {}
        for container in containers.containers:
            labels = {key.removeprefix(LABEL): value for key, value in container.labels.items() if key.startswith(LABEL)}
            task = by_id.get(container.id)
            if task is None:
                found[container.id] = Found(container.id, labels)
            else:
                found[container.id] = Found(
                    container.id, labels, self._status(container.id, task.status), task.pid, task.exit_status
                )
        known = {name: process for name, process in self._processes.items() if name in found or pids.alive(process)}
        seen = {name: pids.identify(one.pid) for name, one in found.items() if one.pid and one.status != STOPPED}
        self._processes = known | seen
        self._sandboxed |= {name for name, one in found.items() if one.labels.get("runtime")}
        self._sandboxed &= self._processes.keys()
        return found

    def _place(self, instance: str) -> Path:
        return waiting.state(self._containerd.socket) / self._containerd.namespace / instance

    def _status(self, instance: str, said: int) -> int:
        """Of a task that containerd says is `said`."""
        return RUNNING if said == CREATED and waiting.has_gone(self._place(instance)) else said

    def pid(self, instance: str) -> int:
        """Of its first process, as far as known; else 0."""
        process = self._processes.get(instance)
        return process.pid if process is not None else 0

    def gone(self) -> set[str]:
        """Instances whose first process has ended, as the kernel says: 15 µs each, where containerd asks a shim for each."""
        return {name for name, process in self._processes.items() if not pids.alive(process)}

    async def ping(self) -> None:
        """Whether containerd answers. Raises its errors."""
        await self._containerd.version.Version(empty_pb2.Empty())

    async def bare_snapshots(self) -> set[str]:
        """Names of writable snapshots that we made for instances, with or without a container."""
        names: set[str] = set()
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER, filters=["kind==active"])
        async for answer in self._containerd.snapshots.stream("List", request):
            names |= {info.name for info in answer.info if GC_ROOT in info.labels}
        self._owners |= names
        return names

    async def events(self) -> AsyncIterator[TaskExit | TaskOom]:
        """What happens to our tasks, from now on, until the connection breaks (raises Unavailable)."""
        namespace = self._containerd.namespace
        request = events_pb2.SubscribeRequest(filters=['topic=="/tasks/exit"', 'topic=="/tasks/oom"'])
        async for envelope in self._containerd.events.stream("Subscribe", request, None):
            if envelope.namespace != namespace:
                continue
            if envelope.topic == "/tasks/oom":
                yield TaskOom(task_events_pb2.TaskOOM.FromString(envelope.event.value).container_id)
                continue
            event = task_events_pb2.TaskExit.FromString(envelope.event.value)
            if event.id == event.container_id:  # else it is an exec in the container
                yield TaskExit(event.container_id, event.exit_status)
