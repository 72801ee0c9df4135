"""Which cgroups there are, and what is written into them."""

import os
from pathlib import Path

import pytest

from nodeagent.cgroups import WEIGHT, Mode, Places, stir, weigh_io


@pytest.mark.parametrize(
    ("mode", "name", "most"),
    [
        (Mode.V1, "blkio/x/blkio.weight", "1000"),
        (Mode.HYBRID, "blkio/x/blkio.bfq.weight", "1000"),
        (Mode.V2, "x/io.weight", "10000"),
        (Mode.V2, "x/io.bfq.weight", "1000"),
    ],
)
def test_disks_are_shared_by_weight_where_a_kernel_has_a_file_for_it(tmp_path: Path, mode: Mode, name: str, most: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.touch()
    for weight, written in ((WEIGHT // 2, "50"), (WEIGHT, "100"), (3 * WEIGHT, "300"), (1000 * WEIGHT, most)):
        weigh_io(mode, "/x", weight, tmp_path)
        assert file.read_text() == written


@pytest.mark.parametrize("mode", Mode)
def test_where_no_kernel_divides_disks_nothing_is_made(tmp_path: Path, mode: Mode) -> None:
    weigh_io(mode, "/x", WEIGHT, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "subtree" not in path.name]
    assert not (tmp_path / "blkio").exists()


def test_the_cgroup_of_a_project_is_forsaken_when_nobody_of_it_is_here_and_no_other_is() -> None:
    places = Places("/ebb")
    places.put("i-1", "shop")
    places.put("i-2", "shop")
    assert places.forsaken(["p-shop", "p-mall", "trial", "p-"]) == ["/ebb/p-mall", "/ebb/p-"]
    assert places.drop("i-1") == ""
    assert places.forsaken(["p-shop"]) == []
    assert places.drop("i-2") == "/ebb/p-shop"
    assert places.forsaken(["p-shop"]) == ["/ebb/p-shop"]


def test_stirring_moves_this_process_to_where_it_is_in_one_hierarchy(tmp_path: Path) -> None:
    stir(tmp_path)  # nothing is there: nothing happens
    own = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    files = [tmp_path / controllers.removeprefix("name=") / path.lstrip("/") / "cgroup.procs" for controllers, path in own]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    stir(tmp_path)
    assert [file.read_text() for file in files if file.read_text()] == [str(os.getpid())]
