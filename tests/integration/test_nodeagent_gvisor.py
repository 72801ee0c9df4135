"""Instances in gVisor: they park, wake, serve and end like others, inside a kernel of their own, and leave nothing behind."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.model import GVISOR, Goal, Node, decode
from store.seal import Keyring, add_key
from store.volumes import Volume
from tests import real
from tests.integration.agent_world import NODE, SERVE, World, fetch, world
from tests.integration.test_nodeagent_secrets import REFS, put

pytestmark = pytest.mark.real

TELL = f"cat /proc/version > /www/index.html; {SERVE}"


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[World]:
    add_key(tmp_path / "key")
    async with world(store, etcd, nats, "--on-stop", "stop", "--secret-key-file", str(tmp_path / "key")) as made:
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
    version = await node.answer(ready.address)
    assert "Linux version 4.4.0" in version, "not gVisor's kernel, which says so"
    await node.withdraw("park-1")
    await node.gone("park-1")
    assert await node.nothing_in_containerd()


async def test_secrets_reach_a_sandboxed_instance_as_variables_and_as_files_that_follow(node: World, tmp_path: Path) -> None:
    await sandboxes(node)
    await put(node.store, Keyring(tmp_path / "key"), "first")
    script = f'ln -s /etc/db /www/db; echo "$PASSWORD" > /www/index.html; {SERVE}'
    await node.revision(script=script, runtime=GVISOR, env_refs=REFS, volumes=[Volume(path="/etc/db", secret="db")])
    await node.assign("has-1", Goal.RUN)
    ready = await node.phase("has-1", Phase.READY)
    assert await node.answer(ready.address) == "first\n"
    assert await node.answer(ready.address, "/db/password") == "first"
    await put(node.store, Keyring(tmp_path / "key"), "second")

    async def followed() -> bool:
        return await node.answer(ready.address, "/db/password") == "second"

    await node.until(followed, "the file, inside the sandbox")
    await node.withdraw("has-1")
    await node.gone("has-1")


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
