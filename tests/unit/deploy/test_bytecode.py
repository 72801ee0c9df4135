"""What is compiled ahead for processes that could not keep it."""

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from deploy import bytecode, components
from deploy.settings import Engine

PACKAGE = bytecode.PACKAGES[0]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a package that is compiled."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    made = tmp_path / PACKAGE / "inner" / "a.py"
    made.parent.mkdir(parents=True)
    for package in (made.parent, made.parent.parent):
        (package / "__init__.py").touch()
    made.write_text("A = 1\n")
    return made


def test_what_is_compiled_is_loaded_by_who_can_write_nothing(module: Path, tmp_path: Path) -> None:
    bytecode.compile(tmp_path)
    assert Path(cache_from_source(str(module))).exists()
    argv = [sys.executable, "-B", "-v", "-c", f"import {PACKAGE}.inner.a"]
    said = subprocess.run(
        argv, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    ).stderr
    assert f"{cache_from_source(str(module))} matches {module}" in said


def test_what_changed_is_compiled_anew_and_nothing_else(module: Path, tmp_path: Path) -> None:
    other = module.with_name("b.py")
    other.write_text("B = 1\n")
    bytecode.compile(tmp_path)
    kept = [Path(cache_from_source(str(path))) for path in (module, other)]
    for path in kept:
        os.utime(path, (1, 1))
    os.utime(module, (2, 2))
    bytecode.compile(tmp_path)
    assert [path.stat().st_mtime == 1 for path in kept] == [False, True]


def test_nothing_is_compiled_where_nothing_shall_be_kept(module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    bytecode.compile(tmp_path)
    assert list(tmp_path.rglob("*.pyc")) == []


def test_what_cannot_be_compiled_or_kept_does_not_keep_an_engine_from_starting(module: Path, tmp_path: Path) -> None:
    module.with_name("b.py").write_text("this is no Python\n")
    later = tmp_path / bytecode.PACKAGES[-1] / "c.py"
    later.parent.mkdir()
    later.write_text("C = 1\n")
    (module.parent / "__pycache__").write_text("a file in the directory's place")
    bytecode.compile(tmp_path)
    assert Path(cache_from_source(str(later))).exists(), "the other packages are compiled all the same"


def test_all_that_runs_as_a_user_of_its_own_is_compiled(tmp_path: Path) -> None:
    specs = components.specs(Engine(root=str(tmp_path), run=str(tmp_path)), tmp_path / "containerd.toml")
    ours = {spec.argv[spec.argv.index("-m") + 1].partition(".")[0] for spec in specs if spec.user and "-m" in spec.argv}
    assert {"registry", "autoscaler", "ingress"} <= ours
    assert ours <= set(bytecode.PACKAGES)
