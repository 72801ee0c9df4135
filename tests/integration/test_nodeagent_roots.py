"""What an instance stands on is its image's, is held as long as it is there, and is mounted where no other shim sees it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent.containerd import errors
from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.pb import containers_pb2, images_pb2, leases_pb2, snapshots_pb2
from nodeagent.runtime import TRIAL
from store.backend import Store
from store.lifecycle import Phase
from store.model import Goal, Probe
from tests import real
from tests.integration.agent_world import World, fetch, world

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


@pytest.fixture
async def engine(node: World) -> AsyncIterator[Containerd]:
    opened = Containerd(node.containerd.socket)
    yield opened
    await opened.close()


async def stands_on(engine: Containerd, instance: str) -> str:
    request = containers_pb2.GetContainerRequest(id=instance)
    return str((await engine.containers.Get(request)).container.snapshot_key)


async def there(engine: Containerd, snapshot: str) -> bool:
    try:
        await engine.snapshots.Stat(snapshots_pb2.StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=snapshot))
    except errors.NotFound:
        return False
    return True


async def clean_up(engine: Containerd) -> None:
    """Let containerd remove what nobody refers to, and wait until it has."""
    await engine.leases.Create(leases_pb2.CreateRequest(id="clean-up"))
    await engine.leases.Delete(leases_pb2.DeleteRequest(id="clean-up", sync=True))


async def snapshots(engine: Containerd) -> set[str]:
    """But those of the trial of gVisor, which goes on meanwhile."""
    request = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER)
    return {
        info.name
        async for answer in engine.snapshots.stream("List", request)
        for info in answer.info
        if not info.name.startswith(TRIAL)
    }


async def test_an_instance_has_no_snapshot_of_its_own(node: World, engine: Containerd) -> None:
    await node.revision()
    for name in ("app-1", "app-2"):
        await node.assign(name, Goal.RUN)
        await node.phase(name, Phase.READY)
    assert await stands_on(engine, "app-1") == await stands_on(engine, "app-2")
    assert all(name.startswith("sha256:") for name in await snapshots(engine)), "there are layers alone"


async def test_an_image_that_is_removed_stays_under_who_runs_of_it_and_starts_nobody_else(
    node: World, engine: Containerd
) -> None:
    await node.revision()
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
    chain = await stands_on(engine, "app-1")
    for image in (await engine.images.List(images_pb2.ListImagesRequest())).images:
        await engine.images.Delete(images_pb2.DeleteImageRequest(name=image.name))
    await clean_up(engine)
    assert await there(engine, chain)
    await node.withdraw("app-1")
    await node.gone("app-1")
    await clean_up(engine)
    assert not await there(engine, chain)
    await node.assign("app-2", Goal.RUN)
    failed = await node.phase("app-2", Phase.FAILED)
    assert failed.failure is not None
    assert failed.failure.reason in ("ImageNotFound", "RegistryUnavailable"), "a registry was asked for it"
    assert await snapshots(engine) == set()


async def test_a_root_is_mounted_for_its_own_shim_alone(node: World) -> None:
    def sees(pid: int) -> bool:
        try:
            return "/app-1/rootfs " in Path(f"/proc/{pid}/mountinfo").read_text()
        except FileNotFoundError:  # the shim of a trial, which is over
            return False

    await node.revision()
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert [sees(shim) for shim in node.containerd.shims()].count(True) == 1
    assert not sees(node.containerd.pid)
    assert await fetch(ready.address) == "hello\n"


async def test_the_filter_of_system_calls_holds_an_instance_and_what_is_executed_in_it(node: World) -> None:
    filtered = 'for who in 1 self; do busybox grep -q "Seccomp:.2" /proc/$who/status || exit 1; done'
    probe = Probe(kind="exec", command=["/bin/busybox", "sh", "-c", filtered], period_s=0.2)
    await node.revision(readiness_probe=probe)
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
    assert '"compiled_filter":true' in node.log()
