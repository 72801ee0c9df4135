"""What stands around an instance of the node agent: ids of its project's own, room to write that ends, profiles, freed when it is gone."""

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nodeagent import cgroups
from nodeagent.bounds import most_pids
from nodeagent.profiles import IDS
from nodeagent.uids import FIRST_ID
from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.model import GVISOR, encode
from store.projects import Policy, Project
from tests import real
from tests.integration.agent_world import SERVE, World, fetch, world

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


def owner(pid: int) -> int:
    """The machine's id of who runs as `pid`."""
    return Path(f"/proc/{pid}").stat().st_uid


def uid_map(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/uid_map").read_text().split()


async def says(node: World, script: str, name: str = "app-00001", **fields: object) -> str:
    """What `script` prints in an instance, by its own web server; kept where a full disk does not keep it from being said."""
    await node.revision(name, f"ln -s /dev/shm/said /www/said; ({script}) > /dev/shm/said 2>&1; {SERVE}", **fields)
    await node.assign(f"i-{name}", revision=name)
    address = (await node.phase(f"i-{name}", Phase.READY)).address
    return await fetch(address, "/said")


async def test_root_in_an_instance_is_nobody_on_the_machine(node: World) -> None:
    said = await says(
        node, "id -u; stat -c %u /bin/busybox /www /tmp; touch /bin/new && stat -c %u /bin/new; cat /etc/resolv.conf"
    )
    assert said.split()[:5] == ["0"] * 5
    assert "denied" not in said
    pid = await node.task_pid("i-app-00001")
    assert owner(pid) == FIRST_ID
    assert uid_map(pid) == ["0", str(FIRST_ID), str(IDS)]


async def test_each_project_has_ids_of_its_own_and_keeps_them_over_a_restart(node: World) -> None:
    await says(node, "true")
    await node.revision(project="other")
    await node.assign("i-other", project="other")
    await node.phase("i-other", Phase.READY)
    assert owner(await node.task_pid("i-other")) == FIRST_ID + IDS
    node.kill()
    await node.start("--on-stop", "stop")
    await node.assign("again")
    await node.phase("again", Phase.READY)
    assert owner(await node.task_pid("again")) == FIRST_ID


async def test_who_fills_its_disk_gets_no_more_and_only_itself(node: World) -> None:
    fill = "dd if=/dev/zero of=/tmp/x bs=1M count=64; wc -c < /tmp/x; rm /tmp/x; echo well > /tmp/y && cat /tmp/y"
    said = await says(node, fill, memory_limit_bytes=64 << 20)
    assert "No space left on device" in said
    assert str(32 << 20) in said
    assert said.endswith("well\n")


async def test_who_makes_files_without_end_gets_no_more(node: World) -> None:
    said = await says(
        node, "mkdir /d; cd /d; i=0; while echo > $i; do i=$((i+1)); done; ls | wc -l", memory_limit_bytes=1 << 30
    )
    assert "No space left on device" in said
    assert 65_000 < int(said.split()[-1]) < 65_536


async def test_who_asks_for_room_gets_a_disk_of_that_size(node: World) -> None:
    assert loops(node) == 0
    said = await says(node, "dd if=/dev/zero of=/x bs=1M count=200; wc -c < /x; stat -c %u /x", disk_limit_bytes=128 << 20)
    assert "No space left on device" in said
    assert 100 << 20 < int(said.split()[-2]) < 128 << 20
    assert said.split()[-1] == "0"
    assert loops(node) == 1
    await node.withdraw("i-app-00001")
    await node.gone("i-app-00001")

    async def freed() -> bool:
        return loops(node) == 0

    await node.until(freed, "its loop device is gone")


def loops(node: World) -> int:
    """How many disks of its instances there are."""
    found = 0
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # Another's, and gone meanwhile.
            found += str(node.home) in file.read_text()
    return found


async def test_hardened_has_no_capability_and_a_root_that_nobody_changes(node: World) -> None:
    look = "grep CapBnd /proc/self/status; touch /bin/x; id -u; touch /tmp/x && echo tmp"
    script = f"({look}) > /tmp/said 2>&1; busybox httpd -f -p $PORT -h /tmp"
    await node.revision(script=script, profile="hardened", user="1000")
    await node.assign("i")
    said = await fetch((await node.phase("i", Phase.READY)).address, "/said")
    assert said.split() == ["CapBnd:", "0" * 16, "touch:", "/bin/x:", "Read-only", "file", "system", "1000", "tmp"]


async def test_hardened_refuses_root_and_says_what_to_do(node: World) -> None:
    await node.store.put(keys.project("default"), encode(Project(name="default", policy=Policy(profile="hardened"))))
    await node.revision()
    await node.assign("i")
    failure = (await node.phase("i", Phase.FAILED)).failure
    assert failure is not None
    assert (failure.reason, "runAsUser" in failure.message) == ("NotAllowed", True)


async def test_a_user_beyond_the_projects_ids_is_refused(node: World) -> None:
    await node.revision(user="70000")
    await node.assign("i")
    failure = (await node.phase("i", Phase.FAILED)).failure
    assert failure is not None
    assert "below 65536" in failure.message


async def test_an_instance_that_meets_its_limits_says_which_and_its_neighbour_serves_on(node: World) -> None:
    fill = "dd if=/dev/zero of=/x bs=1M count=64; busybox httpd -f -p $PORT -h /www & yes | head -c 30000000 & "
    bomb = (
        "(for i in $(seq 4); do (while :; do :; done) & done; for i in $(seq 50); do sleep 1000 & done); trap exit TERM; wait"
    )
    await node.revision("greedy-00001", fill + bomb, memory_limit_bytes=64 << 20, pids_limit=24, project="greedy")
    await node.revision(project="quiet")
    await node.assign("quiet", project="quiet")
    address = (await node.phase("quiet", Phase.READY)).address
    await node.assign("greedy", revision="greedy-00001", project="greedy")
    await node.until(
        lambda: met(node, "greedy", "DiskFull", "TooManyProcesses", "LogRateLimited"), "its status says what it met", 40
    )
    assert [await fetch(address) for _ in range(20)] == ["hello\n"] * 20
    assert await node.ready()
    limits = [bound(f"/ebb-{node.id}{part}") for part in ("", "/p-greedy")]
    assert 0 < limits[1] < limits[0] < most_pids()


def bound(path: str) -> int:
    """How many processes may be in the cgroup `path`."""
    return int((cgroups.controlled(cgroups.detect(), path, "pids") / "pids.max").read_text())


async def met(node: World, instance: str, *reasons: str) -> bool:
    status = await node.status(instance)
    return status is not None and {line.partition(":")[0] for line in status.notices} >= set(reasons)


@pytest.mark.parametrize(
    ("attack", "notice", "changes"),
    [
        ("while :; do busybox tail /dev/zero; done", "OutOfMemory", {"memory_limit_bytes": 64 << 20}),
        ("mkdir /d; i=0; while :; do echo > /d/$i; i=$((i+1)); done", "TooManyFiles", {"memory_limit_bytes": 1 << 30}),
        ("busybox yes a line of a log that says nothing at all", "LogRateLimited", {"memory_limit_bytes": 64 << 20}),
    ],
    ids=["memory", "inodes", "log"],
)
async def test_who_takes_without_end_is_told_and_its_neighbour_serves_on(
    node: World, attack: str, notice: str, changes: dict[str, int]
) -> None:
    await node.revision(project="quiet")
    await node.assign("quiet", project="quiet")
    address = (await node.phase("quiet", Phase.READY)).address
    script = f"busybox httpd -f -p $PORT -h /www & ({attack}) & wait"
    await node.revision("greedy-00001", script, project="greedy", pids_limit=64, **changes)
    await node.assign("greedy", revision="greedy-00001", project="greedy")
    await node.until(lambda: met(node, "greedy", notice), f"its status says {notice}", 60)
    assert [await fetch(address) for _ in range(50)] == ["hello\n"] * 50
    assert await node.ready()
    status = await node.status("quiet")
    assert status is not None
    assert (status.phase, status.notices) == (Phase.READY, [])


@contextlib.contextmanager
def nowhere(name: str) -> Iterator[str]:
    """An address that packets are forwarded to and nobody answers at: behind a link of the test's own, with no machine at its other end."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)

    ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    try:
        ip("address", "add", "203.0.113.1/24", "dev", name)
        for end in (name, f"{name}p"):
            ip("link", "set", end, "up")
        yield "203.0.113.2"
    finally:
        ip("link", "delete", name)


async def test_who_has_more_connections_out_than_an_instance_may_is_told(
    store: Store, etcd: real.Server, nats: real.Server
) -> None:
    async with world(store, etcd, nats, "--on-stop", "stop", "--instance-connections", "5") as node:
        with nowhere(f"c{node.id}") as address:
            dial = f"for i in $(seq 9); do (while :; do busybox nc {address} 9 < /dev/zero; done) & done; {SERVE}"
            await node.revision("greedy-00001", dial, project="greedy")
            await node.assign("greedy", revision="greedy-00001", project="greedy")
            await node.revision(project="quiet")
            await node.assign("quiet", project="quiet")
            await node.until(lambda: met(node, "greedy", "TooManyConnections"), "its status says so", 40)
            told = await node.status("greedy")
            assert told is not None
            assert (told.phase, "the 5 connections out" in told.notices[0]) == (Phase.READY, True)
            quiet = await node.phase("quiet", Phase.READY)
            assert quiet.notices == []


async def test_projects_that_each_have_one_processor_share_none_while_there_are_enough(
    store: Store, etcd: real.Server, nats: real.Server
) -> None:
    async with world(store, etcd, nats, "--on-stop", "stop", "--project-processors", "1") as node:
        found = {}
        for name in ("a", "b"):
            await node.revision(f"{name}-00001", project=name)
            for number in (1, 2):
                await node.assign(f"{name}-{number}", revision=f"{name}-00001", project=name)
                await node.phase(f"{name}-{number}", Phase.READY)
                found[name, number] = os.sched_getaffinity(await node.task_pid(f"{name}-{number}"))
        usable = os.sched_getaffinity(0)
        assert all(len(each) == 1 for each in found.values())
        assert found["a", 1] == found["a", 2]
        assert found["b", 1] == found["b", 2]
        assert len(found["a", 1] | found["b", 1]) == min(2, len(usable))


async def test_a_projects_policy_puts_its_instances_in_gvisor_whatever_they_ask_for(node: World) -> None:
    await node.store.put(keys.project("default"), encode(Project(name="default", policy=Policy(runtime=GVISOR))))
    await node.revision()
    await node.assign("i")
    assert await node.answer((await node.phase("i", Phase.READY)).address) == "hello\n"
    assert "runsc" in command(await node.task_pid("i"))


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
