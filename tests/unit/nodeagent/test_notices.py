"""What an instance's status says of the limits it has met."""

import os
from pathlib import Path

from nodeagent.cgroups import Mode
from nodeagent.notices import Met, look, words
from nodeagent.ocispec import NOFILE

GIB = 1 << 30


def test_who_meets_no_limit_is_told_nothing() -> None:
    assert words(Met(GIB, GIB, 65_536, 65_000), 1024, 0) == []
    assert words(Met(), 1024, 0) == []


def test_each_limit_is_told_with_its_value_and_the_cure() -> None:
    said = words(Met(GIB, 0, 65_536, 3, 7, 2, open_files=NOFILE, log_dropped_bytes=1, connections_most=4096), 64, 128 << 20)
    assert [line.partition(":")[0] for line in said] == [
        "DiskFull",
        "TooManyFiles",
        "TooManyProcesses",
        "OutOfMemory",
        "TooManyOpenFiles",
        "TooManyConnections",
        "LogRateLimited",
    ]
    for line, value in zip(said, ("1Gi", "65536", "64", "128Mi", str(NOFILE), "4096", "2Mi"), strict=True):
        assert value in line
    assert "ephemeral-storage" in said[0]


def test_the_same_limit_met_again_is_the_same_words() -> None:
    assert words(Met(forks_refused=7, oom_kills=2), 64, 0) == words(Met(forks_refused=9, oom_kills=5), 64, 0)


def test_open_files_of_the_first_process_are_counted(tmp_path: Path) -> None:
    before = look(Mode.V1, "/x/i", os.getpid(), root=tmp_path).open_files
    with open(os.devnull), open(os.devnull):
        assert look(Mode.V1, "/x/i", os.getpid(), root=tmp_path).open_files == before + 2


def test_refused_forks_are_read_where_each_kind_of_cgroup_keeps_them(tmp_path: Path) -> None:
    for mode, place in ((Mode.V1, "pids/x/i"), (Mode.V2, "x/i")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "pids.events").write_text("max 4\n")
        assert look(mode, "/x/i", os.getpid(), root=tmp_path).forks_refused == 4


def test_an_instance_that_is_gone_has_met_nothing(tmp_path: Path) -> None:
    assert look(Mode.V1, "/x/gone", 1 << 30, root=tmp_path) == Met()
