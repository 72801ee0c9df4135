"""How the model is written: JSON on the wire, with the schema's version in `v`. A reader ignores fields it does not know; a writer that
updates what it read passes the old bytes to `encode(over=…)`, so that a newer version's fields survive an older writer.
"""

from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound="Model")

V1: int = msgspec.field(default_factory=lambda: 1)
"""Schema version 1. A factory, so that it is written although defaults are omitted."""


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored or sent."""


_encoder = msgspec.json.Encoder()
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}
_known: dict[type[Any], frozenset[str]] = {}
"""The names of a model's fields; finding them takes longer than the rest of `encode`."""


def decode(kind: type[T], data: bytes) -> T:
    """The model in `data`; unknown fields are ignored. Raises msgspec.ValidationError when it is not a `kind`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder.decode(data)  # type: ignore[no-any-return]


def encode(value: Model, over: bytes | None = None) -> bytes:
    """`value` as JSON. `over` is what it was read from: fields that this version does not know are carried along."""
    if over is None:
        return _encoder.encode(value)
    old = msgspec.json.decode(over)
    kind = type(value)
    known = _known.get(kind)
    if known is None:
        known = _known[kind] = frozenset(f.encode_name for f in msgspec.structs.fields(kind))
    unknown = {name: field for name, field in old.items() if name not in known}
    return _encoder.encode({**unknown, **msgspec.to_builtins(value)})
