"""`deploy/simulate`: the real throttler, policy, placement, plan, parking and back-off on virtual time, from one seed.

The same callers are played against each policy: *knative* (its defaults: 60 s window, up to 30 s of grace), *fixed* (an instance is
kept for ten minutes) and *learned* (each revision's own idle times, `autoscaler/keepalive.py`). Printed are the share of calls that
found nothing running, slowdown (time with the wait ÷ time without), idle memory-time, instances started, and how far above its
need a revision went at most.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.simulate_traces import draw
from deploy.simulate_world import Faults, World
from store.model import Node, Revision, ScaleSpec

POLICIES = ("knative", "fixed", "learned")
FIXED_S = 600.0
AFTER_S = 300.0
"""Played on after the last call, for what waits to end."""
Figures = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Play, print, write JSON. Exit code 1 when something happened that never should."""
    options = _options(argv)
    found: dict[str, Figures] = {}
    for policy in [options.policy] if options.policy else POLICIES:
        begin = time.perf_counter()
        world = make(options.seed, options.revisions, options.hours * 3600, policy, options.nodes, faulty=options.faults)
        world.play(world.until + AFTER_S)
        if world.broken:
            sys.stderr.write(f"simulate: seed {options.seed}, policy {policy}: {world.broken[0]}\n")
            return 1
        found[policy] = summary(world)
        sys.stderr.write(f"simulate: {policy} played in {time.perf_counter() - begin:.1f} s\n")
    if options.json:
        Path(options.json).write_text(json.dumps({"seed": options.seed, "policies": found}, indent=2, sort_keys=True) + "\n")
    sys.stdout.write(table(found))
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/simulate", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=1, help="everything comes from it (1)")
    parser.add_argument("--revisions", type=int, default=100, help="apps there are (100)")
    parser.add_argument("--hours", type=float, default=24.0, help="how long their callers call (24)")
    parser.add_argument("--nodes", type=int, default=0, help="machines of 16 GB (one for 20 apps)")
    parser.add_argument("--policy", choices=POLICIES, help="this one alone; by default all are compared")
    parser.add_argument("--faults", action="store_true", help="1 %% of the starts fail, and machines leave and come back")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    return parser.parse_args(argv)


def make(seed: int, revisions: int, until: float, policy: str, nodes: int = 0, *, faulty: bool = False) -> World:
    """The world of `seed` under `policy`; callers and machines are the same under each."""
    spec = ScaleSpec(retention_s=FIXED_S - 60) if policy == "fixed" else ScaleSpec()
    apps = []
    for number, trace in enumerate(draw(seed, revisions)):
        name = f"app-{number:05}"
        revision = Revision(
            project="p", name=name, image=f"i@sha256:{number}", memory_request_bytes=trace.memory_bytes, scale=spec,
            container_concurrency=(0, 1, 10)[number % 3],
        )  # fmt: skip
        apps.append((revision, trace))
    machines = [Node(node=f"node-{n:04}", cpu_m=8000, memory_bytes=16 << 30) for n in range(nodes or max(2, revisions // 20))]
    faults = Faults(start=0.01, node=1 / 3600) if faulty else None
    return World(seed, apps, machines, until, policy=policy, faults=faults)


def summary(world: World) -> Figures:
    """What came of it all, over all apps."""
    apps = world.apps.values()
    slow = sorted(value for app in apps for value in app.slow)
    calls = sum(app.came for app in apps)
    shares = sorted(app.cold / app.came for app in apps if app.came)
    return {
        "calls": calls,
        "cold_share": round(sum(app.cold for app in apps) / max(1, calls), 5),
        "cold_share_of_the_median_app": round(statistics.median(shares), 4) if shares else 0.0,
        "slowdown_p50": round(_at(slow, 0.5), 3),
        "slowdown_p99": round(_at(slow, 0.99), 2),
        "wasted_gb_h": round(sum(app.wasted_mb_s for app in apps) / 1024 / 3600, 2),
        "started": sum(app.starts for app in apps),
        "overshoot": round(max((app.over for app in apps), default=0.0), 2),
        "refused": sum(app.refused for app in apps),
    }


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def table(found: dict[str, Figures]) -> str:
    """The figures side by side."""
    names = list(next(iter(found.values())))
    lines = [f"{'':30}" + "".join(f"{policy:>12}" for policy in found)]
    lines += [f"{name:30}" + "".join(f"{figures[name]:>12g}" for figures in found.values()) for name in names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
