"""`deploy/simulate`: the real throttler, policy, placement, plan, parking and back-off on virtual time, from one seed.

The same callers are played against each policy: *knative* (its defaults: a window of 60 s, its activator being in the path already, as
its burst capacity of 211 has it for small apps), *grace* (the same and 30 s more, which it waits at most when it is not), *fixed* (an
instance is kept for ten minutes), *learned* (each revision's own idle times, `autoscaler/keepalive.py`, within the memory-time
that a window of 60 s takes) and *frugal* (the same within half of it), *frozen* (*learned*, and what boots slowly frozen). Two
yardsticks say what could be had: *known* is *learned* with all idle times known from the start; *oracle*
knows when the next call comes and keeps, within the same memory-time, what is shortest to keep, but starts nothing ahead. Printed are the
share of calls that found nothing running, and that found nothing parked either;
slowdown (time with the wait ÷ time without), idle memory-time with that of instances beside busy ones and of parked ones, instances
started, and how far above its need a revision went at most.
"""

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from deploy.simulate_traces import MIXES, draw, most_per_s
from deploy.simulate_world import Faults, World
from store.model import Node, Revision, ScaleSpec

POLICIES = ("knative", "grace", "fixed", "learned", "frugal", "frozen")
YARDSTICKS = ("known", "oracle")
FIXED_S = 600.0
CALLS = 5e6
"""What a core plays in some minutes."""
AFTER_S = 300.0
"""Played on after the last call, for what waits to end."""
Figures = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Play, print, write JSON. Exit code 1 when something happened that never should."""
    options = _options(argv)
    policies = options.policy or POLICIES + YARDSTICKS
    found: dict[str, Figures] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(policies), os.cpu_count() or 1), context) as pool:
        playing = {policy: pool.submit(play, options, policy) for policy in policies}
        for policy, played in playing.items():
            broken, figures, took_s = played.result()
            if broken:
                sys.stderr.write(f"simulate: seed {options.seed}, policy {policy}: {broken}\n")
                return 1
            found[policy] = figures
            sys.stderr.write(f"simulate: {policy} played in {took_s:.1f} s of CPU\n")
    if options.json:
        made_of = {"seed": options.seed, "mix": options.mix, "services": options.services, "hours": options.hours}
        Path(options.json).write_text(json.dumps(made_of | {"policies": found}, indent=2, sort_keys=True) + "\n")
    sys.stdout.write(table(found))
    return 0


def play(options: argparse.Namespace, policy: str) -> tuple[str, Figures, float]:
    """One policy: what broke, the figures, and the seconds of CPU it took."""
    begin = time.process_time()
    world = make(
        options.seed,
        options.services,
        options.hours * 3600,
        policy,
        options.nodes,
        faulty=options.faults,
        mix=options.mix,
        calls=options.calls,
    )
    gc.disable()  # Nothing here refers to itself in a circle; looking for circles takes a tenth of the time.
    world.play(world.until + AFTER_S)
    return (world.broken[0] if world.broken else ""), summary(world), time.process_time() - begin


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/simulate", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1, help="everything comes from it (1)")
    parser.add_argument("--mix", choices=sorted(MIXES), default="wild", help="which kinds of callers there are (wild)")
    parser.add_argument("--services", type=int, default=100, help="apps there are (100)")
    parser.add_argument(
        "--calls", type=float, default=CALLS, help="the busiest apps are cut until all have about so many (5e6)"
    )
    parser.add_argument("--hours", type=float, default=24.0, help="how long their callers call (24)")
    parser.add_argument("--nodes", type=int, default=0, help="machines of 16 GB (one for 20 apps)")
    parser.add_argument("--policy", choices=POLICIES + YARDSTICKS, action="append", help="this one; may be repeated (all)")
    parser.add_argument("--faults", action="store_true", help="1 %% of the starts fail, and machines leave and come back")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    return parser.parse_args(argv)


def make(
    seed: int, services: int, until: float, policy: str, nodes: int = 0, *,
    faulty: bool = False, mix: str = "wild", calls: float = CALLS,
) -> World:  # fmt: skip
    """The world of `seed` under `policy`; callers and machines are the same under each."""
    spec = ScaleSpec(retention_s=FIXED_S - 60) if policy == "fixed" else ScaleSpec()
    apps = []
    for number, trace in enumerate(draw(seed, services, mix, most_per_s(services, until, calls, mix))):
        name = f"app-{number:05}"
        revision = Revision(
            project="p", name=name, image=f"i@sha256:{number}", memory_request_bytes=trace.memory_bytes, scale=spec,
            container_concurrency=(0, 1, 10)[number % 3],
        )  # fmt: skip
        apps.append((revision, trace))
    machines = [Node(node=f"node-{n:04}", cpu_m=8000, memory_bytes=16 << 30) for n in range(nodes or max(2, services // 20))]
    faults = Faults(start=0.01, node=1 / 3600) if faulty else None
    return World(seed, apps, machines, until, policy=policy, faults=faults)


def summary(world: World) -> Figures:
    """What came of it all, over all apps."""
    ledgers = [app.ledger for app in world.apps.values()]
    for app in world.apps.values():
        app.ledger.busies(0, world.now)
    waited = sorted(value for ledger in ledgers for value in ledger.waited)
    calls = sum(ledger.came for ledger in ledgers)
    shares = sorted(ledger.cold / ledger.came for ledger in ledgers if ledger.came)
    return {
        "calls": calls,
        "cold_share": round(sum(ledger.cold for ledger in ledgers) / max(1, calls), 5),
        "cold_share_not_parked": round(sum(ledger.cold_unparked for ledger in ledgers) / max(1, calls), 5),
        "cold_share_of_the_median_app": round(statistics.median(shares), 4) if shares else 0.0,
        "slowdown_p50": round(_at(waited, 0.5, calls), 3),
        "slowdown_p99": round(_at(waited, 0.99, calls), 3),
        "slowdown_p99.9": round(_at(waited, 0.999, calls), 2),
        "wasted_gb_h": round(sum(ledger.wasted_mb_s for ledger in ledgers) / 1024 / 3600, 2),
        "of_it_spare_gb_h": round(sum(ledger.spare_mb_s for ledger in ledgers) / 1024 / 3600, 2),
        "of_it_parked_gb_h": round(sum(ledger.parked_mb_s for ledger in ledgers) / 1024 / 3600, 2),
        "started": sum(ledger.starts for ledger in ledgers),
        "overshoot": round(max((ledger.over for ledger in ledgers), default=0.0), 2),
        "refused": sum(ledger.refused for ledger in ledgers),
    }


def _at(waited: Sequence[float], share: float, calls: int) -> float:
    """The slowdown that `share` of all `calls` do not exceed; who did not wait has 1."""
    place = int(share * calls) - (calls - len(waited))
    return waited[min(place, len(waited) - 1)] if place >= 0 and waited else 1.0


def table(found: dict[str, Figures]) -> str:
    """The figures side by side."""
    names = list(next(iter(found.values())))
    lines = [f"{'':30}" + "".join(f"{policy:>12}" for policy in found)]
    lines += [f"{name:30}" + "".join(f"{figures[name]:>12g}" for figures in found.values()) for name in names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
