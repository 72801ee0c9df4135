"""Layers from the content store into snapshots, one on the other, each named by its chain id."""

import asyncio
from collections.abc import Sequence

from nodeagent.containerd import errors
from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.images import ingest
from nodeagent.images.errors import BadDigest, BadImage, ImageProblem
from nodeagent.images.flight import Flights
from nodeagent.images.manifest import Descriptor, chain_ids
from nodeagent.images.survey import Room, Survey
from nodeagent.pb import content_pb2, diff_pb2, types_pb2
from nodeagent.pb import snapshots_pb2 as pb
from process.ids import short_id

APPLY_S = 1800.0
"""Deadline of unpacking one layer."""
_HELD = f"snapshots/{SNAPSHOTTER}"


async def unpacked(engine: Containerd, chain_id: str) -> bool:
    """Whether the snapshot of this chain is there, whole."""
    try:
        answer = await engine.snapshots.Stat(pb.StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=chain_id))
    except errors.NotFound:
        return False
    return bool(answer.info.kind == pb.COMMITTED)


async def unpack(
    engine: Containerd,
    gc_lease: str,
    layers: Sequence[Descriptor],
    diff_ids: tuple[str, ...],
    flights: Flights[None],
    room: Room,
) -> str:
    """Unpack all layers; returns the chain id of the top one. `engine` is under `gc_lease`, which holds every snapshot.

    Raises TooLarge for what has no room, BadDigest, BadImage, containerd's errors.
    """
    parent = ""
    for layer, diff_id, chain in zip(layers, diff_ids, chain_ids(diff_ids), strict=True):
        below = parent

        async def work(layer: Descriptor = layer, diff_id: str = diff_id, chain: str = chain, below: str = below) -> None:
            await _survey(engine, layer, room)
            await _layer(engine, layer, diff_id, chain, below)

        for _ in range(3):
            # Held first, then looked at: in the other order it could go in between.
            await ingest.hold(engine, gc_lease, _HELD, chain)
            if await unpacked(engine, chain):
                break
            await flights.run(chain, work)
        else:
            raise ImageProblem(f"snapshot {chain} vanishes as often as it is made; does something else clean up containerd?")
        parent = chain
    return parent


async def _survey(engine: Containerd, layer: Descriptor, room: Room) -> None:
    """Count what the layer would put on the disk, before anything is. Raises TooLarge, BadImage."""
    counted = Survey(layer.digest, layer.media_type, room)
    async for part in engine.content.stream("Read", content_pb2.ReadContentRequest(digest=layer.digest, size=0)):
        await asyncio.to_thread(counted.feed, part.data)
    counted.close()


async def _layer(engine: Containerd, layer: Descriptor, diff_id: str, chain: str, parent: str) -> None:
    key = f"ebb-unpack-{short_id()}-{chain}"
    prepare = pb.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key=key, parent=parent)
    mounts = (await engine.snapshots.Prepare(prepare)).mounts
    try:
        diff = types_pb2.Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        try:
            request = diff_pb2.ApplyRequest(diff=diff, mounts=mounts)
            applied = (await engine.diff.Apply(request, timeout_s=APPLY_S)).applied.digest
        except (errors.Unavailable, errors.NoSpace, errors.NotFound):
            raise
        except errors.ContainerdError as error:
            raise BadImage(f"layer {layer.digest} cannot be unpacked: {error}; build the image again") from None
        if applied != diff_id:
            raise BadDigest(f"layer {layer.digest} unpacks to {applied}; the image config says {diff_id}; build it again")
        commit = pb.CommitSnapshotRequest(snapshotter=SNAPSHOTTER, name=chain, key=key)
        await engine.snapshots.Commit(commit, timeout_s=60)
    except errors.AlreadyExists:
        await _remove(engine, key)
    except BaseException:
        await _remove(engine, key)
        raise


async def _remove(engine: Containerd, key: str) -> None:
    try:
        await engine.snapshots.Remove(pb.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=key), timeout_s=30)
    except errors.ContainerdError:
        # The gc_lease that holds it ends, and then containerd's own collector takes it.
        pass
