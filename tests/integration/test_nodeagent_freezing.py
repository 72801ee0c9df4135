"""Frozen instances on real cgroups: they stand still, come back without a boot, and end like any other."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent import cgroups
from nodeagent.freezer import Freezer
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
from store.model import Goal, Member, encode
from tests import real
from tests.integration.agent_world import NODE, SERVE, World, fetch, world

pytestmark = pytest.mark.real

COUNT = f"(while :; do n=$((n+1)); echo $n > /www/count; sleep 0.01; done) & {SERVE}"


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats, "--on-stop", "keep") as made:
        yield made


def freezer(node: World) -> Freezer:
    return Freezer(cgroups.detect(), f"/ebb-{node.id}")


async def frozen(node: World) -> tuple[str, int]:
    """One instance, frozen by the kernel: its address and pid."""
    await node.revision(script=COUNT)
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    await node.assign("app-1", Goal.FREEZE)
    await stopped(node)
    return ready.address, await node.task_pid("app-1")


async def stopped(node: World) -> None:
    await node.phase("app-1", Phase.FROZEN)

    async def still() -> bool:
        return freezer(node).frozen("app-1")

    await node.until(still, "the kernel has it frozen")


def state(pid: int) -> str:
    """The letter of /proc/<pid>/stat; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except FileNotFoundError:
        return ""


def count(pid: int) -> str:
    return Path(f"/proc/{pid}/root/www/count").read_text()


async def test_a_frozen_instance_stands_still_over_a_restart_of_the_agent_and_is_ready_without_a_boot(node: World) -> None:
    address, pid = await frozen(node)
    before = count(pid)
    node.kill()
    await node.start("--on-stop", "stop")
    assert (await node.phase("app-1", Phase.FROZEN)).phase is Phase.FROZEN
    assert count(pid) == before
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert ready.phases_ms.keys() == {"thaw"}
    assert await fetch(address) == "hello\n"
    assert await node.task_pid("app-1") == pid
    await node.assign("app-1", Goal.FREEZE)
    await stopped(node)
    assert node.stop() == 0
    assert await node.nothing_in_containerd(), "an agent that is to stop everything stops what is frozen too"


async def test_it_is_frozen_when_every_ingress_has_let_go_of_it_this_time(node: World, bus: Bus) -> None:
    await node.store.put(keys.member("ingress", "door-1"), encode(Member(role="ingress", member="door-1")))

    def let_go(seq: int) -> None:
        bus.publish(messages.drained(NODE), encode(messages.Drained(instance="app-1", sender="door-1", seq=seq)))

    await node.revision()
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
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
    await stopped(node)


@pytest.mark.parametrize("how", ["its shim", "its process"])
async def test_one_that_is_killed_while_it_is_frozen_has_failed_and_leaves_nothing(node: World, how: str) -> None:
    _, pid = await frozen(node)
    if how == "its shim":
        for shim in node.containerd.shims():
            os.kill(shim, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
        await node.assign("app-1", Goal.RUN)  # cgroup v1 lets it die when it is thawed.
    failed = await node.phase("app-1", Phase.FAILED)
    assert failed.failure is not None
    await node.until(node.nothing_in_containerd, "its remains are gone")

    async def dead() -> bool:
        return state(pid) in ("", "Z")

    await node.until(dead, "its process is dead", 5, lambda: state(pid))
