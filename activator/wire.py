"""What the workers of a front door say to each other, and how it looks on the wire: a length of four bytes, then MessagePack."""

from typing import Any

import msgspec

from store.model import RevisionKey

MOST_BYTES = 16 * 2**20


class _Word(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Hello(_Word, frozen=True):
    """The first on a connection: who speaks, and where he can be spoken to."""

    name: str
    machine: str
    address: str


class MyView(_Word, frozen=True):
    """Who I think is there. Whoever thinks the same answers with `Holding`, naming `token`."""

    token: int
    adoption: int
    members: tuple[str, ...]
    leaving: tuple[str, ...]


class Held(msgspec.Struct, frozen=True, array_like=True):
    """`slots` of one instance that its owner has lent."""

    revision: RevisionKey
    limit: int
    instance: str
    node: str
    address: str
    slots: int


class Holding(_Word, frozen=True):
    """All I hold of yours."""

    token: int
    held: tuple[Held, ...]


class Ask(_Word, frozen=True):
    """A request waits here since `age_s`: keep it a place in your line for `most_s`."""

    revision: RevisionKey
    limit: int
    number: int
    age_s: float
    most_s: float


class Cancel(_Word, frozen=True):
    """It waits no more."""

    revision: RevisionKey
    number: int


class Grant(_Word, frozen=True):
    """A slot for request `number`, yours until you return it; without `keep` return all of this revision as they come free."""

    number: int
    held: Held
    keep: bool


class Recall(_Word, frozen=True):
    """Somebody waits: return the slots of `revision` as they come free."""

    revision: RevisionKey


class Return(_Word, frozen=True):
    """Slots that you have lent me are yours again."""

    revision: RevisionKey
    instance: str
    slots: int


Word = Hello | MyView | Holding | Ask | Cancel | Grant | Recall | Return

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Word)


def pack(word: Word) -> bytes:
    data = _encoder.encode(word)
    return len(data).to_bytes(4, "big") + data


class Unpacker:
    """Bytes in, words out. `feed` raises ValueError (msgspec.DecodeError is one) on what no worker says."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Word]:
        data = self._rest + data if self._rest else data
        words: list[Word] = []
        at, end = 0, len(data)
        while end - at >= 4:
            length = int.from_bytes(data[at : at + 4], "big")
            if length > MOST_BYTES:
                raise ValueError(f"a word of {length} bytes; the limit is {MOST_BYTES}")
            if end - at - 4 < length:
                break
            words.append(_decoder.decode(data[at + 4 : at + 4 + length]))
            at += 4 + length
        self._rest = data[at:]
        return words
