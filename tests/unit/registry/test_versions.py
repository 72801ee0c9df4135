"""Which Secrets are versions of which."""

import pytest

from registry.versions import number, versions
from store.model import Values


def secret(name: str, *, immutable: bool = True) -> Values:
    meta = {"name": name, "namespace": "p", "creationTimestamp": "2026-11-26T00:00:00Z"}
    return Values(metadata=meta, immutable=immutable, type="Opaque", names=["password"], sealed="1.k.secret")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("db-v1", 1), ("db-v10", 10), ("db", 0), ("db-v0", 0), ("db-v01", 0), ("db-v", 0), ("db-v1x", 0), ("db-v-1", 0),
        ("db2-v1", 0), ("x-db-v1", 0), ("db-v\u0661", 0), ("db-v1\n", 0), ("db-v9999999999", 0),
    ],
)  # fmt: skip
def test_a_version_is_called_after_its_secret(name: str, expected: int) -> None:
    assert number("db", name) == expected


def test_the_latest_comes_first_by_number_and_what_can_change_is_no_version() -> None:
    names = ["db", "db-v9", "db-v10", "db-v2"]
    found = versions("db", [*map(secret, names), secret("db-v11", immutable=False)])
    assert [(each["number"], each["state"]) for each in found] == [(10, "latest"), (9, "earlier"), (2, "earlier")]
    assert versions("db", [secret("db")]) == []


def test_a_version_is_told_by_its_keys_and_never_by_what_it_holds() -> None:
    [found] = versions("db", [secret("db-v3")])
    assert found == {
        "number": 3, "secret": "db-v3", "createdAt": "2026-11-26T00:00:00Z", "keys": ["password"], "state": "latest",
    }  # fmt: skip
