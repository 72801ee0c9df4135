"""How a created container is let go: at the pipe at which crun's process waits."""

import os
from pathlib import Path

from nodeagent import waiting


def created(where: Path) -> int:
    """A container's directory as crun makes it; the descriptor at which its process waits."""
    where.mkdir(parents=True)
    (where / "status").write_text("{}")
    os.mkfifo(where / "exec.fifo")
    return os.open(where / "exec.fifo", os.O_RDONLY | os.O_NONBLOCK)


def test_who_waits_reads_one_byte_and_has_gone_then(tmp_path: Path) -> None:
    waits = created(tmp_path / "a")
    assert not waiting.has_gone(tmp_path / "a")
    assert waiting.let_go(tmp_path / "a")
    assert os.read(waits, 8) == b"1"
    assert waiting.has_gone(tmp_path / "a")
    os.close(waits)


def test_nobody_is_let_go_twice(tmp_path: Path) -> None:
    waits = created(tmp_path / "a")
    assert waiting.let_go(tmp_path / "a")
    assert not waiting.let_go(tmp_path / "a")
    os.close(waits)


def test_where_nobody_waits_nothing_happens(tmp_path: Path) -> None:
    os.close(created(tmp_path / "a"))
    assert not waiting.let_go(tmp_path / "a"), "its process ended"
    assert (tmp_path / "a" / "exec.fifo").exists()
    assert not waiting.let_go(tmp_path / "b")
    assert not waiting.has_gone(tmp_path / "b"), "what is not known has not gone"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    waits = created(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "exec.fifo").symlink_to(tmp_path / "a" / "exec.fifo")
    assert not waiting.let_go(tmp_path / "b")
    os.close(waits)


def test_a_containerd_of_the_engines_own_keeps_its_state_beside_its_socket(tmp_path: Path) -> None:
    assert waiting.state(str(tmp_path / "containerd.sock")) == waiting.STATE
    (tmp_path / "shims").mkdir()
    assert waiting.state(str(tmp_path / "containerd.sock")) == tmp_path / "shims" / "runc"
