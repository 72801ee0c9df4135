"""Ten thousand services that nobody calls, and five hundred instances parked at once."""

import random
import time

from deploy.bench_cold_engine import BenchEngine, note, percentile
from deploy.bench_cold_usage import own_bytes

MANY = 10_000
PARKED = 500
WAKES = 50


def ten_thousand(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`many.*`: how long they take to register and to list, what each costs in memory, and how quickly any of them wakes."""
    count = 500 if quick else MANY
    names = [f"svc-{n:05}" for n in range(count)]
    engine.deploy_all(["warm-up"], park=False, initial_scale=0)
    engine.until_ready(["warm-up"], 60)
    engine.first_byte("warm-up")
    before = own_bytes(engine.home)
    began = time.monotonic()
    engine.deploy_all(names, park=False, initial_scale=0)
    posted_s = time.monotonic() - began
    engine.until_ready(names, 1200, every_s=2)
    ready_s = time.monotonic() - began
    note(f"{count} services: posted after {posted_s:.1f} s, all Ready after {ready_s:.1f} s")
    engine.until_settled(0)
    after = own_bytes(engine.home)
    began = time.monotonic()
    listed = len(engine.services())
    list_s = time.monotonic() - began
    if listed < count:
        raise RuntimeError(f"{listed} services are listed, {count} were made")
    took = [engine.first_byte(name)[0] for name in random.Random(1).sample(names, 10 if quick else WAKES)]
    figures = {
        "many.services": count,
        "many.posted_per_s": count / posted_s,
        "many.ready_per_s": count / ready_s,
        "many.list_s": list_s,
        "many.wake_p50_ms": percentile(took, 0.5),
        "many.wake_p99_ms": percentile(took, 0.99),
    }
    figures |= {f"many.{role}_bytes_per_service": (after[role] - before[role]) / count for role in before}
    return {name: round(value, 2) for name, value in figures.items()}


def five_hundred_parked(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`parked_many.*`: 500 parked side by side, how long that takes, and how quickly any of them wakes."""
    count = 40 if quick else PARKED
    names = [f"parked-{n}" for n in range(count)]
    began = time.monotonic()
    engine.deploy_all(names, park=True, initial_scale=0)
    engine.until_settled(count)
    parked_s = time.monotonic() - began
    took = [engine.first_byte(name)[0] for name in random.Random(1).sample(names, 10 if quick else WAKES)]
    return {
        "parked_many.instances": float(count),
        "parked_many.all_parked_s": round(parked_s, 1),
        "parked_many.wake_p50_ms": round(percentile(took, 0.5), 2),
        "parked_many.wake_p99_ms": round(percentile(took, 0.99), 2),
    }
