"""The node agent, containerd and shims die and come back; what ran runs on, and nothing is left behind."""

import os
import signal
from collections.abc import AsyncIterator

import msgspec
import pytest

from nodeagent import cgroups
from nodeagent.containerd.client import Containerd
from nodeagent.tasks import Tasks
from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.messages import LogLine
from store.model import Goal
from tests import leaks, real
from tests.integration.agent_world import NODE, SERVE, World, fetch, world

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


async def two(node: World) -> tuple[str, int, int]:
    """One Ready and one parked instance: the first's address, and the pids of both."""
    await node.revision(script=f"(while :; do n=$((n+1)); echo $n; sleep 0.05; done) & {SERVE}")
    await node.assign("run-1", Goal.RUN)
    await node.assign("park-1", Goal.PARK)
    ready = await node.phase("run-1", Phase.READY)
    await node.phase("park-1", Phase.PARKED)
    return ready.address, await node.task_pid("run-1"), await node.task_pid("park-1")


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_an_agent_that_dies_finds_its_instances_again(node: World, how: str) -> None:
    node.stop()
    await node.start("--on-stop", "keep")
    address, running, parked = await two(node)
    seq = (await node.phase("run-1", Phase.READY)).seq
    if how == "kill":
        node.kill()
    else:
        assert node.stop() == 0
    assert await fetch(address) == "hello\n"
    assert await node.status("run-1") is not None, "an upgrade must not take the instance from the ingress"
    await node.start("--on-stop", "stop")
    assert (await node.task_pid("run-1"), await node.task_pid("park-1")) == (running, parked)
    assert await fetch(address) == "hello\n"
    status = await node.phase("run-1", Phase.READY)
    assert status.seq >= seq

    async def numbers() -> list[int]:
        lines = [msgspec.json.decode(raw, type=LogLine).line for raw in (await node.get("/logs?instance=run-1")).splitlines()]
        return [int(line) for line in lines if line.isdecimal()]

    before = len(await numbers())

    async def more() -> bool:
        return len(await numbers()) > before + 5

    await node.until(more, "its log goes on")
    told = await numbers()
    assert told == list(range(1, len(told) + 1)), "a log line was lost or told twice"
    await node.assign("park-1", Goal.RUN)
    again = await node.phase("park-1", Phase.READY)
    assert await fetch(again.address) == "hello\n"
    await node.withdraw("run-1")
    await node.withdraw("park-1")
    await node.gone("run-1")
    await node.gone("park-1")


async def test_assignments_withdrawn_while_the_agent_is_away_are_carried_out(node: World) -> None:
    await two(node)
    node.kill()
    await node.withdraw("run-1")
    await node.withdraw("park-1")
    await node.start("--on-stop", "stop")
    await node.gone("run-1")
    await node.gone("park-1")
    await node.until(node.nothing_in_containerd, "the orphans are gone")


async def test_a_failure_is_remembered_over_a_restart_of_the_agent(node: World) -> None:
    await node.revision(script="echo bad; exit 7")
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.FAILED)
    node.kill()
    await node.store.delete(keys.instance(NODE, "app-1"))  # as if the lease had run out meanwhile
    await node.start("--on-stop", "stop")
    failed = await node.phase("app-1", Phase.FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == "ExitCode7"
    assert "task created" not in node.log()


async def test_containerd_killed_leaves_containers_alone(node: World) -> None:
    address, running, parked = await two(node)
    await node.containerd.restart()
    assert await fetch(address) == "hello\n"
    await node.until(node.ready, "the agent is ready again")
    assert (await node.task_pid("run-1"), await node.task_pid("park-1")) == (running, parked)
    await node.assign("park-1", Goal.RUN)
    await node.phase("park-1", Phase.READY)
    os.kill(running, signal.SIGKILL)
    failed = await node.phase("run-1", Phase.FAILED, timeout_s=3)
    assert failed.failure is not None
    assert failed.failure.reason == "Signal", "events are followed again"


async def test_an_exit_while_containerd_is_away_is_noticed(node: World) -> None:
    _, running, _ = await two(node)
    os.kill(node.containerd.pid, signal.SIGSTOP)
    os.kill(running, signal.SIGKILL)
    await node.containerd.restart()
    await node.phase("run-1", Phase.FAILED)


async def test_a_shim_killed_takes_its_instances_and_they_are_reported(node: World) -> None:
    await two(node)
    for shim in node.containerd.shims():
        os.kill(shim, signal.SIGKILL)
    for name in ("run-1", "park-1"):
        failed = await node.phase(name, Phase.FAILED)
        assert failed.failure is not None
    await node.until(node.nothing_in_containerd, "their remains are gone")


async def test_twenty_cycles_leave_nothing_behind(node: World) -> None:
    await node.revision()
    await node.assign("warm-up", Goal.RUN)
    await node.phase("warm-up", Phase.READY)
    await node.withdraw("warm-up")
    await node.gone("warm-up")
    pids = {"agent": node.pid, "containerd": node.containerd.pid}

    async def look() -> leaks.Snapshot:
        return await leaks.snapshot_machine(
            node.id, containerd=node.containerd.socket, store=node.store, pids=pids, marks=[str(node.home)]
        )

    before = await leaks.at_rest(look)
    for cycle in range(10):
        names = [f"c{cycle}-{number}" for number in range(2)]
        await node.assign(names[0], Goal.PARK)
        await node.assign(names[1], Goal.RUN)
        await node.phase(names[0], Phase.PARKED)
        await node.phase(names[1], Phase.READY)
        for name in names:
            await node.withdraw(name)
        for name in names:
            await node.gone(name)
    await leaks.settled(before, look)


async def test_what_a_trial_of_a_killed_agent_left_is_taken_away(node: World) -> None:
    node.kill()
    engine = Containerd(node.containerd.socket)
    left = "trial-left"
    try:
        tasks = Tasks(engine, "")
        await tasks.prepare(left, "")
        await tasks.create_container(left, {}, {"ociVersion": "1.0.2"})
        assert left in await tasks.list()
        await tasks.prepare("look-left", "")
        await node.start()
        assert left not in await tasks.list()
        assert not await tasks.bare_snapshots() & {left, "look-left"}
    finally:
        await engine.close()


async def test_a_cgroup_that_a_killed_agent_had_no_time_to_take_away_goes_when_the_next_begins(node: World) -> None:
    await node.revision()
    await node.assign("run-1", Goal.RUN)
    await node.phase("run-1", Phase.READY)
    node.kill()
    mode, parent = cgroups.detect(), f"/ebb-{node.id}"
    cgroups.weigh(mode, f"{parent}/p-gone", cgroups.WEIGHT)
    await node.start("--on-stop", "stop")
    assert {name for name in cgroups.children(mode, parent) if name.startswith("p-")} == {"p-default"}


async def test_stopped_with_everything_it_leaves_nothing_at_all(node: World) -> None:
    node.stop()

    async def look() -> leaks.Snapshot:
        return await leaks.snapshot_machine(
            node.id,
            containerd=node.containerd.socket,
            pids={"containerd": node.containerd.pid},
            marks=[str(node.home)],
        )

    before = await look()
    await node.start("--on-stop", "stop")
    await two(node)
    assert node.stop() == 0
    await leaks.settled(before, look)
    assert (await node.store.list(keys.instances(NODE))).entries == ()
    assert (await node.store.list(keys.NODES)).entries == ()
