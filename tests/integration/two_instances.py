"""The networks of two instances on a machine of the test's own."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from nodeagent.firewall import Caps, Doors
from nodeagent.network import Network, NetworkPool
from tests.integration.netns_world import Machine, in_namespace, ip, run_on_a_machine

GATEWAY = "10.77.0.1"
PRIVATE = "10.50.0.7"


def with_two(
    tmp_path: Path,
    test: Callable[[Machine, NetworkPool, Network, Network], Awaitable[None]],
    caps: Caps | None = None,
    doors: Doors | None = None,
) -> None:
    """Run `test` with two instances' networks, and a neighbour who has an address in a private network too."""

    async def body(machine: Machine) -> None:
        in_namespace(machine.neighbour, lambda: ip("addr", "add", f"{PRIVATE}/32", "dev", "out1"))
        networks = NetworkPool(prefix="tn", subnet="10.77.0.0/24", run_dir=tmp_path, pool_size=2, caps=caps)
        networks.doors = doors or Doors()
        await networks.start()
        try:
            await test(machine, networks, await networks.take(), await networks.take())
        finally:
            await networks.stop()

    run_on_a_machine(body)
