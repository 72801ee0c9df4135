"""How much a layer would put on the disk, counted before anything is: its entries and their bytes, as a tar that is read once through.

A few kilobytes can unpack to terabytes (gzip, holes) or to millions of files. `Survey` is fed the layer's bytes as they are stored and
raises as soon as an image is more than its limits allow, or asks for what no image needs. Pure; it does not decide what is
extracted, containerd does.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import zstandard

from nodeagent.images.errors import BadImage, TooLarge

BLOCK = 512
MAX_EXTENSION_BYTES = 2**20
"""Of one header of names and attributes (pax, GNU)."""
MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
_PIECE = 2**20
_ZSTD_BITE = 256
_ZSTD_WINDOW = 2**27
_WHITEOUT = b".wh."


@dataclass(slots=True)
class Room:
    """What is left of an image's limits, over all layers that are unpacked for it."""

    bytes: int = 40 * 2**30
    entries: int = 1_000_000
    ratio: int = 200
    """Bytes unpacked for each byte stored, from `FREE_BYTES` on."""


FREE_BYTES = 2**30
"""A layer that unpacks to less may be as dense as it likes."""


@dataclass(slots=True)
class Survey:
    """Of one layer: `feed` it all its bytes, then `close`. Raises TooLarge, BadImage."""

    layer: str
    media_type: str
    room: Room
    stored: int = 0
    unpacked: int = 0
    entries: int = 0
    _unpacker: "_Gunzip | _Unzstd | None" = field(init=False)
    _tar: "_Tar" = field(init=False)

    def __post_init__(self) -> None:
        kind = self.media_type.rpartition(".tar")[2].lstrip(".+")
        self._unpacker = _Gunzip() if kind == "gzip" else _Unzstd() if kind == "zstd" else None
        self._tar = _Tar(self)

    def feed(self, data: bytes) -> None:
        self.stored += len(data)
        if self._unpacker is None:
            self._take(data)
            return
        try:
            for piece in self._unpacker.pieces(data):
                self._take(piece)
        except (zlib.error, zstandard.ZstdError) as error:
            raise BadImage(f"layer {self.layer} cannot be decompressed: {error}; build the image again") from None

    def close(self) -> None:
        """The layer has ended: what it used is taken from the room."""
        self.room.bytes -= self.unpacked
        self.room.entries -= self.entries

    def _take(self, data: bytes) -> None:
        self.unpacked += len(data)
        self._check()
        self._tar.feed(data)

    def add(self, hole_bytes: int) -> None:
        """One entry more, which takes so many bytes beyond those in the tar."""
        self.entries += 1
        self.unpacked += hole_bytes
        self._check()

    def _check(self) -> None:
        if self.unpacked > self.room.bytes:
            raise TooLarge(
                f"layer {self.layer} unpacks to more than {self.room.bytes} bytes, all that is left to the image here"
            )
        if self.entries > self.room.entries:
            raise TooLarge(f"layer {self.layer} has more than {self.room.entries} files, all that is left to the image here")
        if self.unpacked > FREE_BYTES and self.unpacked > self.room.ratio * self.stored:
            raise TooLarge(
                f"layer {self.layer} unpacks to over {self.room.ratio} times its {self.stored} bytes and over {FREE_BYTES} bytes: "
                "it looks like a bomb"
            )


class _Gunzip:
    """One gzip member after the other."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """`data` unpacked, never more than a piece at once in memory."""
        while data:
            if self._inner.eof:
                data = data.lstrip(b"\0")  # padding between members
                self._inner = zlib.decompressobj(31)
            yield self._inner.decompress(data, _PIECE)
            data = self._inner.unconsumed_tail or self._inner.unused_data


class _Unzstd:
    def __init__(self) -> None:
        opener = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._inner = opener.decompressobj(read_across_frames=True)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """`data` unpacked; four bytes can make 128 KiB, so the bites are small."""
        for at in range(0, len(data), _ZSTD_BITE):
            yield self._inner.decompress(data[at : at + _ZSTD_BITE])


class _Tar:
    """Walks the headers of a tar; contents are skipped."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._buffer = bytearray()
        self._skip = 0
        self._extension = b""
        """Type of the extension header whose content is being gathered, or none."""
        self._want = BLOCK
        self._long_name: bytes | None = None
        self._pax: dict[bytes, bytes] = {}
        self._ended = False

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._ended:
            if self._skip:
                step = min(self._skip, len(view))
                self._skip -= step
                view = view[step:]
                continue
            step = min(self._want - len(self._buffer), len(view))
            self._buffer += view[:step]
            view = view[step:]
            if len(self._buffer) == self._want:
                whole = bytes(self._buffer)
                self._buffer.clear()
                self._extended(whole) if self._extension else self._header(whole)

    def _header(self, block: bytes) -> None:
        if not block.strip(b"\0"):
            self._ended = True
            return
        if sum(block[:148]) + 8 * 32 + sum(block[156:]) != _number(block[148:156], self._survey.layer):
            raise BadImage(f"layer {self._survey.layer} is no tar: a header has a wrong checksum; build the image again")
        kind, size = block[156:157], _number(block[124:136], self._survey.layer)
        if kind in (b"x", b"L", b"K", b"g"):
            if size > MAX_EXTENSION_BYTES:
                raise BadImage(
                    f"layer {self._survey.layer}: a header of {size} bytes; at most {MAX_EXTENSION_BYTES} are allowed"
                )
            self._extension, self._want = kind, max(BLOCK, -(-size // BLOCK) * BLOCK)
            self._extension_bytes = size
            if not size:
                self._extension, self._want = b"", BLOCK
            return
        if b"size" in self._pax:
            size = _decimal(self._pax[b"size"], self._survey.layer)
        self._entry(block, kind, size)

    def _entry(self, block: bytes, kind: bytes, size: int) -> None:
        prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
        name = block[:100].partition(b"\0")[0]
        name = self._pax.get(b"path") or self._long_name or (prefix + b"/" + name if prefix else name)
        _check_name(name, self._survey.layer)
        real = _number(block[483:495], self._survey.layer) if kind == b"S" else 0
        for key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            real = max(real, _decimal(self._pax.get(key, b"0"), self._survey.layer))
        has_content = kind in (b"0", b"\0", b"7", b"S")
        # Links and directories have no content, whatever their size field says, as Go reads them.
        self._skip = -(-size // BLOCK) * BLOCK if has_content or kind not in b"123456" else 0
        if kind == b"S" and block[482:483] == b"\1":
            raise BadImage(
                f"layer {self._survey.layer}: {_shown(name)} has more holes than a header holds; build the image again"
            )
        self._survey.add(max(0, real - size))
        self._long_name, self._pax = None, {}

    def _extended(self, data: bytes) -> None:
        kind, content = self._extension, data[: self._extension_bytes]
        self._extension, self._want = b"", BLOCK
        if kind == b"L":
            self._long_name = content.partition(b"\0")[0]
        elif kind == b"x":
            self._pax = _records(content, self._survey.layer)


def _check_name(name: bytes, layer: str) -> None:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if len(name) > MAX_PATH_BYTES or any(len(part) > MAX_NAME_BYTES for part in parts):
        raise BadImage(f"layer {layer}: {_shown(name)} has over {MAX_PATH_BYTES} bytes, or {MAX_NAME_BYTES} between slashes")
    if b".." in parts:
        raise BadImage(f"layer {layer}: {_shown(name)} leads out of the image; build it again")
    if parts and parts[-1].startswith(_WHITEOUT) and parts[-1][len(_WHITEOUT) :] in (b"", b".", b".."):
        raise BadImage(f"layer {layer}: {_shown(name)} would take away what is not its own; build the image again")


def _records(data: bytes, layer: str) -> dict[bytes, bytes]:
    """Pax records: `<length> <key>=<value>\\n`, each."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        count = _decimal(length, layer) if space else 0
        record = data[at + len(length) + 1 : at + count]
        if count <= len(length) + 1 or not record.endswith(b"\n") or b"=" not in record:
            raise BadImage(f"layer {layer} has a header that cannot be read; build the image again")
        key, _, value = record[:-1].partition(b"=")
        found[key] = value
        at += count
    return found


def _number(field: bytes, layer: str) -> int:
    if field[:1] >= b"\x80":
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[:1] == b"\xff" or value >= 2**63:
            raise BadImage(f"layer {layer} has a header with an impossible size; build the image again")
        return value
    text = field.strip(b" \0") or b"0"
    if not all(48 <= byte < 56 for byte in text):
        raise BadImage(f"layer {layer} is no tar: {_shown(text)} where a number should be; build the image again")
    return int(text, 8)


def _decimal(text: bytes, layer: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadImage(f"layer {layer} has a header with {_shown(text)} for a number; build the image again")
    return int(text)


def _shown(name: bytes) -> str:
    return repr(name[:80].decode("utf-8", "replace"))
