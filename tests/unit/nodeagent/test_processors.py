"""Which processors a project has, where each gets only some."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.cgroups import Mode
from nodeagent.processors import choose, confine, parse, problem


@pytest.mark.parametrize(("text", "found"), [("0-2,5\n", [0, 1, 2, 5]), ("3\n", [3]), ("\n", [])])
def test_the_kernels_list_is_read(text: str, found: list[int]) -> None:
    assert parse(text) == found


@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 40))
def test_projects_are_spread_evenly_over_the_processors(processors: int, count: int, projects: int) -> None:
    usable, taken = list(range(processors)), list[list[int]]()
    for _ in range(projects):
        taken.append(choose(usable, taken, count))
    assert all(len(set(each)) == min(count, processors) for each in taken)
    held = [sum(each in some for some in taken) for each in usable]
    assert max(held) - min(held) <= 1


def v1(root: Path, *groups: str) -> None:
    """A machine of four processors, whose new cpusets are empty."""
    for group in ("", *groups):
        at = root / "cpuset" / group
        at.mkdir(parents=True, exist_ok=True)
        for name, text in (("cpuset.cpus", "0-3"), ("cpuset.mems", "0")):
            (at / name).write_text("" if group else text)


def cpus(root: Path, group: str) -> list[int]:
    return parse((root / group / "cpuset.cpus").read_text())


def test_a_project_gets_what_fewest_others_have_and_keeps_it(tmp_path: Path) -> None:
    v1(tmp_path, "ebb-x", "ebb-x/p-a", "ebb-x/p-b", "ebb-x/p-c")
    for project in "abca":
        confine(Mode.HYBRID, f"/ebb-x/p-{project}", 2, tmp_path)
    places = [cpus(tmp_path / "cpuset", f"ebb-x{each}") for each in ("", "/p-a", "/p-b", "/p-c")]
    assert places == [[0, 1, 2, 3], [2, 3], [0, 1], [2, 3]]
    assert (tmp_path / "cpuset/ebb-x/p-a/cpuset.mems").read_text() == "0"


def test_with_version_2_what_the_parent_may_use_is_shared_out(tmp_path: Path) -> None:
    (tmp_path / "ebb-x/p-a").mkdir(parents=True)
    (tmp_path / "ebb-x/cpuset.cpus.effective").write_text("0-1\n")
    (tmp_path / "ebb-x/p-a/cpuset.cpus").write_text("\n")
    confine(Mode.V2, "/ebb-x/p-a", 1, tmp_path)
    assert cpus(tmp_path, "ebb-x/p-a") == [1]


def test_a_machine_without_cpusets_is_told_apart(tmp_path: Path) -> None:
    assert "no cpuset controller" in problem(Mode.V1, tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    assert "no cpuset controller" in problem(Mode.V2, tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    v1(tmp_path)
    assert (problem(Mode.V1, tmp_path), problem(Mode.V2, tmp_path)) == ("", "")
