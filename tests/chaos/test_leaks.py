"""Deploy → call → zero → delete, again and again, leaves nothing. `EBB_CYCLES=200` is the full run of the closing note."""

import asyncio
import os

import pytest

from process.identity import Identity
from store.connect import open_store
from tests import leaks
from tests.e2e.engine import Engine, until

CYCLES = int(os.environ.get("EBB_CYCLES", "20"))
AT_ONCE = 20


def cycles(engine: Engine, names: list[str]) -> None:
    """The whole life of a service, of several side by side: most of it is waiting for its window to pass."""
    for name in names:
        engine.deploy(name, "test/static:v1", annotations={"window": "6s"}, wait_s=0)
    for name in names:
        engine.wait_ready(name)
        assert engine.get(name).status_code == 200
    for name in names:
        engine.at_zero(name)
    for name in names:
        engine.delete(name)
    until(lambda: not engine.instances(), "no instance", 60)


@pytest.mark.timeout(120 + 5 * CYCLES)
async def test_cycles_of_deploy_call_zero_and_delete_leave_nothing_behind(engine: Engine) -> None:
    await asyncio.to_thread(cycles, engine, [f"warm-up-{number}" for number in range(AT_ONCE)])
    store = await open_store(f"127.0.0.1:{engine.port_base + 1}", Identity(engine.root / "identity" / "registry"))
    pids = {name: pid for name, pid in engine.pids().items() if name in ("ingress", "autoscaler", "nodeagent", "registry")}

    async def machine() -> leaks.Snapshot:
        socket = str(engine.run / "containerd" / "containerd.sock")
        return await leaks.snapshot_machine(engine.name, containerd=socket, store=store, pids=pids, marks=[str(engine.home)])

    try:
        before = await leaks.at_rest(machine, for_s=2)  # Connections are kept for reuse for 1.5 s.
        for first in range(0, CYCLES, AT_ONCE):
            await asyncio.to_thread(cycles, engine, [f"cycle-{first + n}" for n in range(min(AT_ONCE, CYCLES - first))])
        await leaks.settled(before, machine, timeout_s=40)
    finally:
        await store.close()
