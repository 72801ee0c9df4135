"""Instances in gVisor: they park, wake, serve and end like others, inside a kernel of their own, and leave nothing behind."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.model import GVISOR, Goal, Node, decode
from tests import real
from tests.integration.agent_world import NODE, SERVE, World, fetch, world

pytestmark = pytest.mark.real

TELL = f"cat /proc/version > /www/index.html; {SERVE}"


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


async def sandboxes(node: World) -> None:
    """Wait until the node says that it has gVisor."""

    async def said() -> bool:
        entry = await node.store.get(keys.node(NODE))
        return entry is not None and GVISOR in decode(Node, entry.value).runtimes

    await node.until(said, "the node offers gVisor")


async def test_a_sandboxed_instance_parks_wakes_serves_and_ends(node: World) -> None:
    await sandboxes(node)
    await node.revision(script=TELL, runtime=GVISOR)
    await node.assign("park-1", Goal.PARK)
    await node.phase("park-1", Phase.PARKED)
    await node.assign("park-1", Goal.RUN)
    ready = await node.phase("park-1", Phase.READY)
    version = await fetch(ready.address)
    assert "Linux version 4.4.0" in version, "not gVisor's kernel, which says so"
    await node.withdraw("park-1")
    await node.gone("park-1")
    assert await node.nothing_in_containerd()


async def test_a_sandbox_that_cannot_start_is_removed(node: World) -> None:
    """Without the host's network runsc's start fails, and leaves the task CREATED."""
    await sandboxes(node)
    script = next((node.home / "node").glob("runsc-*"))
    script.write_text(script.read_text().replace(" --network=host", ""))
    await node.revision(runtime=GVISOR)
    await node.assign("stuck-1", Goal.RUN)
    failed = await node.phase("stuck-1", Phase.FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == "StartFailed"
    await node.withdraw("stuck-1")
    await node.gone("stuck-1")
    assert await node.nothing_in_containerd()


async def test_a_parked_sandbox_that_is_not_needed_goes(node: World) -> None:
    await sandboxes(node)
    await node.revision(runtime=GVISOR)
    await node.assign("park-1", Goal.PARK)
    await node.phase("park-1", Phase.PARKED)
    await node.withdraw("park-1")
    await node.gone("park-1")
    assert await node.nothing_in_containerd()


async def test_an_agent_that_restarts_finds_its_sandboxed_instances_again(node: World) -> None:
    await sandboxes(node)
    node.stop()
    await node.start("--on-stop", "keep")
    await node.revision(script=TELL, runtime=GVISOR)
    await node.assign("run-1", Goal.RUN)
    ready = await node.phase("run-1", Phase.READY)
    pid = await node.task_pid("run-1")
    node.kill()
    await node.start("--on-stop", "stop")

    async def answers() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return "4.4.0" in await fetch(ready.address)
        return False

    await node.until(answers, "it answers as before")
    assert await node.task_pid("run-1") == pid
