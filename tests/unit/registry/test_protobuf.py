"""Kubernetes' protobuf bodies: read as the JSON they stand for; anything else is a 400 and shows nothing."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.api import protobuf
from registry.api.problems import ApiError


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def wrapped(kind: bytes, raw: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, b"v1") + field(2, kind)) + field(2, raw) + field(3, b"") + field(4, b"")


def test_a_secret_is_read() -> None:
    meta = field(1, b"db") + field(8, b"") + field(11, field(1, b"team") + field(2, b"blue"))
    raw = field(1, meta) + field(2, field(1, b"a") + field(2, b"\0\1")) + field(3, b"Opaque") + field(5, 1)
    assert protobuf.parse(wrapped(b"Secret", raw)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "labels": {"team": "blue"}},
        "data": {"a": "AAE="},
        "type": "Opaque",
        "immutable": True,
    }


def test_an_empty_value_of_a_config_map_is_kept() -> None:
    body = protobuf.parse(wrapped(b"ConfigMap", field(2, field(1, b"a")) + field(3, field(1, b"b") + field(2, b"x"))))
    assert (body["data"], body["binaryData"]) == ({"a": ""}, {"b": "eA=="})


@given(st.binary(max_size=64))
def test_any_bytes_are_an_object_or_a_400(data: bytes) -> None:
    for whole in (data, b"k8s\0" + data, wrapped(b"Secret", data)):
        with contextlib.suppress(ApiError):
            assert isinstance(protobuf.parse(whole), dict)


def test_the_refusal_shows_nothing_of_the_body() -> None:
    with pytest.raises(ApiError) as refused:
        protobuf.parse(wrapped(b"Secret", field(4, field(1, b"canary\xff"))))
    assert "canary" not in refused.value.message
