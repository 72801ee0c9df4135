"""Secrets at rest: what is sealed opens with its key, for its name, unchanged, and else not at all."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.seal import Keyring, SealError, add_key, key_of

CANARY = b"canary-7f3a"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "secrets.key"
    add_key(path)
    return path


def test_what_was_sealed_opens_and_does_not_show(file: Path) -> None:
    ring = Keyring(file)
    sealed = ring.seal(CANARY, bound_to="default/db")
    assert ring.open(sealed, bound_to="default/db") == CANARY
    assert CANARY.decode() not in sealed
    assert CANARY not in base64.b64decode(sealed.rpartition(".")[2])
    assert ring.seal(CANARY, bound_to="default/db") != sealed


@pytest.mark.parametrize("other", ["other/db", "default/db2", ""])
def test_it_opens_for_no_other_name(file: Path, other: str) -> None:
    ring = Keyring(file)
    with pytest.raises(SealError, match="not for"):
        ring.open(ring.seal(CANARY, bound_to="default/db"), bound_to=other)


def test_a_key_file_is_the_owners_alone(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for mode in (0o604, 0o660, *([0o640] if os.geteuid() else [])):
        os.chmod(file, mode)
        with pytest.raises(SealError, match="chmod 600"):
            Keyring(file).seal(b"x", bound_to="p/n")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of others")
def test_a_group_reads_only_what_it_cannot_change(file: Path) -> None:
    os.chown(file, 0, 4711)
    os.chmod(file, 0o640)
    assert Keyring(file).newest
    os.chown(file, 4711, 4711)
    with pytest.raises(SealError, match="chmod 600"):
        Keyring(file).seal(b"x", bound_to="p/n")


def test_the_newest_key_seals_and_all_open_without_a_restart(file: Path) -> None:
    ring = Keyring(file)
    old = ring.seal(CANARY, bound_to="p/n")
    added = add_key(file)
    assert ring.newest == added
    new = ring.seal(CANARY, bound_to="p/n")
    assert key_of(new) == added != key_of(old)
    assert ring.open(old, bound_to="p/n") == ring.open(new, bound_to="p/n") == CANARY


def test_a_key_that_is_gone_is_named(file: Path) -> None:
    sealed = Keyring(file).seal(CANARY, bound_to="p/n")
    file.unlink()
    add_key(file)
    with pytest.raises(SealError, match=f"{key_of(sealed)!r}, which"):
        Keyring(file).open(sealed, bound_to="p/n")


def test_a_key_retires_when_nothing_needs_it_and_the_newest_never_does(file: Path) -> None:
    file.write_text("# made by hand\n\n" + file.read_text())
    ring = Keyring(file)
    old = ring.seal(CANARY, bound_to="p/n")
    middle, newest = add_key(file), add_key(file)
    assert ring.retire({key_of(old)}) == [middle]
    assert ring.open(old, bound_to="p/n") == CANARY
    assert ring.retire(()) == [key_of(old)]
    assert ring.newest == newest
    assert file.read_text().startswith("# made by hand\n\n" + newest)
    assert file.stat().st_mode & 0o777 == 0o600
    assert ring.retire(()) == []
    with pytest.raises(SealError, match="which"):
        ring.open(old, bound_to="p/n")


@pytest.mark.parametrize("text", ["", "# none\n", "a b c\n", "a !!!\n", "A " + "A" * 44 + "\n", "a c2hvcnQ=\n"])
def test_a_file_that_is_no_key_file_is_refused_without_showing_it(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(SealError) as refused:
        Keyring(file).seal(b"x", bound_to="p/n")
    assert "c2hvcnQ" not in str(refused.value)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_anywhere_is_noticed(tmp_path_factory: pytest.TempPathFactory, at: int, flip: int) -> None:
    path = tmp_path_factory.getbasetemp() / "seal-property.key"
    if not path.exists():
        add_key(path)
    ring = Keyring(path)
    sealed = ring.seal(CANARY, bound_to="p/n")
    head, _, body = sealed.rpartition(".")
    data = bytearray(base64.b64decode(body))
    data[at % len(data)] ^= flip
    with pytest.raises(SealError):
        ring.open(f"{head}.{base64.b64encode(data).decode()}", bound_to="p/n")
