"""Kubernetes' protobuf bodies, which kubectl sends for the kinds it has built in, as the JSON they stand for. Pure.

Only Secrets and ConfigMaps come this way. Fields by number, as published in k8s.io/api/core/v1/generated.proto.
"""

import base64
from collections.abc import Iterator
from typing import Any

from registry.api.problems import bad_request

MEDIA = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_META = {1: "name", 2: "generateName", 3: "namespace", 5: "uid", 6: "resourceVersion"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse(data: bytes) -> dict[str, Any]:
    """The object in `data`. Raises ApiError 400."""
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("it does not begin with k8s and a zero")
        unknown = dict(_fields(data[len(_MAGIC) :]))
        named = {number: value.decode() for number, value in _fields(_message(unknown.get(1, b""))) if isinstance(value, bytes)}
        raw = _message(unknown.get(2, b""))
        body: dict[str, Any] = {"apiVersion": named.get(1, ""), "kind": named.get(2, "")}
        return {**body, **(_secret(raw) if body["kind"] == "Secret" else _config_map(raw))}
    except (ValueError, IndexError) as error:
        why = str(error) if not isinstance(error, UnicodeDecodeError) else "a text is not UTF-8"
        raise bad_request(f"the body is not Kubernetes' protobuf: {why}; send JSON") from None


def _secret(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {}}
    for number, value in _fields(raw):
        match number:
            case 1:
                found["metadata"] = _metadata(_message(value))
            case 2:
                _entry(found.setdefault("data", {}), value, binary=True)
            case 3:
                found["type"] = _message(value).decode()
            case 4:
                _entry(found.setdefault("stringData", {}), value)
            case 5:
                found["immutable"] = bool(value)
    return found


def _config_map(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {}}
    for number, value in _fields(raw):
        match number:
            case 1:
                found["metadata"] = _metadata(_message(value))
            case 2:
                _entry(found.setdefault("data", {}), value)
            case 3:
                _entry(found.setdefault("binaryData", {}), value, binary=True)
            case 4:
                found["immutable"] = bool(value)
    return found


def _metadata(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(raw):
        if number in _META:
            found[_META[number]] = _message(value).decode()
        elif number in (11, 12):
            _entry(found.setdefault("labels" if number == 11 else "annotations", {}), value)
        elif number == 14:
            found.setdefault("finalizers", []).append(_message(value).decode())
    return {name: value for name, value in found.items() if value}


def _entry(into: dict[str, str], value: bytes | int, *, binary: bool = False) -> None:
    """One entry of a map: its key is field 1, its value field 2; either may be left out when it is empty."""
    pair = dict(_fields(_message(value)))
    key, item = _message(pair.get(1, b"")).decode(), _message(pair.get(2, b""))
    into[key] = base64.b64encode(item).decode() if binary else item.decode()


def _message(value: bytes | int) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a field has another type than it should have")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of each field on the wire."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("it ends too early")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
