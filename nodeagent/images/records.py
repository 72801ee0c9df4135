"""Image records in containerd: the names, and the labels by which its garbage collector sees what an image needs.

A record belongs to the project that may use it (`name#project`), or to all (`name`). Blobs and snapshots are shared by digest; that
another project has them here gives nobody a right to them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf import field_mask_pb2

from nodeagent.containerd import errors
from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.images.manifest import Descriptor
from nodeagent.pb import content_pb2, images_pb2, leases_pb2, types_pb2

IMPORTED = "ebb.dev/imported"
_CONTENT = "containerd.io/gc.ref.content."
_SNAPSHOT = f"containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"
_EXPIRE = "containerd.io/gc.expire"


@dataclass(frozen=True, slots=True)
class Record:
    """One name of an image on this node. `digest` is what the name means: of an index, or of a manifest."""

    name: str
    project: str
    """Whose it is; empty: everybody's."""
    digest: str
    media_type: str
    size: int
    imported: bool
    created_at: float


async def take_lease(engine: Containerd, name: str, expires_at: float) -> str:
    """A gc_lease called `name`, made when it is not there; containerd drops it at `expires_at` (wall seconds)."""
    until = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        await engine.leases.Create(leases_pb2.CreateRequest(id=name, labels={_EXPIRE: until}))
    except errors.AlreadyExists:
        pass
    return name


async def drop_lease(engine: Containerd, name: str) -> None:
    """End a gc_lease; what only it held may be collected from now on."""
    try:
        await engine.leases.Delete(leases_pb2.DeleteRequest(id=name))
    except errors.NotFound:
        pass


async def refer(engine: Containerd, parent: str, children: list[str]) -> None:
    """Let the blob `parent` keep the blobs `children`."""
    await _label(engine, parent, {f"{_CONTENT}{number}": child for number, child in enumerate(children)})


async def refer_snapshot(engine: Containerd, config: str, chain_id: str) -> None:
    """Let the image config keep the unpacked image."""
    await _label(engine, config, {_SNAPSHOT: chain_id})


async def _label(engine: Containerd, digest: str, labels: dict[str, str]) -> None:
    # A mask for each label: labels that others have set stay.
    mask = field_mask_pb2.FieldMask(paths=[f"labels.{name}" for name in labels])
    await engine.content.Update(
        content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest, labels=labels), update_mask=mask)
    )


async def save(engine: Containerd, name: str, project: str, target: Descriptor, imported: bool) -> None:
    """Let `name` mean `target` for `project`, whatever it meant before."""
    image = images_pb2.Image(
        name=_key(name, project),
        target=types_pb2.Descriptor(media_type=target.media_type, digest=target.digest, size=target.size),
        labels={IMPORTED: "true"} if imported else {},
    )
    try:
        await engine.images.Create(images_pb2.CreateImageRequest(image=image))
    except errors.AlreadyExists:
        await engine.images.Update(images_pb2.UpdateImageRequest(image=image))


async def get(engine: Containerd, name: str, project: str) -> Record | None:
    """What `name` means here for `project`: by its own record, else by everybody's; or None."""
    for owner in dict.fromkeys((project, "")):
        try:
            answer = await engine.images.Get(images_pb2.GetImageRequest(name=_key(name, owner)))
        except errors.NotFound:
            continue
        return _record(answer.image)
    return None


async def all_(engine: Containerd) -> list[Record]:
    """Every name, by name and project."""
    answer = await engine.images.List(images_pb2.ListImagesRequest())
    return sorted((_record(image) for image in answer.images), key=lambda record: (record.name, record.project))


async def delete(engine: Containerd, name: str, project: str) -> bool:
    """Forget a name of `project`; False when it was not there."""
    try:
        await engine.images.Delete(images_pb2.DeleteImageRequest(name=_key(name, project)))
    except errors.NotFound:
        return False
    return True


def _key(name: str, project: str) -> str:
    # No image's name has a '#'.
    return f"{name}#{project}" if project else name


def _record(image: images_pb2.Image) -> Record:
    name, _, project = image.name.partition("#")
    return Record(
        name,
        project,
        image.target.digest,
        image.target.media_type,
        image.target.size,
        image.labels.get(IMPORTED) == "true",
        image.created_at.ToNanoseconds() / 1e9,
    )
