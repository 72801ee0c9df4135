"""Deploys of an image that is present: one until its first 200, and fifty at once until all are Ready."""

import time
from concurrent.futures import ThreadPoolExecutor

from deploy.bench_cold_engine import PARKED, SERVICES, BenchEngine, NotInTime, note, percentile
from deploy.bench_cold_usage import measure_idle

WINDOW_S = 6
FIFTY = 50
BETWEEN_S = 0.3


def first_200(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`deploy.first_200_ms`: from the first byte of the POST until a caller who asks all the time gets a 200, one by one.

    Each is deleted, and not waited for: busybox does not end by SIGTERM, so its end takes the ten seconds of grace."""
    took = []
    names = [f"first-{number}" for number in range(5 if quick else 30)]
    for name in names:
        begin = time.perf_counter()
        engine.deploy(name, park=True, window_s=WINDOW_S)
        while not engine.answers(name):
            if time.perf_counter() - begin > 30:
                raise NotInTime(f"{name}: no 200 within 30 s of its deploy")
            time.sleep(0.002)
        took.append((time.perf_counter() - begin) * 1000)
        engine.call("DELETE", f"{SERVICES}/{name}")
        time.sleep(BETWEEN_S)
    engine.until_gone(names)
    return {"deploy.first_200_ms": round(percentile(took, 0.5), 1), "deploy.first_200_p99_ms": round(percentile(took, 0.99), 1)}


def fifty(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`deploy.fifty_ready_s`: from the first POST until all are Ready. Then what everything takes with these at zero."""
    names = [f"many-{n}" for n in range(FIFTY)]
    begin = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: engine.deploy(name, park=True, window_s=WINDOW_S), names))
    engine.until_ready(names, 180)
    took_s = time.monotonic() - begin
    note(f"{FIFTY} services created at once: all Ready after {took_s:.1f} s")
    engine.until_at_zero(names, PARKED)
    taken = measure_idle(engine.home, 5 if quick else 30)
    return {
        "deploy.fifty_ready_s": round(took_s, 2),
        "idle.fifty_cores": round(taken.cores, 4),
        "idle.fifty_rss_mb": round(sum(taken.pss_mb.values()), 1),
        "idle.fifty_rss_summed_mb": round(sum(taken.rss_mb.values()), 1),
    }
