"""How many cold starts a second are sustained: an open loop over many services, stepped up until callers wait too long.

A step calls each of rate × cooldown services once, evenly, whatever becomes of the earlier calls. Its first tenth does not count. It
is sustained when nothing failed and 99 % had their first byte within half a second. With nothing parked, the services of the
step's beginning go back to zero while its end is being started, as in real life. Parked starts come out of a stock: it is
filled again between the steps, since creating is what bounds that (see docs/performance.md).
"""

import asyncio
import time
from collections.abc import Sequence

from deploy.bench_cold_engine import PARKED, BenchEngine, note, percentile

COOLDOWN_S = 12
"""Of a service with the shortest window: 6 s idle, a tick, drain, stop, delete."""
WINDOW_S = 6
WITHIN_MS = 500.0
STEP = 1.25
STEPS = 6
STOCK = 500


def unparked(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.starts_per_s`."""
    return _highest(engine, "cold.starts_per_s", 10 if quick else 40, 400 if quick else 1000, park=False, quick=quick)


def parked(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.parked_starts_per_s`."""
    return _highest(engine, "cold.parked_starts_per_s", 20 if quick else 100, 60 if quick else STOCK, park=True, quick=quick)


def _highest(engine: BenchEngine, key: str, first: float, most: int, *, park: bool, quick: bool) -> dict[str, float]:
    """Step from `first` upwards while it is sustained, else downwards until it is; at most `most` services."""
    found, rate, figures, names = 0.0, first, {}, list[str]()
    for _ in range(2 if quick else STEPS):
        count = min(most, round(rate * COOLDOWN_S))
        fresh = [f"rate-{n}" for n in range(len(names), count)]
        engine.deploy_all(fresh, park=park, initial_scale=0, window_s=WINDOW_S)
        engine.until_ready(fresh, 300)
        names += fresh
        engine.until_at_zero(names, PARKED if park else "", timeout_s=300)
        took, failed = asyncio.run(_open_loop(engine, names[:count], rate))
        counted = took[len(took) // 10 :]
        p99_ms = percentile(counted, 0.99)
        note(f"{rate:.0f}/s over {count} services: p50 {percentile(counted, 0.5):.1f} ms, p99 {p99_ms:.1f} ms, {failed} failed")
        sustained = not failed and p99_ms < WITHIN_MS
        if sustained and rate > found:
            found = rate
            figures = {
                key: round(rate, 1),
                f"{key}.p50_ms": round(percentile(counted, 0.5), 1),
                f"{key}.p99_ms": round(p99_ms, 1),
            }
        if found and not sustained:
            break
        if sustained and rate < first:
            break
        rate = rate * STEP if sustained else rate / STEP
    return figures or {key: 0.0}


async def _open_loop(engine: BenchEngine, names: Sequence[str], rate: float) -> tuple[list[float], int]:
    """Call each of `names` once, `rate` a second. Milliseconds to the first byte in order of sending, and how many failed."""
    begin = time.monotonic()
    calls = []
    for number, name in enumerate(names):
        wait_s = begin + number / rate - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        calls.append(asyncio.create_task(engine.call_once(name)))
    outcomes = await asyncio.gather(*calls)
    return [took for took, _ in outcomes], sum(not good for _, good in outcomes)
