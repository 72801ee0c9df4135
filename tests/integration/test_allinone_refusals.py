"""What `ebb up` refuses before it starts anything: each says what, the value, the cure."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_allinone import Engine

pytestmark = pytest.mark.real


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 1 MiB."""
    where = tmp_path_factory.mktemp("small") / "disk"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)], check=True, timeout=20)
    yield where
    subprocess.run(["umount", str(where)], check=True, timeout=20)


def refused(engine: Engine, *more: str) -> str:
    done = engine.ebb("up", "-d", *engine.flags, *more)
    assert done.returncode == 1, done.stdout + done.stderr
    assert engine.left() == []
    return done.stderr


def test_a_port_in_use_is_named_with_who_has_it(engine: Engine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", engine.base + 16))
        other.listen()
        said = refused(engine)
    assert f"port {engine.base + 16} (--http {engine.front}) cannot be had: in use by python" in said
    assert "ebb up --http" in said


def test_a_root_that_cannot_be_written_is_refused(engine: Engine) -> None:
    said = refused(engine, "--root", "/sys/ebb-test")
    assert "--root /sys/ebb-test cannot be written" in said
    assert "choose another with --root DIR" in said


def test_a_root_that_is_a_file_is_refused(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "cannot be written: File exists" in refused(engine, "--root", str(file))


def test_a_full_disk_is_refused(engine: Engine, small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(2**20 - 8192))
    assert f"--root {small_disk} is full" in refused(engine, "--root", str(small_disk))


def test_too_little_room_is_refused_with_how_much_is_needed(engine: Engine, small_disk: Path) -> None:
    assert "at least 256 MiB are needed" in refused(engine, "--root", str(small_disk))


def test_a_missing_program_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = engine.ebb("up", *engine.flags)
    assert done.returncode == 1
    # /usr/sbin and /sbin are always looked into: only what lives elsewhere is missed
    assert "not installed: etcd, containerd" in done.stderr
    assert "sudo deploy/install" in done.stderr


def test_bad_usage_exits_with_2_and_names_every_flag(engine: Engine) -> None:
    done = engine.ebb("up", "--http", "x", "--id", "WRONG", "--port-base", "1")
    assert done.returncode == 2
    for flag in ("--http x", "--id WRONG", "--port-base 1"):
        assert flag in done.stderr
