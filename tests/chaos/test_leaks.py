"""Deploy → call → zero → delete, again and again, leaves nothing. `EBB_CYCLES=200` is the full run of the closing note."""

import os

from tests.e2e.engine import Engine, until
from tests.leaks import compare, snapshot_machine

CYCLES = int(os.environ.get("EBB_CYCLES", "20"))


def cycle(engine: Engine, name: str) -> None:
    engine.deploy(name, "test/static:v1", annotations={"window": "6s"})
    assert engine.get(name).status_code == 200
    engine.delete(name)


def test_cycles_of_deploy_call_and_delete_leave_nothing_behind(engine: Engine) -> None:
    cycle(engine, "warm-up")
    until(lambda: not engine.instances(service="warm-up"), "nothing of the warm-up", 30)
    before = snapshot_machine(engine)
    for number in range(CYCLES):
        cycle(engine, f"cycle-{number}")
    until(lambda: not engine.instances(), "no instance", 60)
    until(lambda: not compare(before, snapshot_machine(engine)), "the machine is as before", 40, every_s=1)
