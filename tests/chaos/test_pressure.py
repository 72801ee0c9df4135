"""Memory pressure while many are parked: some go, calls are served. `EBB_PARKED=200` is the full run."""

import os

from tests.e2e.engine import Engine, until

PARKED = int(os.environ.get("EBB_PARKED", "20"))
CALM = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
PRESSED = "some avg10=35.00 avg60=0.00 avg300=0.00 total=0\n"


def test_under_memory_pressure_parked_instances_go_and_every_call_is_served(engine: Engine, app: str) -> None:
    names = [f"{app[:40]}-{number}" for number in range(PARKED)]

    def parked() -> int:
        return sum(i["service"] in names for i in engine.instances(phases=("Parked",)))

    try:
        for name in names:
            engine.deploy(name, "test/static:v1", annotations={"initial-scale": "0", "window": "6s"}, wait_s=0)
        until(lambda: parked() == PARKED, f"{PARKED} parked", 60 + PARKED)
        engine.pressure.write_text(PRESSED)
        until(lambda: parked() <= PARKED * 0.9, "a tenth of them went", 30)
        assert "memory pressure" in engine.ebb("nodes").stdout
        assert all(engine.get(name).status_code == 200 for name in names)
    finally:
        engine.pressure.write_text(CALM)
        for name in names:
            engine.delete(name)
