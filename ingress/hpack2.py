"""Header compression of HTTP/2 (RFC 7541), one direction of one connection. Pure.

What repeats costs least: a field that stands in a table is one byte out and one look-up in, and a whole block that only names what
stands in the tables is remembered until they change. Strings go out plain; those that come in huffman-coded are read by `hpack`.
"""

from collections import deque
from collections.abc import Sequence

from hpack import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

ENTRY_BYTES = 32
"""What an entry of a table counts for beyond its name and value (RFC 7541 §4.1)."""
INTEGER_BYTES = 5
"""More continuation bytes than that are no size that anybody may send."""
BLOCKS_MOST = 16
HEADS_MOST = 16
_STATIC: tuple[Field, ...] = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
_FIRST_DYNAMIC = len(_STATIC) + 1
_STATIC_FIELDS: dict[Field, bytes] = {field: bytes((0x80 | place,)) for place, field in enumerate(_STATIC, 1) if field[1]}
_STATIC_NAMES: dict[bytes, int] = {name: place for place, (name, _) in reversed(list(enumerate(_STATIC, 1)))}


class BadBlock(Exception):
    """Not HPACK, or not with the tables that we share with the peer: the connection cannot go on (COMPRESSION_ERROR)."""


class BigHead(Exception):
    """The fields of one block are above the bound."""


class _Table:
    """The dynamic table: newest first, oldest out."""

    __slots__ = ("bytes", "fields", "most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self.fields: deque[Field] = deque()
        self.bytes = 0
        self.most_bytes = most_bytes

    def add(self, field: Field) -> list[Field]:
        """Take `field` in; those that went for it. One that is larger than the table empties it (RFC 7541 §4.4)."""
        self.fields.appendleft(field)
        self.bytes += len(field[0]) + len(field[1]) + ENTRY_BYTES
        return self.resize(self.most_bytes) if self.bytes > self.most_bytes else []

    def resize(self, most_bytes: int) -> list[Field]:
        """Hold no more than that; those that went."""
        self.most_bytes = most_bytes
        gone: list[Field] = []
        while self.bytes > most_bytes:
            gone.append(self.fields.pop())
            self.bytes -= len(gone[-1][0]) + len(gone[-1][1]) + ENTRY_BYTES
        return gone


class Decoder:
    """Blocks that come in. `table_bytes` is what we told the peer, `most_bytes` bounds the fields of one block."""

    __slots__ = ("_blocks", "_most_bytes", "_table", "_table_bytes")

    def __init__(self, table_bytes: int, most_bytes: int) -> None:
        self._table = _Table(table_bytes)
        self._table_bytes = table_bytes
        self._most_bytes = most_bytes
        self._blocks: dict[bytes, list[Field]] = {}

    def decode(self, block: bytes) -> list[Field]:
        """The fields of one whole block, which is not to be changed by who gets it. Raises BadBlock, BigHead."""
        known = self._blocks.get(block)
        if known is not None:
            return known
        fields: list[Field] = []
        at, size, changed, total = 0, len(block), False, 0
        try:
            while at < size:
                first = block[at]
                if first & 0x80:
                    place, at = _integer(block, at, 0x7F)
                    field = self._at(place)
                elif first & 0x40 or not first & 0x20:
                    place, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
                    if place:
                        name = self._at(place)[0]
                    else:
                        name, at = _string(block, at)
                    value, at = _string(block, at)
                    field = name, value
                    if first & 0x40:
                        self._table.add(field)
                        changed = True
                else:
                    at = self._resize(block, at, fields)
                    changed = True
                    continue
                fields.append(field)
                total += len(field[0]) + len(field[1]) + ENTRY_BYTES
                if total > self._most_bytes:
                    raise BigHead(f"a head above {self._most_bytes} bytes")
        except IndexError:
            raise BadBlock("the block ends within a field") from None
        if changed:
            self._blocks.clear()
        elif len(self._blocks) < BLOCKS_MOST:
            self._blocks[block] = fields
        return fields

    def _at(self, place: int) -> Field:
        if place < _FIRST_DYNAMIC:
            if not place:
                raise BadBlock("index 0")
            return _STATIC[place - 1]
        place -= _FIRST_DYNAMIC
        if place >= len(self._table.fields):
            raise BadBlock("an index beyond both tables")
        return self._table.fields[place]

    def _resize(self, block: bytes, at: int, before: list[Field]) -> int:
        size, at = _integer(block, at, 0x1F)
        if before or size > self._table_bytes:
            raise BadBlock("the table's size changes within a block" if before else f"a table of {size} bytes")
        self._table.resize(size)
        return at


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """(value, where it ends) of the integer whose first byte has it under `mask` (RFC 7541 §5.1)."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * INTEGER_BYTES, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise BadBlock("an integer without an end")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    size, at = _integer(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise BadBlock("a string longer than its block")
    text = block[at:end]
    if coded:
        try:
            text = decode_huffman(text)
        except HPACKError as error:
            raise BadBlock(f"not huffman-coded: {error}") from None
    return text, end


class Encoder:
    """Blocks that go out. Fields of a name in `never` get into no table, here or further on (RFC 7541 §6.2.3)."""

    __slots__ = ("_born", "_known", "_never", "_places", "_said_bytes", "_table")

    def __init__(self, table_bytes: int, never: frozenset[bytes]) -> None:
        self._table = _Table(table_bytes)
        self._never = never
        self._places: dict[Field, int] = {}
        """Field in the table → how many had been taken in with it."""
        self._born = 0
        self._said_bytes: list[int] = []
        self._known: dict[int, tuple[Sequence[Field], bytes]] = {}
        """By id, heads that named only what the table had: each is the same block as long as nothing is taken in."""

    def resize(self, table_bytes: int) -> None:
        """The peer keeps a table of so many bytes from now on."""
        if table_bytes != self._table.most_bytes:
            self._known.clear()
            for gone in self._table.resize(table_bytes):
                del self._places[gone]
            self._said_bytes.append(table_bytes)

    def encode(self, head: Sequence[Field]) -> bytes:
        """`head`, which is not changed later, as one block."""
        known = self._known.get(id(head))
        if known is not None:
            return known[1]
        out: list[bytes] = []
        if self._said_bytes:
            # The smallest of the sizes in between, then the last (RFC 7541 §4.2).
            for size in dict.fromkeys((min(self._said_bytes), self._said_bytes[-1])):
                out.append(_number(size, 0x1F, 0x20))
            self._said_bytes = []
        said = bool(out)
        places, never, born = self._places, self._never, self._born
        for field in head:
            static = _STATIC_FIELDS.get(field)
            if static is not None:
                out.append(static)
                continue
            place = places.get(field)
            if place is not None:
                place = self._born - place + _FIRST_DYNAMIC
                out.append(bytes((0x80 | place,)) if place < 0x7F else _number(place, 0x7F, 0x80))
                continue
            name, value = field
            if name in never:
                out.append(_named(name, 0x0F, 0x10) + _text(value))
            elif 2 * (len(name) + len(value) + ENTRY_BYTES) > self._table.most_bytes:
                out.append(_named(name, 0x0F, 0x00) + _text(value))
            else:
                out.append(_named(name, 0x3F, 0x40) + _text(value))
                self._born += 1
                places[field] = self._born
                for gone in self._table.add(field):
                    del places[gone]
        block = b"".join(out)
        if born != self._born:
            self._known.clear()
        elif not said:
            if len(self._known) >= HEADS_MOST:
                self._known.clear()
            self._known[id(head)] = head, block
        return block


def _number(value: int, mask: int, pattern: int) -> bytes:
    """`value` under `mask` in a first byte that begins with `pattern`, and what of it has no room there (RFC 7541 §5.1)."""
    if value < mask:
        return bytes((pattern | value,))
    out = bytearray((pattern | mask,))
    value -= mask
    while value > 0x7F:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def _named(name: bytes, mask: int, pattern: int) -> bytes:
    place = _STATIC_NAMES.get(name)
    return _number(place, mask, pattern) if place is not None else bytes((pattern,)) + _text(name)


def _text(text: bytes) -> bytes:
    return (bytes((len(text),)) if len(text) < 0x7F else _number(len(text), 0x7F, 0x00)) + text
