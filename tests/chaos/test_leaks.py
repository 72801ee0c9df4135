"""Deploy → call → delete, again and again, leaves nothing. `EBB_CYCLES=200` is the full run of the closing note."""

import asyncio
import os

import pytest

from store.connect import open_store
from tests import leaks
from tests.e2e.engine import Engine, until

CYCLES = int(os.environ.get("EBB_CYCLES", "15"))


def cycle(engine: Engine, name: str) -> None:
    engine.deploy(name, "test/static:v1", annotations={"window": "6s"})
    assert engine.get(name).status_code == 200
    engine.delete(name)


@pytest.mark.timeout(60 + 10 * CYCLES)
async def test_cycles_of_deploy_call_and_delete_leave_nothing_behind(engine: Engine) -> None:
    for number in range(3):
        await asyncio.to_thread(cycle, engine, f"warm-up-{number}")
    await asyncio.to_thread(until, lambda: not engine.instances(), "nothing of the warm-up", 30)
    await asyncio.sleep(2)  # Connections that were kept for reuse end.
    store = await open_store(f"127.0.0.1:{engine.port_base + 1}")
    pids = {name: pid for name, pid in engine.pids().items() if name in ("ingress", "autoscaler", "nodeagent", "registry")}

    async def machine() -> leaks.Snapshot:
        socket = str(engine.run / "containerd" / "containerd.sock")
        return await leaks.snapshot_machine(engine.name, containerd=socket, store=store, pids=pids, marks=[str(engine.home)])

    try:
        before = await machine()
        for number in range(CYCLES):
            await asyncio.to_thread(cycle, engine, f"cycle-{number}")
        await asyncio.to_thread(until, lambda: not engine.instances(), "no instance", 60)
        await leaks.settled(before, machine, timeout_s=40)
    finally:
        await store.close()
