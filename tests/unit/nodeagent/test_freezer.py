"""The freezer's files, of both kinds of cgroup, in a directory that stands for /sys/fs/cgroup."""

from pathlib import Path

import pytest

from nodeagent.cgroups import Mode, Places
from nodeagent.freezer import Freezer

FILES = {Mode.V1: ("freezer/ebb-x/p-a/i/freezer.state", "FROZEN", "THAWED"), Mode.V2: ("ebb-x/p-a/i/cgroup.freeze", "1", "0")}
FILES[Mode.HYBRID] = FILES[Mode.V1]


def places() -> Places:
    found = Places("/ebb-x")
    found.put("i", "a")
    return found


@pytest.mark.parametrize("mode", list(Mode))
def test_each_kind_of_cgroup_has_its_file_and_its_words(tmp_path: Path, mode: Mode) -> None:
    name, frozen, thawed = FILES[mode]
    (tmp_path / name).parent.mkdir(parents=True)
    freezer = Freezer(mode, places(), tmp_path)
    freezer.freeze("i")
    assert (tmp_path / name).read_text() == frozen
    assert freezer.frozen("i")
    freezer.thaw("i")
    assert (tmp_path / name).read_text() == thawed
    assert not freezer.frozen("i")


def test_v1_is_frozen_while_it_is_freezing(tmp_path: Path) -> None:
    (tmp_path / "freezer/ebb-x/p-a/i").mkdir(parents=True)
    (tmp_path / "freezer/ebb-x/p-a/i/freezer.state").write_text("FREEZING\n")
    assert Freezer(Mode.V1, places(), tmp_path).frozen("i")


@pytest.mark.parametrize("mode", list(Mode))
def test_an_instance_that_is_gone_is_no_problem(tmp_path: Path, mode: Mode) -> None:
    freezer = Freezer(mode, places(), tmp_path)
    freezer.freeze("i")
    freezer.thaw("i")
    freezer.reclaim("i")
    assert not freezer.frozen("i")


@pytest.mark.parametrize(("cold", "asked"), [(5 << 20, str(5 << 20)), (4096, None)])
def test_v2_gives_back_the_file_cache_that_is_cold(tmp_path: Path, cold: int, asked: str | None) -> None:
    home = tmp_path / "ebb-x/p-a/i"
    home.mkdir(parents=True)
    (home / "memory.stat").write_text(f"anon 100\ninactive_file {cold}\nactive_file 7\n")
    Freezer(Mode.V2, places(), tmp_path).reclaim("i")
    written = home / "memory.reclaim"
    assert (written.read_text() if written.exists() else None) == asked
