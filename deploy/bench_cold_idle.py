"""What an engine with very many services at zero takes: its own programs, and apart from them its servers and the parked instances."""

from deploy.bench_cold_engine import BenchEngine
from deploy.bench_cold_usage import measure_idle

THOUSAND = 1000
SERVERS = ("etcd", "nats-server", "containerd")
"""What others made and an engine runs beside its own programs."""
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
    figures = {"idle.services": float(count), "idle.parked": float(engine.parked())}
    for whose, prefix in (("own", "idle"), ("servers", "idle.servers"), ("instances", "idle.instances")):
        names_of = [name for name in taken.pss_mb if whose_is(name) == whose]
        figures[f"{prefix}.cores"] = round(sum(taken.cores_by_name[name] for name in names_of), 4)
        figures[f"{prefix}.rss_mb"] = round(sum(taken.pss_mb[name] for name in names_of), 1)
    return figures


def whose_is(name: str) -> str:
    """Whether a process of that name is the engine's own, one of its servers, or serves instances."""
    if name.startswith(INSTANCES):
        return "instances"
    return "servers" if name in SERVERS else "own"
