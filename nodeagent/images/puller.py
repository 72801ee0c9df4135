"""One image from where its blobs are (a registry, an archive) into containerd, unpacked, under a gc_lease all the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from nodeagent.containerd.client import Containerd
from nodeagent.images import ingest, manifest, records
from nodeagent.images.errors import BadImage, RegistryUnavailable, TooLarge
from nodeagent.images.flight import Flights
from nodeagent.images.manifest import Descriptor, ImageConfig, Index, Manifest, Platform
from nodeagent.images.progress import Progress
from nodeagent.images.quota import Layers
from nodeagent.images.registry import TRIES, Lookup, Registry, Transient, pause_s
from nodeagent.images.survey import Room
from nodeagent.images.unpack import unpack
from store.imageref import ImageRef

PARALLEL = 3
Fits = Callable[[Layers], Awaitable[None]]
"""Raises OverQuota when there is no room for an image of these layers."""
MAX_DEPTH = 3
"""An index in an index in an index."""


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """An image that is unpacked here. `digest` is what its name means; `chain_id` is the snapshot to build on."""

    digest: str
    config: ImageConfig
    chain_id: str
    layers: Layers = field(hash=False)
    """As they are stored, mostly compressed."""

    @property
    def size_bytes(self) -> int:
        return sum(self.layers.values())


@dataclass(frozen=True, slots=True)
class Names:
    """How an image is to be known, and to which project (empty: to all)."""

    names: tuple[str, ...]
    project: str


class Origin(Protocol):
    """Where blobs come from."""

    async def manifest(self, digest: str) -> tuple[bytes, str]:
        """A manifest's or index's bytes and media type, verified. Raises ImageProblem."""

    def blob(self, digest: str, offset: int) -> AbstractAsyncContextManager[tuple[int, Any]]:
        """(start, chunks) of a blob from `offset`, or from 0. Raises ImageProblem, Transient."""


class FromRegistry:
    """One repository of a registry, with who asks."""

    def __init__(self, registry: Registry, ref: ImageRef, lookup: Lookup) -> None:
        self._registry, self._ref, self._lookup = registry, ref, lookup

    async def manifest(self, digest: str) -> tuple[bytes, str]:
        return await self._registry.manifest(self._ref, digest, self._lookup)

    @asynccontextmanager
    async def blob(self, digest: str, offset: int) -> AsyncIterator[tuple[int, Any]]:
        async with self._registry.blob(self._ref, digest, offset, self._lookup) as opened:
            yield opened


class Puller:
    """Pulls into one containerd. Blobs and snapshots that two images share are fetched and unpacked once."""

    def __init__(self, engine: Containerd, here: Platform, max_bytes: int) -> None:
        self._engine = engine
        self._here = here
        self._max_bytes = max_bytes
        self._blobs: Flights[None] = Flights()
        self._chains: Flights[None] = Flights()

    async def pull(
        self, origin: Origin, digest: str, names: Names, gc_lease: str, progress: Progress, imported: bool, room: Fits
    ) -> ReadyImage:
        """Have image `digest` here, unpacked and recorded under `names`. Raises ImageProblem, containerd's errors.

        Its manifests are asked of `origin` also when they are here: that is how `origin` says who may have them. `room` is asked
        before a layer is fetched.
        """
        engine = self._engine.under(gc_lease)
        path, found = await self._descend(engine, gc_lease, origin, digest)
        progress.state("pulling")
        self._check_size(found)
        layers = {layer.digest: layer.size for layer in found.layers}
        await room(layers)
        await self._fetch(engine, gc_lease, origin, found.config, None)
        raw = await ingest.read(engine, found.config.digest, manifest.MAX_CONFIG_BYTES)
        parsed = manifest.parse_config(raw, self._here, len(found.layers))
        for layer in found.layers:
            progress.expect(layer.digest, layer.size)
        await self._fetch_layers(engine, gc_lease, origin, found.layers, progress)
        progress.state("unpacking")
        chain_id = await unpack(engine, gc_lease, found.layers, parsed.diff_ids, self._chains, Room(2 * self._max_bytes))
        # From the leaves up: each label is true when it is set.
        await records.refer_snapshot(engine, found.config.digest, chain_id)
        await records.refer(engine, path[-1].digest, [found.config.digest, *layers])
        for parent, child in zip(path[-2::-1], path[:0:-1], strict=True):
            await records.refer(engine, parent.digest, [child.digest])
        for name in names.names:
            await records.save(engine, name, names.project, path[0], imported)
        return ReadyImage(digest, parsed.config, chain_id, layers)

    async def _descend(
        self, engine: Containerd, gc_lease: str, origin: Origin, digest: str
    ) -> tuple[list[Descriptor], Manifest]:
        """From `digest` down to this platform's manifest; every document on the way is stored."""
        path: list[Descriptor] = []
        for _ in range(MAX_DEPTH + 1):
            data, media_type = await origin.manifest(digest)
            document = manifest.parse(data, media_type)
            kind = manifest.INDEX_TYPES if isinstance(document, Index) else manifest.MANIFEST_TYPES
            known = media_type if media_type in kind else kind[0]
            path.append(Descriptor(known, digest, len(data)))
            await ingest.hold(engine, gc_lease, "content", digest)
            await ingest.put(engine, path[-1], data)
            if isinstance(document, Manifest):
                return path, document
            digest = manifest.choose(document, self._here).digest
        raise BadImage(f"image {path[0].digest}: indexes nested deeper than {MAX_DEPTH}")

    def _check_size(self, found: Manifest) -> None:
        total = sum(layer.size for layer in found.layers)
        if total > self._max_bytes:
            raise TooLarge(f"image has {total} bytes in layers; at most {self._max_bytes} are allowed on this node")

    async def _fetch_layers(
        self, engine: Containerd, gc_lease: str, origin: Origin, layers: list[Descriptor], progress: Progress
    ) -> None:
        room = asyncio.Semaphore(PARALLEL)

        async def one(layer: Descriptor) -> None:
            async with room:
                await self._fetch(engine, gc_lease, origin, layer, progress)

        try:
            async with asyncio.TaskGroup() as group:
                for layer in {layer.digest: layer for layer in layers}.values():
                    group.create_task(one(layer))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _fetch(
        self, engine: Containerd, gc_lease: str, origin: Origin, blob: Descriptor, progress: Progress | None
    ) -> None:
        def on_bytes(done: int) -> None:
            if progress is not None:
                progress.bytes(blob.digest, done)

        async def work() -> None:
            for attempt in range(TRIES):
                try:
                    await ingest.write(engine, blob, lambda offset: origin.blob(blob.digest, offset), on_bytes)
                    return
                except Transient as error:
                    if attempt == TRIES - 1:
                        raise RegistryUnavailable(f"{error} ({TRIES} tries); is the registry reachable?") from None
                    await asyncio.sleep(pause_s(attempt))

        for _ in range(3):
            await ingest.hold(engine, gc_lease, "content", blob.digest)
            if await ingest.has(engine, blob.digest):
                on_bytes(blob.size)
                return
            await self._blobs.run(blob.digest, work)
