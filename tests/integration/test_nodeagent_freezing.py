"""Frozen instances on real cgroups: they stand still, come back without a boot, and end like any other."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent import cgroups
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
from store.model import Goal, Instance, Member, encode
from tests import real
from tests.integration.agent_world import NODE, SERVE, World, fetch, world

pytestmark = pytest.mark.real

LONG = ("--lease-ttl-s", "60")
"""What was said of an instance is known to the next agent, however long that takes to begin."""
COUNT = f"(while :; do n=$((n+1)); echo $n > /www/count; sleep 0.01; done) & {SERVE}"


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats, *LONG, "--on-stop", "keep") as made:
        yield made


async def ready(node: World, name: str) -> Instance:
    await node.revision(script=COUNT)
    await node.assign(name, Goal.RUN)
    return await node.phase(name, Phase.READY)


async def frozen(node: World, name: str) -> int:
    """`name` is frozen by the kernel: its pid."""
    await node.assign(name, Goal.FREEZE)
    await node.phase(name, Phase.FROZEN)
    v2 = cgroups.ROOT / f"ebb-{node.id}" / "p-default" / name / "cgroup.events"
    v1 = cgroups.ROOT / "freezer" / f"ebb-{node.id}" / "p-default" / name / "freezer.state"

    async def still() -> bool:
        if cgroups.detect() is cgroups.Mode.V2:
            return "frozen 1" in v2.read_text()
        return v1.read_text() == "FROZEN\n"

    await node.until(still, f"the kernel has {name} frozen")
    return await node.task_pid(name)


def count(pid: int) -> str:
    return Path(f"/proc/{pid}/root/www/count").read_text()


def state(pid: int) -> str:
    """The letter of /proc/<pid>/stat; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except FileNotFoundError:
        return ""


async def test_a_frozen_instance_stands_still_over_a_restart_of_the_agent_and_is_ready_without_a_boot(node: World) -> None:
    address = (await ready(node, "app-1")).address
    pid = await frozen(node, "app-1")
    before = count(pid)
    node.kill()
    await node.start(*LONG, "--on-stop", "stop")
    assert (await node.phase("app-1", Phase.FROZEN)).phase is Phase.FROZEN
    assert count(pid) == before
    await node.assign("app-1", Goal.RUN)
    again = await node.phase("app-1", Phase.READY)
    assert again.phases_ms.keys() == {"thaw"}
    assert await fetch(address) == "hello\n"
    assert await node.task_pid("app-1") == pid
    await frozen(node, "app-1")
    assert node.stop() == 0
    assert await node.nothing_in_containerd(), "an agent that is to stop everything stops what is frozen too"


async def test_it_is_frozen_when_every_ingress_has_let_go_of_it_this_time(node: World, bus: Bus) -> None:
    await node.store.put(keys.member("ingress", "door-1"), encode(Member(role="ingress", member="door-1")))

    def let_go(seq: int) -> None:
        bus.publish(messages.drained(NODE), encode(messages.Drained(instance="app-1", sender="door-1", seq=seq)))

    await ready(node, "app-1")
    await node.assign("app-1", Goal.FREEZE)
    told = await node.phase("app-1", Phase.FROZEN)
    assert await fetch(told.address) == "hello\n", "something may be in flight"
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
    await node.assign("app-1", Goal.FREEZE)
    again = await node.phase("app-1", Phase.FROZEN)
    let_go(told.seq)
    assert await fetch(told.address) == "hello\n", "the answer to an earlier Frozen says nothing"
    let_go(again.seq)
    await frozen(node, "app-1")


async def test_what_is_killed_while_it_is_frozen_has_failed_and_leaves_nothing(node: World) -> None:
    await ready(node, "app-1")
    await ready(node, "app-2")
    pids = [await frozen(node, "app-1"), await frozen(node, "app-2")]
    os.kill(pids[0], signal.SIGKILL)
    await node.assign("app-1", Goal.RUN)  # cgroup v1 lets it die when it is thawed.
    await node.phase("app-1", Phase.FAILED)
    for shim in node.containerd.shims():
        os.kill(shim, signal.SIGKILL)
    await node.phase("app-2", Phase.FAILED)
    await node.until(node.nothing_in_containerd, "their remains are gone")

    async def dead() -> bool:
        return all(state(pid) in ("", "Z") for pid in pids)

    await node.until(dead, "their processes are dead", 5, lambda: repr([state(pid) for pid in pids]))
