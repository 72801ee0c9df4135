"""What containerd runs instead of the shim's program answers what is known, and leaves everything else to it."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.joining import SHIM, Joining

DELETED = b"\x10\x89\x01\x1a\x02\x08\x01"
"""A DeleteResponse: exit_status 137, exited_at 1 s."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With a shim's program that answers the address of a socket that is there, and notes what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bundle").mkdir()
    program = tmp_path / "bin" / SHIM
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ -e {tmp_path}/broken ] && exit 1\nprintf unix://{tmp_path}/s\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        yield tmp_path


def ask(home: Path, program: str, instance: str, action: str) -> subprocess.CompletedProcess[bytes]:
    argv = [program, "-namespace", "ebb", "-address", "/c.sock", "-publish-binary", "/containerd", "-id", instance, action]
    return subprocess.run(argv, cwd=home / "bundle", capture_output=True, check=False)


def asked(home: Path) -> int:
    return len((home / "asked").read_text().splitlines()) if (home / "asked").exists() else 0


def joining(home: Path) -> Joining:
    for name in ("first", "second"):
        (home / "instances" / name).mkdir(parents=True)
    return Joining(home, home / "instances", home / "hidden")


def test_the_first_of_a_shim_is_told_its_address_by_the_program(home: Path) -> None:
    program = joining(home).program()
    assert ask(home, program, "first", "start").stdout == f"unix://{home}/s".encode()
    assert asked(home) == 1


def test_who_joins_is_told_the_address_without_the_program(home: Path) -> None:
    made = joining(home)
    program = made.program()
    ask(home, program, "first", "start")
    made.join("second", "first")
    assert ask(home, program, "second", "start").stdout == f"unix://{home}/s".encode()
    assert (home / "bundle" / "address").read_text() == f"unix://{home}/s"  # what containerd reads after a restart
    assert asked(home) == 1


def test_when_the_socket_is_gone_the_program_is_asked(home: Path) -> None:
    made = joining(home)
    program = made.program()
    ask(home, program, "first", "start")
    made.join("second", "first")
    (home / "s").unlink()
    ask(home, program, "second", "start")
    assert asked(home) == 2


def test_an_address_that_was_forgotten_is_asked_for_again(home: Path) -> None:
    made = joining(home)
    program = made.program()
    ask(home, program, "first", "start")
    made.forget("first")
    made.join("second", "first")
    ask(home, program, "second", "start")
    assert asked(home) == 2


def test_a_program_that_fails_is_not_believed(home: Path) -> None:
    program = joining(home).program()
    (home / "broken").touch()
    assert ask(home, program, "first", "start").returncode == 1
    assert not (home / "instances" / "first" / "shim").exists()


def test_a_task_that_was_deleted_needs_no_program_to_clean_up(home: Path) -> None:
    assert ask(home, joining(home).program(), "first", "delete").stdout == DELETED
    assert asked(home) == 0


def test_a_node_without_the_shims_program_has_no_stand_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.joining.SHIM", "containerd-shim-none-v9")
    assert joining(home).program() == ""


def test_a_spec_that_is_hidden_is_what_the_runtime_reads_and_others_are_left_alone(home: Path) -> None:
    program, read = joining(home).program(), home / "bundle" / "config.json"
    read.write_text("without Secrets")
    ask(home, program, "first", "start")
    assert read.read_text() == "without Secrets"
    (home / "hidden" / "first").mkdir(parents=True)
    (home / "hidden" / "first" / "config.json").write_text("whole")
    ask(home, program, "first", "start")
    assert read.read_text() == "whole"
    assert read.is_symlink(), "the whole one stays in memory"
