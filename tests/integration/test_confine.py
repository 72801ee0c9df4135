"""A program as a user of its own: which rights it has, and which directories it comes to."""

import os
import subprocess
from pathlib import Path

import pytest

from process import confine, pids
from process.confine import User
from tests.eventually import eventually

pytestmark = pytest.mark.real
UID = 2_147_400_000


def run(user: User, *argv: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
    command = confine.command(argv, user)
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd="/", umask=umask)


def start(user: User, *argv: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(confine.command(argv, user))


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory that only root enters, with something in it to come to, and something else."""
    top = tmp_path / "it's closed"
    (top / "a" / "needed one").mkdir(parents=True)
    (top / "a" / "needed one" / "file").write_text("needed")
    (top / "a" / "other").write_text("other")
    for path in (tmp_path, top):
        path.chmod(0o700)
    return top


def test_it_has_its_ids_and_the_rights_that_are_named_and_no_way_to_more() -> None:
    told = run(User(uid=UID, groups=(UID + 1,), capabilities=("net_bind_service",)), "cat", "/proc/self/status").stdout
    now = {name: value.split() for name, _, value in (line.partition(":") for line in told.splitlines())}
    assert now["Uid"] == now["Gid"] == [str(UID)] * 4
    assert now["Groups"] == [str(UID + 1)]
    assert {int(now[f"Cap{kind}"][0], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {1 << 10}
    assert now["NoNewPrivs"] == ["1"]
    none = run(User(uid=UID), "cat", "/proc/self/status").stdout
    assert {line.split()[1] for line in none.splitlines() if line.startswith("Cap")} == {"0" * 16}


def test_it_comes_to_what_it_needs_below_a_closed_directory_and_to_nothing_else_there(closed: Path, tmp_path: Path) -> None:
    user = User(uid=UID, reaches=(str(closed / "a" / "needed one"),), staging=str(tmp_path / "staging"))
    for umask in (0o022, 0o077):
        assert run(user, "cat", f"{closed}/a/needed one/file", umask=umask).stdout == "needed"
        assert int(run(user, "sh", "-c", "umask", umask=umask).stdout, 8) == umask
    assert "No such file" in run(user, "cat", f"{closed}/a/other").stderr
    assert run(user, "ls", f"{closed}/a").stdout.split("\n") == ["needed one", ""]
    assert "denied" in run(user, "touch", f"{closed}/a/needed one/new").stderr, "where it comes to is not where it writes"
    assert (closed / "a" / "other").read_text() == "other"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(), "nobody else sees it"


def test_it_comes_to_a_link_by_both_its_names(closed: Path, tmp_path: Path) -> None:
    link = closed / "link"
    link.symlink_to("a/needed one")
    user = User(uid=UID, reaches=(str(link),), staging=str(tmp_path / "staging"))
    assert run(user, "cat", f"{link}/file", f"{closed}/a/needed one/file").stdout == "needed" * 2


def test_where_everybody_may_enter_it_stays_in_the_machines_own_namespace() -> None:
    assert confine.command(["true"], User(uid=UID, reaches=("/usr/lib", "/etc")))[0] == "setpriv"
    shown = run(User(uid=UID, reaches=("/usr/lib",)), "readlink", "/proc/self/ns/mnt").stdout.strip()
    assert shown == os.readlink("/proc/self/ns/mnt")


async def test_in_the_end_it_has_the_pid_and_the_words_that_the_supervisor_knows(closed: Path, tmp_path: Path) -> None:
    user = User(uid=UID, reaches=(str(closed / "a"),), staging=str(tmp_path / "staging"))
    child = start(user, "sleep", "60")
    try:
        await eventually(lambda: (pids.command(child.pid), pids.user(child.pid)) == (["sleep", "60"], UID))
    finally:
        child.kill()
        child.wait(10)
