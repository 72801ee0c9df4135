"""Image archives: an OCI layout in a tar, and both forms of `docker save`.

The archive waits in one spool file, and blobs are read out of it by offset: no name inside it ever becomes a path on this
machine. A name counts only as a key among the archive's own members.
"""

import asyncio
import hashlib
import os
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nodeagent.images import manifest
from nodeagent.images.errors import BadDigest, BadImage, DiskFull, TooLarge
from nodeagent.images.manifest import Descriptor, Index, Manifest

MAX_MEMBERS = 20_000
MAX_IMAGES = 100
CHUNK = 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """One image of an archive; `name` as the archive says it, or empty."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    size: int


class _SavedImage(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class Archive:
    """An open archive: the images in it, and their blobs by digest. Also an Origin for the puller."""

    def __init__(self, file: int, members: dict[str, _Place]) -> None:
        self._file = file
        self._members = members
        self._made: dict[str, bytes] = {}
        self._blobs: dict[str, _Place] = {}
        self.images: list[Found] = []

    def close(self) -> None:
        os.close(self._file)

    async def manifest(self, digest: str) -> tuple[bytes, str]:
        data = self._made.get(digest)
        if data is None:
            data = self._small(self._place(digest), manifest.MAX_MANIFEST_BYTES, f"manifest {digest}")
            if (got := manifest.digest_of(data)) != digest and digest.startswith("sha256:"):
                raise BadDigest(f"manifest {digest} in the archive is {got}; make the archive again")
        return data, ""

    @asynccontextmanager
    async def blob(self, digest: str, offset: int) -> AsyncIterator[tuple[int, Any]]:
        yield offset, self._chunks(self._place(digest), offset)

    async def _chunks(self, place: _Place, offset: int) -> AsyncIterator[bytes]:
        while offset < place.size:
            data = await asyncio.to_thread(os.pread, self._file, min(CHUNK, place.size - offset), place.offset + offset)
            if not data:
                return
            offset += len(data)
            yield data

    def _place(self, digest: str) -> _Place:
        algorithm, _, value = digest.partition(":")
        place = self._blobs.get(digest) or self._members.get(f"blobs/{algorithm}/{value}")
        if place is None:
            raise BadImage(f"blob {digest} is not in the archive; save the image again, for this platform")
        return place

    def _small(self, place: _Place, limit: int, what: str) -> bytes:
        if place.size > limit:
            raise TooLarge(f"{what} in the archive has {place.size} bytes; at most {limit} are allowed")
        return os.pread(self._file, place.size, place.offset)

    def read_index(self) -> bool:
        """Find images by index.json; False when the archive has none."""
        place = self._members.get("index.json")
        if place is None:
            return False
        document = manifest.parse(self._small(place, manifest.MAX_MANIFEST_BYTES, "index.json"), manifest.INDEX_TYPES[0])
        if not isinstance(document, Index):
            raise BadImage("index.json in the archive is no image index; want an OCI layout or a docker-save archive")
        for entry in document.manifests:
            full = entry.annotations.get("io.containerd.image.name", "")
            self.images.append(Found(full or entry.annotations.get("org.opencontainers.image.ref.name", ""), entry.digest))
        return bool(self.images)

    def read_saved(self) -> bool:
        """Find images by manifest.json of `docker save`; False when the archive has none."""
        place = self._members.get("manifest.json")
        if place is None:
            return False
        saved = _decode(list[_SavedImage], self._small(place, manifest.MAX_MANIFEST_BYTES, "manifest.json"))
        for image in saved[:MAX_IMAGES]:
            digest = self._compose(image)
            self.images += [Found(tag, digest) for tag in image.repo_tags or [""]]
        return bool(self.images)

    def _compose(self, image: _SavedImage) -> str:
        """A manifest for an image of `docker save`, which has none of its own."""
        if len(image.layers) > manifest.MAX_LAYERS:
            raise TooLarge(f"image has {len(image.layers)} layers; at most {manifest.MAX_LAYERS} are allowed; squash some")
        config = self._describe(image.config, manifest.CONFIG_TYPES[0])
        layers = [self._describe(name, "") for name in image.layers]
        data = msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": manifest.MANIFEST_TYPES[0],
                **msgspec.to_builtins(Manifest(config=config, layers=layers)),
            }
        )
        digest = manifest.digest_of(data)
        self._made[digest] = data
        return digest

    def _describe(self, name: str, media_type: str) -> Descriptor:
        place = self._members.get(_plain(name))
        if place is None:
            raise BadImage(f"manifest.json names {name[:200]!r}, which is not in the archive; save the image again")
        head = os.pread(self._file, 4, place.offset)
        hasher = hashlib.sha256()
        for start in range(0, place.size, CHUNK):
            hasher.update(os.pread(self._file, min(CHUNK, place.size - start), place.offset + start))
        digest = f"sha256:{hasher.hexdigest()}"
        self._blobs[digest] = place
        return Descriptor(media_type or _layer_type(head), digest, place.size)


def open_archive(path: Path) -> Archive:
    """The archive in the file `path`. Blocks; reads every header. Raises ImageProblem."""
    file = os.open(path, os.O_RDONLY)
    try:
        opened = Archive(file, _members(path))
        if not (opened.read_index() or opened.read_saved()):
            raise BadImage("the archive holds no image: neither index.json (OCI) nor manifest.json (docker save) names one")
        if len(opened.images) > MAX_IMAGES:
            raise TooLarge(f"the archive holds {len(opened.images)} images; at most {MAX_IMAGES} are allowed")
    except BaseException:
        os.close(file)
        raise
    return opened


def _members(path: Path) -> dict[str, _Place]:
    """Where each member's bytes are, by its plain name; links lead to other members only."""
    places: dict[str, _Place] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for count, member in enumerate(tar):
                if count >= MAX_MEMBERS:
                    raise TooLarge(f"the archive has more than {MAX_MEMBERS} members, and no more are allowed")
                name = _plain(member.name)
                if member.isreg() and not member.issparse():
                    places[name] = _Place(member.offset_data, member.size)
                elif member.issym():
                    links[name] = _plain(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.islnk():
                    links[name] = _plain(member.linkname)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BadImage(f"the archive cannot be read as a tar: {error}; want an OCI layout or a docker-save archive") from None
    for name, target in links.items():
        if name not in places and target in places:
            places[name] = places[target]
    return places


def _plain(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _layer_type(head: bytes) -> str:
    if head[:2] == b"\x1f\x8b":
        return "application/vnd.oci.image.layer.v1.tar+gzip"
    if head == b"\x28\xb5\x2f\xfd":
        return "application/vnd.oci.image.layer.v1.tar+zstd"
    return "application/vnd.oci.image.layer.v1.tar"


@asynccontextmanager
async def spooled(stream: AsyncIterator[bytes], folder: Path, limit: int) -> AsyncIterator[Path]:
    """`stream` as a file in `folder`, gone afterwards; a gzipped stream is unpacked on the way. Raises TooLarge, DiskFull."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    handle, name = await asyncio.to_thread(tempfile.mkstemp, dir=folder, prefix="import-", suffix=".tar")
    path = Path(name)
    try:
        try:
            await _spool(stream, handle, limit)
        finally:
            os.close(handle)
        yield path
    except OSError as error:
        raise DiskFull(f"cannot keep the archive in {folder}: {error.strerror or error}; make room there") from None
    finally:
        os.unlink(name)


async def _spool(stream: AsyncIterator[bytes], handle: int, limit: int) -> None:
    total = 0
    unzip: Any = None
    first = True
    async for chunk in stream:
        if first and chunk:
            first = False
            unzip = zlib.decompressobj(31) if chunk[:2] == b"\x1f\x8b" else None
        while chunk:
            try:
                data = unzip.decompress(chunk, CHUNK) if unzip else chunk
            except zlib.error as error:
                raise BadImage(f"the archive is gzipped and damaged: {error}") from None
            chunk = unzip.unconsumed_tail if unzip else b""
            total += len(data)
            if total > limit:
                raise TooLarge(f"the archive has more than {limit} bytes, and no more are allowed")
            await asyncio.to_thread(_write_all, handle, data)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _decode(kind: type[T], data: bytes) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadImage(f"manifest.json in the archive cannot be read: {error}") from None
