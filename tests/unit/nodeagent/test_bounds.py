"""What all instances together may take of a machine."""

from pathlib import Path

import pytest

from nodeagent.bounds import Bounds, bounds, impose_all, impose_one, most_pids
from nodeagent.cgroups import Mode

GIB = 1 << 30


@pytest.mark.parametrize(("total", "left"), [(64 * GIB, 64 * GIB // 10), (2 * GIB, GIB // 2), (GIB // 2, GIB // 4)])
def test_instances_leave_memory_to_the_engine(total: int, left: int) -> None:
    assert total - bounds(total, 1000).memory_bytes == left


def test_no_number_of_instances_has_all_pids_and_no_project_those_of_all() -> None:
    found = bounds(GIB, 32_768)
    assert found.project_pids < found.pids < 32_768
    assert found.pids - found.project_pids >= 1024


def test_a_machine_has_as_many_pids_as_the_smaller_of_two_settings(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/pid_max").write_text("4194304\n")
    (tmp_path / "sys/kernel/threads-max").write_text("7000\n")
    assert most_pids(tmp_path) == 7000


@pytest.mark.parametrize(
    ("mode", "memory", "pids"),
    [(Mode.V1, "memory/x/memory.limit_in_bytes", "pids/x"), (Mode.V2, "x/memory.max", "x")],
)
def test_bounds_are_written_where_each_kind_of_cgroup_has_them(tmp_path: Path, mode: Mode, memory: str, pids: str) -> None:
    files = [tmp_path / memory, tmp_path / pids / "pids.max", tmp_path / pids / "p-a" / "pids.max"]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    impose_all(mode, "/x", Bounds(5, 4, 3), tmp_path)
    impose_one(mode, "/x/p-a", Bounds(5, 4, 3), tmp_path)
    assert [path.read_text() for path in files] == ["5", "4", "3"]


def test_a_machine_without_the_controllers_is_left_as_it_is(tmp_path: Path) -> None:
    impose_all(Mode.V2, "/x", Bounds(5, 4, 3), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "subtree" not in path.name]
