"""`deploy/bench cold`: how long the first caller waits, how many first callers a second, and what an idle engine takes.

Each part starts an engine of its own and leaves nothing behind, so that any of them can be run alone (`--only parked,idle`).
The figures are printed beside their goals; a goal that is missed is told and fails nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deploy import bench_cold_deploys, bench_cold_idle, bench_cold_many, bench_cold_rates, bench_cold_rollout, bench_cold_starts
from deploy.bench_cold_engine import BenchEngine

Part = Callable[[BenchEngine, bool], Mapping[str, float]]
"""Measures on a fresh engine; True: quickly, a look and not a measurement."""

PARTS: dict[str, tuple[Part, str]] = {
    "parked": (bench_cold_starts.parked, "from zero to first byte, one instance created beforehand (the default)"),
    "pooled": (bench_cold_starts.pooled, "the same with nothing parked: image unpacked, network namespaces ready"),
    "frozen": (bench_cold_starts.frozen, "the same with the last instance kept, stopped by the freezer"),
    "frozen-python": (bench_cold_starts.frozen_python, "the same of a web app in Python"),
    "gvisor": (bench_cold_starts.gvisor, "in gVisor, with nothing parked and parked"),
    "parked-rate": (bench_cold_rates.parked, "parked starts a second that an open loop over many services sustains"),
    "rate": (bench_cold_rates.unparked, "the same with nothing parked"),
    "deploy": (bench_cold_deploys.first_200, "from the POST of a service of a present image to its first 200"),
    "fifty": (bench_cold_deploys.fifty, "fifty services created at once, until all are Ready; then what they take at zero"),
    "rollout": (bench_cold_rollout.rollout, "twenty deploys under 200 requests a second, traffic shifted in two steps each"),
    "idle": (bench_cold_idle.thousand, "memory and CPU with 1,000 services at zero"),
    "many": (bench_cold_many.ten_thousand, "10,000 idle services: registered, listed, woken; memory per service"),
    "parked-many": (bench_cold_many.five_hundred_parked, "500 instances parked at once, and any of them woken"),
}

GOALS: dict[str, tuple[str, float]] = {
    "cold.parked_p50_ms": ("≤", 20),
    "cold.parked_p99_ms": ("≤", 50),
    "cold.pooled_p50_ms": ("≤", 80),
    "cold.pooled_p99_ms": ("≤", 200),
    "cold.frozen_p50_ms": ("≤", 15),
    "cold.frozen_python_p50_ms": ("≤", 20),
    "cold.gvisor_p50_ms": ("≤", 400),
    "cold.starts_per_s": ("≥", 40),
    "cold.parked_starts_per_s": ("≥", 100),
    "deploy.first_200_ms": ("≤", 250),
    "deploy.fifty_ready_s": ("≤", 5),
    "rollout.failed": ("≤", 0),
    "rollout.p95_ratio": ("≤", 1.1),
    "idle.cores": ("≤", 0.03),
    "idle.rss_mb": ("≤", 400),
    "idle.fifty_cores": ("≤", 0.04),
    "idle.fifty_rss_mb": ("≤", 500),
    "many.ingress_bytes_per_service": ("≤", 2048),
    "many.autoscaler_bytes_per_service": ("≤", 4096),
}
"""For two cores."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON. Exit code 0 when everything was measured."""
    options = _options(argv)
    figures: dict[str, float] = {}
    for name in options.only:
        part, what = PARTS[name]
        _say(f"{name}: {what}")
        with BenchEngine() as engine:
            figures |= part(engine, options.quick)
        if options.json:
            Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    for line in table(figures):
        sys.stdout.write(line + "\n")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parts = "; ".join(f"{name}: {what}" for name, (_, what) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="deploy/bench cold", description=(__doc__ or "").partition("\n")[0], epilog=f"Parts: {parts}."
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well, after every part")
    parser.add_argument("--only", metavar="PART,…", type=_parts, default=list(PARTS), help="these parts alone; see below")
    parser.add_argument("--quick", action="store_true", help="few samples and small numbers: a look, not a measurement")
    return parser.parse_args(argv)


def _parts(text: str) -> list[str]:
    wanted = [word.strip() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in PARTS:
            raise argparse.ArgumentTypeError(f"{word!r} is no part; one of: {', '.join(PARTS)}")
    return wanted


def table(figures: Mapping[str, float]) -> list[str]:
    """One line a figure, with its goal and whether it is reached."""
    lines = [f"{'figure':44} {'value':>12}  goal"]
    for name in sorted(figures):
        value, goal = figures[name], ""
        if name in GOALS:
            sign, bound = GOALS[name]
            met = value <= bound if sign == "≤" else value >= bound
            goal = f"{sign} {bound:g}{'' if met else '  missed'}"
        lines.append(f"{name:44} {value:>12}  {goal}".rstrip())
    return lines


def _say(text: str) -> None:
    sys.stderr.write(f"bench cold: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
