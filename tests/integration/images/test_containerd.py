"""Every service and message of the project's own stubs, once, against a real containerd."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2, empty_pb2, field_mask_pb2

from nodeagent.containerd import errors
from nodeagent.containerd.client import SNAPSHOTTER
from nodeagent.images import ingest
from nodeagent.pb import (
    cgroup1_stats_pb2,
    containers_pb2,
    content_pb2,
    events_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    runc_options_pb2,
    snapshots_pb2,
    task_events_pb2,
    task_types_pb2,
    tasks_pb2,
)
from tests import archives
from tests.eventually import eventually_async
from tests.integration.images.world import World

pytestmark = pytest.mark.real


async def _hello(here: World) -> str:
    async def data() -> AsyncIterator[bytes]:
        yield archives.oci_tar(archives.busybox(), "hello:v1")

    await here.images.import_archive(data())
    return (await here.images.ensure(await here.images.resolve("hello:v1"))).chain_id


def _spec() -> any_pb2.Any:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
    ]
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/busybox", "sleep", "1000"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
    }
    spec = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {"cgroupsPath": "/ebb-itest-one", "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }
    url = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
    return any_pb2.Any(type_url=url, value=json.dumps(spec).encode())


def _any(name: str, message: Any) -> any_pb2.Any:
    return any_pb2.Any(type_url=name, value=message.SerializeToString())


async def test_namespaces_version_and_plugins_are_told(here: World) -> None:
    spaces = here.engine.namespaces
    assert (await here.engine.version.Version(empty_pb2.Empty())).version.startswith("1.")
    assert (await here.engine.introspection.Server(empty_pb2.Empty())).uuid
    plugins = (await here.engine.introspection.Plugins(introspection_pb2.PluginsRequest())).plugins
    assert any(plugin.id == SNAPSHOTTER and not plugin.init_err.message for plugin in plugins)
    other = namespaces_pb2.Namespace(name="other", labels={"a": "1"})
    await spaces.Create(namespaces_pb2.CreateNamespaceRequest(namespace=other))
    with pytest.raises(errors.AlreadyExists, match=r"Namespaces\.Create"):
        await spaces.Create(namespaces_pb2.CreateNamespaceRequest(namespace=other))
    changed = namespaces_pb2.Namespace(name="other", labels={"a": "2"})
    await spaces.Update(namespaces_pb2.UpdateNamespaceRequest(namespace=changed))
    assert (await spaces.Get(namespaces_pb2.GetNamespaceRequest(name="other"))).namespace.labels == {"a": "2"}
    names = [each.name for each in (await spaces.List(namespaces_pb2.ListNamespacesRequest())).namespaces]
    assert names == ["ebb", "other"]
    await spaces.Delete(namespaces_pb2.DeleteNamespaceRequest(name="other"))
    assert len((await spaces.List(namespaces_pb2.ListNamespacesRequest())).namespaces) == 1


async def test_content_is_written_resumed_listed_and_deleted(here: World) -> None:
    data = b"x" * 300_000
    digest = archives.digest(data)
    await here.engine.leases.Create(leases_pb2.CreateRequest(id="mine", labels={"why": "test"}))
    engine = here.engine.under("mine")
    call = engine.content.duplex("Write", 10)
    await call.write(content_pb2.WriteContentRequest(action=content_pb2.WRITE, ref="r", total=len(data), data=data[:1000]))
    assert (await call.read()).offset == 1000
    call.cancel()
    status = (await engine.content.Status(content_pb2.StatusRequest(ref="r"))).status
    assert (status.ref, status.offset, status.total) == ("r", 1000, len(data))
    assert [s.ref for s in (await engine.content.ListStatuses(content_pb2.ListStatusesRequest())).statuses] == ["r"]

    async def aborted() -> bool:
        try:
            await engine.content.Abort(content_pb2.AbortRequest(ref="r"))
        except errors.ContainerdError as error:
            # The writer that was cancelled may still write its last state into the directory that is removed.
            if "directory not empty" not in str(error):
                raise
            return False
        return True

    await eventually_async(aborted, "the write is aborted")
    with pytest.raises(errors.NotFound):
        await engine.content.Status(content_pb2.StatusRequest(ref="r"))
    await ingest.put(engine, ingest.Descriptor("text/plain", digest, len(data)), data)
    assert await ingest.read(engine, digest, 10**6) == data
    info = (await engine.content.Info(content_pb2.InfoRequest(digest=digest))).info
    assert info.size == len(data)
    mask = field_mask_pb2.FieldMask(paths=["labels.k"])
    update = content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest, labels={"k": "v"}), update_mask=mask)
    assert (await engine.content.Update(update)).info.labels["k"] == "v"
    assert await here.contents() == {digest}
    held = (await engine.leases.ListResources(leases_pb2.ListResourcesRequest(id="mine"))).resources
    assert [(each.type, each.id) for each in held] == [("content", digest)]
    drop = leases_pb2.DeleteResourceRequest(id="mine", resource=held[0])
    await engine.leases.DeleteResource(drop)
    [lease] = (await engine.leases.List(leases_pb2.ListRequest())).leases
    assert lease.labels == {"why": "test"}
    await engine.content.Delete(content_pb2.DeleteContentRequest(digest=digest))
    assert await here.contents() == set()


async def test_snapshots_are_prepared_viewed_measured_and_cleaned_up(here: World) -> None:
    chain = await _hello(here)
    snapshots = here.engine.snapshots
    where = {"snapshotter": SNAPSHOTTER}
    await here.engine.leases.Create(leases_pb2.CreateRequest(id="mine"))
    made = await here.engine.under("mine").snapshots.Prepare(
        snapshots_pb2.PrepareSnapshotRequest(key="rw", parent=chain, labels={"a": "1"}, **where)
    )
    assert made.mounts[0].type == "overlay"
    assert (await snapshots.Mounts(snapshots_pb2.MountsRequest(key="rw", **where))).mounts == made.mounts
    info = (await snapshots.Stat(snapshots_pb2.StatSnapshotRequest(key="rw", **where))).info
    assert (info.parent, info.kind, info.labels["a"]) == (chain, snapshots_pb2.ACTIVE, "1")
    info.labels["a"] = "2"
    assert (await snapshots.Update(snapshots_pb2.UpdateSnapshotRequest(info=info, **where))).info.labels["a"] == "2"
    assert (await snapshots.Usage(snapshots_pb2.UsageRequest(key=chain, **where))).size > 0
    with pytest.raises(errors.FailedPrecondition):
        await snapshots.Remove(snapshots_pb2.RemoveSnapshotRequest(key=chain, **where))
    await snapshots.Remove(snapshots_pb2.RemoveSnapshotRequest(key="rw", **where))
    with pytest.raises(errors.Unsupported):
        await snapshots.Cleanup(snapshots_pb2.CleanupRequest(**where))


async def test_images_are_found_by_name(here: World) -> None:
    await _hello(here)
    answer = await here.engine.images.List(images_pb2.ListImagesRequest(filters=['labels."ebb.dev/imported"==true']))
    assert {image.name.partition("@")[0] for image in answer.images} == {
        "docker.io/library/hello:v1",
        "docker.io/library/hello",
    }
    image = answer.images[0]
    image.labels["more"] = "1"
    await here.engine.images.Update(images_pb2.UpdateImageRequest(image=image))
    await here.engine.images.Delete(images_pb2.DeleteImageRequest(name=image.name, sync=True))
    with pytest.raises(errors.NotFound):
        await here.engine.images.Get(images_pb2.GetImageRequest(name=image.name))


@pytest.mark.parametrize("runtime", ["crun", "runc"])
async def test_a_task_lives_through_every_call(here: World, runtime: str, tmp_path: Path) -> None:
    chain = await _hello(here)
    tasks = here.engine.tasks
    heard: list[tuple[str, Any]] = []
    listening = asyncio.create_task(_listen(here, heard))
    options = _any("containerd.runc.v1.Options", runc_options_pb2.Options(binary_name=runtime))
    container = containers_pb2.Container(
        id="one",
        labels={"a": "1"},
        image="hello",
        runtime=containers_pb2.Container.Runtime(name="io.containerd.runc.v2", options=options),
        spec=_spec(),
        snapshotter=SNAPSHOTTER,
        snapshot_key="one",
    )
    await here.engine.leases.Create(leases_pb2.CreateRequest(id="mine"))
    prepare = snapshots_pb2.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key="one", parent=chain)
    mounts = (await here.engine.under("mine").snapshots.Prepare(prepare)).mounts
    containers = here.engine.containers
    await containers.Create(containers_pb2.CreateContainerRequest(container=container))
    assert (await containers.Get(containers_pb2.GetContainerRequest(id="one"))).container.labels == {"a": "1"}
    mask = field_mask_pb2.FieldMask(paths=["labels"])
    changed = containers_pb2.Container(id="one", labels={"a": "2"})
    await containers.Update(containers_pb2.UpdateContainerRequest(container=changed, update_mask=mask))
    assert [c.labels["a"] for c in (await containers.List(containers_pb2.ListContainersRequest())).containers] == ["2"]
    create = tasks_pb2.CreateTaskRequest(container_id="one", rootfs=mounts, options=options)
    pid = (await tasks.Create(create, timeout_s=30)).pid
    status = (await tasks.Get(tasks_pb2.GetRequest(container_id="one"))).process.status
    assert status == task_types_pb2.CREATED
    waiting = asyncio.create_task(tasks.Wait(tasks_pb2.WaitRequest(container_id="one"), timeout_s=None))
    assert (await tasks.Start(tasks_pb2.StartRequest(container_id="one"))).pid == pid
    await _exec(here, tmp_path)
    await tasks.Pause(tasks_pb2.PauseTaskRequest(container_id="one"))
    assert (await tasks.List(tasks_pb2.ListTasksRequest())).tasks[0].status == task_types_pb2.PAUSED
    await tasks.Resume(tasks_pb2.ResumeTaskRequest(container_id="one"))
    assert [p.pid for p in (await tasks.ListPids(tasks_pb2.ListPidsRequest(container_id="one"))).processes] == [pid]
    resources = any_pb2.Any(
        type_url="types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", value=b'{"pids":{"limit":77}}'
    )
    await tasks.Update(tasks_pb2.UpdateTaskRequest(container_id="one", resources=resources))
    [metric] = (await tasks.Metrics(tasks_pb2.MetricsRequest(filters=["id==one"]))).metrics
    assert metric.id == "one"
    if metric.data.type_url.endswith("io.containerd.cgroups.v1.Metrics"):
        assert cgroup1_stats_pb2.Metrics.FromString(metric.data.value).pids.limit == 77
    await tasks.Kill(tasks_pb2.KillRequest(container_id="one", signal=9, all=True))
    assert (await waiting).exit_status == 137
    assert (await tasks.Delete(tasks_pb2.DeleteTaskRequest(container_id="one"))).exit_status == 137
    await containers.Delete(containers_pb2.DeleteContainerRequest(id="one"))
    await asyncio.wait_for(listening, 10)
    topics = [topic for topic, _ in heard]
    assert topics[0] == "/tasks/create"
    assert {"/tasks/start", "/tasks/exec-added", "/tasks/paused", "/tasks/resumed"} < set(topics)
    exits = [event for topic, event in heard if topic == "/tasks/exit"]
    assert [(event.id, event.exit_status) for event in exits] == [("probe", 3), ("one", 137)]


async def _exec(here: World, tmp_path: Path) -> None:
    tasks = here.engine.tasks
    out = tmp_path / "out"
    process = {
        "args": ["/bin/busybox", "sh", "-c", "echo out; exit 3"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin"],
    }
    spec = any_pb2.Any(type_url="types.containerd.io/opencontainers/runtime-spec/1/Process", value=json.dumps(process).encode())
    await tasks.Exec(
        tasks_pb2.ExecProcessRequest(
            container_id="one", exec_id="probe", spec=spec, stdout=f"file://{out}", stderr=f"file://{out}"
        )
    )
    await tasks.Start(tasks_pb2.StartRequest(container_id="one", exec_id="probe"))
    waited = await tasks.Wait(tasks_pb2.WaitRequest(container_id="one", exec_id="probe"))
    assert waited.exit_status == 3
    gone = await tasks.DeleteProcess(tasks_pb2.DeleteProcessRequest(container_id="one", exec_id="probe"))
    assert gone.exit_status == 3
    assert await asyncio.to_thread(out.read_text) == "out\n"


async def _listen(here: World, heard: list[tuple[str, Any]]) -> None:
    kinds = {"containerd.events.TaskExit": task_events_pb2.TaskExit, "containerd.events.TaskDelete": task_events_pb2.TaskDelete}
    request = events_pb2.SubscribeRequest(filters=['topic~="^/tasks/",namespace==ebb'])
    async for envelope in here.engine.events.stream("Subscribe", request, timeout_s=None):
        kind = kinds.get(envelope.event.type_url)
        heard.append((envelope.topic, kind.FromString(envelope.event.value) if kind else None))
        if envelope.topic == "/tasks/delete" and heard[-1][1].id in ("", "one"):
            return


async def test_a_call_past_its_deadline_says_so(here: World) -> None:
    os.kill(here.real.pid, signal.SIGSTOP)
    try:
        with pytest.raises(errors.TimedOut, match=r"Version\.Version"):
            await here.engine.version.Version(empty_pb2.Empty(), timeout_s=0.05)
    finally:
        os.kill(here.real.pid, signal.SIGCONT)


async def test_the_connection_comes_back_after_a_restart(here: World) -> None:
    here.real.kill()
    with pytest.raises(errors.Unavailable):
        await here.engine.version.Version(empty_pb2.Empty())
    await here.real.start()
    assert await here.engine.ready(5)
