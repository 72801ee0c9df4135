"""What instances may reach, as their revisions and their project's policy say, on a whole node agent."""

import json
import subprocess
from collections.abc import AsyncIterator

import pytest

from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.model import encode
from store.projects import Policy, Project
from tests import real
from tests.integration.agent_world import World, world

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


def way(node: World, address: str) -> str:
    """The chain that decides where an instance may connect to, as the kernel has it; empty: none, so nowhere."""
    argv = ["nft", "-j", "list", "map", "inet", f"ebb_{node.id}", "egress"]
    listed = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout)
    found = next(each["map"] for each in listed["nftables"] if "map" in each)
    ways = {key: verdict["goto"]["target"] for key, verdict in found.get("elem", [])}
    return ways.get(address.partition(":")[0], "")


async def policy(node: World, **said: object) -> None:
    record = Project(name="default", policy=Policy(**said))  # type: ignore[arg-type]
    await node.store.put(keys.project("default"), encode(record))


async def test_an_instance_may_what_its_revision_asks_for_within_its_projects_policy_also_when_that_changes(
    node: World,
) -> None:
    await node.revision("open-00001")
    await node.revision("db-00001", egress="open,10.1.0.0/16:5432")
    for name in ("open", "db"):
        await node.assign(f"{name}-1", revision=f"{name}-00001")
    opened, db = [(await node.phase(f"{name}-1", Phase.READY)).address for name in ("open", "db")]

    async def ways(*wanted: str) -> None:
        async def there() -> bool:
            return (way(node, opened), way(node, db)) == wanted

        await node.until(there, str(wanted), seen=lambda: f"{way(node, opened)} {way(node, db)}")

    await ways("way_open", "way_open")  # the policy has nothing private to give
    await policy(node, egress="open,private")
    await ways("way_open_private", "way_open_listed")
    node.kill()
    await policy(node, egress="none")
    assert way(node, db) == "way_open_listed"  # what stands outlives the agent
    await node.start("--on-stop", "stop")
    await ways("way_none", "way_none")
    await node.store.delete(keys.project("default"))
    await ways("way_open", "way_open")
    await node.withdraw("db-1")
    await node.gone("db-1")

    async def forgotten() -> bool:
        return way(node, db) == ""

    await node.until(forgotten, "its address allows nothing any more")
