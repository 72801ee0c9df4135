"""What manifests, indexes and image configs say, checked. Pure."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from nodeagent.images.errors import BadImage, TooLarge, WrongPlatform

T = TypeVar("T")

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
"""containerd keeps no other kind."""

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_CONFIG_BYTES = 8 * 2**20
MAX_LAYERS = 127
MAX_WORDS = 1_000
MAX_WORDS_BYTES = 256 * 1024
"""Of an image's variables, and of its command: what the kernel takes of both together, with room for the user's own."""

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
CONFIG_TYPES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
)
ACCEPT = ", ".join(INDEX_TYPES + MANIFEST_TYPES)


class Platform(msgspec.Struct, frozen=True):
    """What a machine is or an image is for, in the words of the image specification."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A blob by digest."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, rename="camel"):
    manifests: list[Descriptor]


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the image says about running it. `exposed` are ports like `80/tcp`; `env` keeps the image's order."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    config: ImageConfig
    platform: Platform
    diff_ids: tuple[str, ...]
    """Digests of the uncompressed layers, lowest first."""


class _Rootfs(msgspec.Struct):
    type: str = ""
    diff_ids: list[str] = []


class _Run(msgspec.Struct, rename="pascal"):
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    stop_signal: str | None = None


class _Config(msgspec.Struct):
    architecture: str
    os: str
    rootfs: _Rootfs
    variant: str = ""
    config: _Run | None = None


class _Typed(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: Any = None
    schema_version: int = 0


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse(data: bytes, media_type: str) -> Index | Manifest:
    """The index or manifest in `data`, checked. Raises BadImage, TooLarge.

    The document's own media type counts, then `media_type`, then its shape.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise TooLarge(f"manifest has {len(data)} bytes; at most {MAX_MANIFEST_BYTES} are allowed")
    head = _decode(_Typed, data, "manifest")
    kind = head.media_type or media_type.partition(";")[0].strip()
    if kind not in INDEX_TYPES + MANIFEST_TYPES:
        if head.schema_version != 2 or head.media_type:
            raise BadImage(f"manifest of type {kind!r}, schema version {head.schema_version}; want one of {ACCEPT}")
        kind = INDEX_TYPES[0] if head.manifests is not None else MANIFEST_TYPES[0]
    if kind in INDEX_TYPES:
        index = _decode(Index, data, "image index")
        for entry in index.manifests:
            _check(entry, "index entry")
        return index
    manifest = _decode(Manifest, data, "image manifest")
    _check_manifest(manifest)
    return manifest


def _check_manifest(manifest: Manifest) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise BadImage(
            f"config of type {manifest.config.media_type!r}: not a container image; want {' or '.join(CONFIG_TYPES)}"
        )
    _check(manifest.config, "config")
    if manifest.config.size > MAX_CONFIG_BYTES:
        raise TooLarge(f"image config has {manifest.config.size} bytes; at most {MAX_CONFIG_BYTES} are allowed")
    if len(manifest.layers) > MAX_LAYERS:
        raise TooLarge(f"image has {len(manifest.layers)} layers; at most {MAX_LAYERS} are allowed; squash some")
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise BadImage(f"layer of type {layer.media_type!r}; want a tar, plain or compressed by gzip or zstd")
        _check(layer, "layer")


def _check(descriptor: Descriptor, what: str) -> None:
    if not _DIGEST.fullmatch(descriptor.digest):
        raise BadImage(f"{what} has digest {descriptor.digest[:150]!r}; want sha256: and 64 lower-case hex digits")
    if descriptor.size < 0:
        raise BadImage(f"{what} {descriptor.digest} has size {descriptor.size}")


def choose(index: Index, here: Platform) -> Descriptor:
    """The entry of `index` for this machine. Raises WrongPlatform with what there is.

    Variants count up (`v6` < `v7`): the highest this machine can run wins, the first of equals.
    """
    best: Descriptor | None = None
    for entry in index.manifests:
        if entry.media_type not in MANIFEST_TYPES + INDEX_TYPES or entry.platform is None or not runs(entry.platform, here):
            continue
        if best is None or best.platform is None or _level(entry.platform) > _level(best.platform):
            best = entry
    if best is None and all(entry.platform is None for entry in index.manifests):
        best = next((entry for entry in index.manifests if entry.media_type in MANIFEST_TYPES + INDEX_TYPES), None)
    if best is None:
        has = ", ".join(sorted({str(entry.platform) for entry in index.manifests if entry.platform})) or "nothing"
        raise WrongPlatform(f"image is for {has}; this node is {here}; build it for {here}")
    return best


def runs(image: Platform, here: Platform) -> bool:
    """Whether a machine that is `here` runs an image for `image`."""
    return image.os == here.os and image.architecture == here.architecture and _level(image) <= _level(here)


_BASE_LEVEL = {"amd64": 1, "arm64": 8, "arm": 7}


def _level(platform: Platform) -> int:
    number = platform.variant.removeprefix("v")
    return int(number.partition(".")[0]) if number[:1].isdecimal() else _BASE_LEVEL.get(platform.architecture, 0)


def parse_config(data: bytes, here: Platform, layers: int) -> ParsedConfig:
    """The image config in `data`, for an image with `layers` layers. Raises BadImage, WrongPlatform."""
    raw = _decode(_Config, data, "image config")
    platform = Platform(raw.os, raw.architecture, raw.variant)
    if not runs(platform, here):
        raise WrongPlatform(f"image is for {platform}; this node is {here}; build it for {here}")
    if len(raw.rootfs.diff_ids) != layers:
        raise BadImage(f"image config names {len(raw.rootfs.diff_ids)} layers and the manifest {layers}; build it again")
    run = raw.config or _Run()
    for what, words in (("variables", run.env or []), ("words of command", [*(run.entrypoint or []), *(run.cmd or [])])):
        total = sum(len(word.encode("utf-8", "surrogatepass")) for word in words)
        if len(words) > MAX_WORDS or total > MAX_WORDS_BYTES:
            limit = f"{MAX_WORDS} and {MAX_WORDS_BYTES} bytes"
            raise TooLarge(f"image config has {len(words)} {what} of {total} bytes; at most {limit} are allowed")
    pairs = (item.partition("=") for item in run.env or ())
    return ParsedConfig(
        ImageConfig(
            entrypoint=tuple(run.entrypoint or ()),
            cmd=tuple(run.cmd or ()),
            env=tuple((name, value) for name, _, value in pairs if name),
            working_dir=run.working_dir or "",
            user=run.user or "",
            exposed=tuple(sorted(run.exposed_ports or ())),
            stop_signal=run.stop_signal or "",
        ),
        platform,
        tuple(raw.rootfs.diff_ids),
    )


def chain_ids(diff_ids: tuple[str, ...]) -> list[str]:
    """The name of each layer together with all below it, lowest first: what its snapshot is called."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def _decode(kind: type[T], data: bytes, what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadImage(f"{what} cannot be read: {error}") from None
