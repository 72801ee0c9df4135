"""A private containerd with an image store on it, and questions to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.images.facade import ImageStore
from nodeagent.pb import content_pb2, leases_pb2, snapshots_pb2
from process.outbound import Outbound
from store.messages import PullProgress
from tests import archives
from tests.real_containerd import RealContainerd, private_containerd

HELLO = archives.busybox()
"""The image that most tests are about."""


@dataclass
class World:
    real: RealContainerd
    engine: Containerd
    images: ImageStore
    told: list[PullProgress] = field(default_factory=list)

    async def contents(self) -> set[str]:
        """Digests in the content store."""
        found: set[str] = set()
        async for answer in self.engine.content.stream("List", content_pb2.ListContentRequest()):
            found |= {info.digest for info in answer.info}
        return found

    async def snapshots(self) -> set[str]:
        found: set[str] = set()
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=SNAPSHOTTER)
        async for answer in self.engine.snapshots.stream("List", request):
            found |= {info.name for info in answer.info}
        return found

    async def leases(self) -> list[str]:
        return [lease.id for lease in (await self.engine.leases.List(leases_pb2.ListRequest())).leases]

    async def collect_garbage(self) -> None:
        """Have containerd's own collector run, to its end."""
        await self.engine.leases.Create(leases_pb2.CreateRequest(id="gc-now"))
        await self.engine.leases.Delete(leases_pb2.DeleteRequest(id="gc-now", sync=True))

    async def file(self, chain_id: str, path: str) -> bytes:
        """A file of an unpacked image, found in the snapshot's own layer directories on disk."""
        # Under a lease: a snapshot that nothing refers to may be collected at once.
        key = f"view-{chain_id}"
        await self.engine.leases.Create(leases_pb2.CreateRequest(id=key))
        request = snapshots_pb2.ViewSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=chain_id)
        mounts = (await self.engine.under(key).snapshots.View(request)).mounts
        try:
            for folder in folders(mounts):
                if (folder / path).exists():
                    return (folder / path).read_bytes()
            raise FileNotFoundError(path)
        finally:
            await self.engine.snapshots.Remove(snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key))
            await self.engine.leases.Delete(leases_pb2.DeleteRequest(id=key))


def folders(mounts: Any) -> list[Path]:
    """The directories under an overlay mount, uppermost first."""
    if mounts[0].type == "bind":
        return [Path(mounts[0].source)]
    lower = next(option for option in mounts[0].options if option.startswith("lowerdir="))
    return [Path(each) for each in lower.removeprefix("lowerdir=").split(":")]


def archive(tmp: Path, image: archives.Image = HELLO) -> str:
    """`image` in a file that skopeo reads, by the name it has for it."""
    file = tmp / "image.tar"
    file.write_bytes(archives.oci_tar(image))
    return f"oci-archive:{file}"


HERE = Outbound(["127.0.0.0/8"])
"""Where the tests' registries are."""


@asynccontextmanager
async def world(disk_bytes: int = 0, **settings: Any) -> AsyncIterator[World]:
    """A World on an empty containerd, on a disk of its own when `disk_bytes` is given; `settings` go to the ImageStore."""
    async with private_containerd(disk_bytes=disk_bytes) as real:
        engine = Containerd(real.socket)
        await engine.ready(10)
        told: list[PullProgress] = []
        settings.setdefault("outbound", HERE)
        images = ImageStore(engine, node="n1", spool=real.root / "spool", on_progress=told.append, **settings)
        try:
            yield World(real, engine, images, told)
        finally:
            await images.close()
            await engine.close()
