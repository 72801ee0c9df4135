"""What is on this machine: which images it runs, which are here already, and what containerd's failures mean for an image."""

import platform

from nodeagent.containerd import errors as engine_errors
from nodeagent.containerd.client import Containerd
from nodeagent.images import ingest, manifest
from nodeagent.images.errors import DiskFull, EngineUnavailable, ImageProblem
from nodeagent.images.manifest import Index, Platform
from nodeagent.images.puller import ReadyImage
from nodeagent.images.records import Record
from nodeagent.images.unpack import unpacked


def this_machine() -> Platform:
    """What images this machine runs."""
    machine = platform.machine().lower()
    known = {
        "x86_64": Platform("linux", "amd64"),
        "aarch64": Platform("linux", "arm64", "v8"),
        "armv7l": Platform("linux", "arm", "v7"),
        "armv6l": Platform("linux", "arm", "v6"),
    }
    return known.get(machine, Platform("linux", machine))


async def find(engine: Containerd, here: Platform, record: Record) -> ReadyImage | None:
    """The image of a record, when all of it that is needed to start is here."""
    digest = record.digest
    try:
        for _ in range(4):
            data = await ingest.read(engine, digest, manifest.MAX_MANIFEST_BYTES)
            document = manifest.parse(data, record.media_type if digest == record.digest else "")
            if isinstance(document, Index):
                digest = manifest.choose(document, here).digest
                continue
            raw = await ingest.read(engine, document.config.digest, manifest.MAX_CONFIG_BYTES)
            parsed = manifest.parse_config(raw, here, len(document.layers))
            chain_id = manifest.chain_ids(parsed.diff_ids)[-1] if parsed.diff_ids else ""
            if chain_id and not await unpacked(engine, chain_id):
                return None
            return ReadyImage(record.digest, parsed.config, chain_id, {layer.digest: layer.size for layer in document.layers})
    except (engine_errors.NotFound, ImageProblem):
        return None
    return None


class translated:
    """containerd's errors inside become ImageProblems about `image`."""

    def __init__(self, image: str) -> None:
        self._image = image

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, engine_errors.NoSpace):
            raise DiskFull(f"image {self._image}: no room on this node's disk ({error}); remove images or files") from None
        if isinstance(error, engine_errors.Unavailable):
            raise EngineUnavailable(f"image {self._image}: {error}; it is tried again") from None
        if isinstance(error, engine_errors.ContainerdError):
            raise ImageProblem(f"image {self._image}: {error}") from None
