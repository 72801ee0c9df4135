"""Where the layers of images are, for instances that stand on them without a snapshot of their own.

mount = await layers.find(chain_id)     # asked of containerd once for an image
…                                       # a container is recorded that names `chain_id`: from then on it holds the layers
await layers.check(chain_id)            # they are still those
"""

import time

from google.protobuf import timestamp_pb2

from nodeagent.containerd import errors
from nodeagent.containerd.client import SNAPSHOTTER, Containerd
from nodeagent.pb import snapshots_pb2, types_pb2
from process.ids import short_id

GC_ROOT = "containerd.io/gc.root"
"""Label: it holds itself until it is removed."""
LOOK = "look-"
"""Begins the names of snapshots that are made to see where layers are."""
KNOWN_MOST = 4096


class Layers:
    """Those in one containerd."""

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self._known: dict[str, tuple[types_pb2.Mount, timestamp_pb2.Timestamp]] = {}
        """Chain id → a read-only mount of its layers, and when its snapshot was made."""

    async def find(self, chain_id: str) -> types_pb2.Mount:
        """A read-only mount of the layers of `chain_id`. Nothing holds them yet. Raises NotFound."""
        known = self._known.get(chain_id)
        if known is None:
            made = await self._made(chain_id)
            if len(self._known) >= KNOWN_MOST:
                self._known.clear()
            known = self._known[chain_id] = await self._look(chain_id), made
        return known[0]

    async def check(self, chain_id: str) -> None:
        """Raises NotFound when what `find` found is not there any more, though the image may be there anew."""
        known = self._known.get(chain_id)
        try:
            if known is not None and known[1] == await self._made(chain_id):
                return
        except errors.NotFound:
            pass
        self._known.pop(chain_id, None)
        raise errors.NotFound(f"snapshot {chain_id} went before a container held it")

    async def _made(self, chain_id: str) -> timestamp_pb2.Timestamp:
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=SNAPSHOTTER, key=chain_id)
        info: snapshots_pb2.Info = (await self._containerd.snapshots.Stat(request)).info
        return info.created_at

    async def _look(self, chain_id: str) -> types_pb2.Mount:
        # containerd tells where layers are only of what stands on them: of a snapshot that nobody keeps.
        name, root = f"{LOOK}{short_id()}", {GC_ROOT: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        prepare = snapshots_pb2.PrepareSnapshotRequest(snapshotter=SNAPSHOTTER, key=name, parent=chain_id, labels=root)
        mount = (await self._containerd.snapshots.Prepare(prepare)).mounts[0]
        try:
            await self._containerd.snapshots.Remove(snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=name))
        except errors.NotFound:
            pass
        kept = [option for option in mount.options if not option.startswith(("upperdir=", "workdir="))]
        return types_pb2.Mount(type=mount.type, source=mount.source, options=kept)
