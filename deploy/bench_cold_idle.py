"""What an engine with very many services at zero takes: its own processes, and apart from them the parked instances."""

from deploy.bench_cold_engine import BenchEngine
from deploy.bench_cold_usage import measure_idle

THOUSAND = 1000
INSTANCES = ("containerd-shim", "crun", "runc", "exe")
"""Beginnings of the names of processes that are instances or serve them: as many as memory allows, not the engine's own."""


def thousand(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`idle.*`: 1,000 services that have been called and gone back to zero; parked as far as the node parks."""
    count = 100 if quick else THOUSAND
    names = [f"idle-{n}" for n in range(count)]
    engine.deploy_all(names, park=True, initial_scale=0)
    engine.until_ready(names, 600)
    engine.until_settled(count)
    taken = measure_idle(engine.home, 10 if quick else 60)
    own = {name: size for name, size in taken.pss_mb.items() if not name.startswith(INSTANCES)}
    parked = sum(taken.pss_mb.values()) - sum(own.values())
    return {
        "idle.services": float(count),
        "idle.cores": round(taken.cores, 4),
        "idle.rss_mb": round(sum(own.values()), 1),
        "idle.parked_mb": round(parked, 1),
        "idle.parked": float(engine.parked()),
    }
