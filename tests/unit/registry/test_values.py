"""Secrets and ConfigMaps: what is refused and how, what is stored, what is shown. No message ever holds a value."""

import base64
from pathlib import Path
from typing import Any

import pytest

from registry import values
from registry.objects import CONFIG_MAP, SECRET
from store.model import Values as Stored
from store.model import decode, encode
from store.seal import Keyring, add_key

CANARY = "canary-19c4"
META = {"name": "db", "namespace": "default", "uid": "u", "creationTimestamp": "t0"}
DOCKER = "kubernetes.io/dockerconfigjson"


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    add_key(tmp_path / "k")
    return Keyring(tmp_path / "k")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, **more}


def test_string_data_is_taken_over_data_and_given_back_as_base64(ring: Keyring) -> None:
    body = secret(data={"a": b64("old"), "b": b64("kept")}, stringData={"a": CANARY})
    assert values.validate(SECRET, body) == []
    seen = values.whole(SECRET, values.stored(SECRET, body, META, ring), ring)
    assert seen["data"] == {"a": b64(CANARY), "b": b64("kept")}
    assert seen["type"] == "Opaque"
    assert "stringData" not in seen


def test_what_is_stored_and_listed_of_a_secret_shows_no_value_also_not_in_kubectls_annotation(ring: Keyring) -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"data":"' + CANARY + '"}', "team": "blue"}
    body = secret(stringData={"a": CANARY}, metadata={"name": "db", "annotations": applied})
    stored = values.stored(SECRET, body, META, ring)
    bytes_ = encode(stored)
    assert CANARY.encode() not in bytes_
    assert b64(CANARY).encode() not in bytes_
    listed = values.listed(SECRET, decode(Stored, bytes_))
    assert "data" not in listed
    assert listed["metadata"]["annotations"] == {"team": "blue", "ebb.dev/keys": "a"}
    assert values.whole(SECRET, decode(Stored, bytes_), ring)["metadata"]["annotations"] == applied


def test_a_config_map_keeps_text_and_binary(ring: Keyring) -> None:
    body = {"metadata": {"name": "c"}, "data": {"a": "1", "empty": ""}, "binaryData": {"z": "AAE="}}
    assert values.validate(CONFIG_MAP, body) == []
    stored = decode(Stored, encode(values.stored(CONFIG_MAP, body, META, None)))
    seen = values.whole(CONFIG_MAP, stored, None)
    assert (seen["data"], seen["binaryData"]) == (body["data"], body["binaryData"])


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (secret(data={"a": CANARY}), "data[a]"),
        (secret(stringData={"a": [CANARY]}), "stringData[a]"),
        (secret(data=[CANARY]), "data"),
        (secret(stringData={"a/b": CANARY}), "stringData[a/b]"),
        (secret(stringData={"a": CANARY * 7000}), "data[a]"),
        (secret(stringData={str(n): CANARY + "x" * 60_000 for n in range(5)}), "data"),
        (secret(type=DOCKER, stringData={".dockerconfigjson": CANARY}), "data[.dockerconfigjson]"),
        (secret(type="kubernetes.io/tls", stringData={"tls.crt": CANARY, "tls.key": CANARY}), "data"),
        (secret(type="kubernetes.io/basic-auth", stringData={"password": CANARY}), "type"),
        (secret(stringDate={"a": CANARY}), "stringDate"),
        (secret(metadata={"name": "Not_A_Name"}, stringData={"a": CANARY}), "metadata.name"),
        (secret(metadata={}, stringData={"a": CANARY}), "metadata.name"),
        ([CANARY], ""),
    ],
)
def test_what_is_wrong_is_named_without_the_value(body: Any, path: str) -> None:
    problems = values.validate(SECRET, body)
    assert path in [problem.path for problem in problems]
    assert CANARY not in str(problems)


def test_what_is_immutable_stays_and_a_type_never_changes() -> None:
    old = secret(type="Opaque", data={"a": b64("1")}, immutable=True)
    assert [p.path for p in values.changed(SECRET, old, secret(data={"a": b64("2")}, immutable=True))] == ["data"]
    assert values.changed(SECRET, old, {**old, "metadata": {"name": "db", "labels": {"a": "b"}}}) == []
    assert [p.path for p in values.changed(SECRET, old, {**old, "type": DOCKER})] == ["type"]


def test_a_secret_is_sealed_anew_with_the_newest_key(ring: Keyring) -> None:
    stored = values.stored(SECRET, secret(stringData={"a": CANARY}), META, ring)
    newest = ring.add()
    again = values.resealed(stored, ring)
    assert f".{newest}." in again.sealed
    assert values.whole(SECRET, again, ring) == values.whole(SECRET, stored, ring)
