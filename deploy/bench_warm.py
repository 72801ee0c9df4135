"""`deploy/bench warm`: what a warm request costs through Ebb's front door, beside HAProxy, nginx, Envoy and Caddy.

The same backends, the same clients (deploy/bench_warm_kinds.py), one worker each on core 0 while clients and backends have the
other; rounds alternate over all doors, so that what the machine does besides hits all alike. CPU is the worker's own, user and
system, by /proc. Ebb runs with everything on: 1,000 services' routes from etcd, limits, metrics, admission; `ebb10k` is the same
with 10,000 services. `half` is latency at a fixed rate, half of what Ebb reached; `added` is that minus the backend's own,
without a door.
"""

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.bench_warm_ebb import ebb
from deploy.bench_warm_kinds import KINDS, Kind, Run
from deploy.bench_warm_rivals import RIVALS, Door, Start, running

SERVICES, MANY = 1_000, 10_000
STARTS: dict[str, Start] = {"ebb": ebb("ebb", SERVICES), "ebb10k": ebb("ebb10k", MANY), **RIVALS}
DIRECT = "direct"
Figures = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table a kind, write JSON. Exit code 0 when every answer of every run was good."""
    options = _options(argv)
    rounds, seconds = (2, 2) if options.quick else (options.rounds, options.seconds)
    starts = {name: start for name, start in STARTS.items() if name in options.only}
    figures: Figures = {}
    errors = 0
    with running(starts) as (doors, backends):
        for kind in KINDS:
            if kind.name in options.kinds:
                # Only the plain GET is a question to the number of services.
                asked = [door for door in doors if door.name != "ebb10k" or not kind.prefix]
                direct = kind.direct(backends)
                found, bad = measure(kind, asked, Door(DIRECT, direct, direct, 0), rounds, seconds)
                figures |= found
                errors += bad
                _print(kind, found, [door.name for door in asked], rounds, seconds)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    if errors:
        sys.stderr.write(f"bench warm: {errors} answers were not good\n")
    return 1 if errors else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            wrong = [each for each in text.split(",") if each not in known]
            if wrong:
                raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not one of {', '.join(known)}")
            return text.split(",")

        return parse

    kinds = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(prog="deploy/bench warm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s: a look, not a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each door (default 5)")
    parser.add_argument(
        "--seconds", type=int, default=8, help="length of a run at full load, half of it at half load (default 8)"
    )
    parser.add_argument("--only", default=list(STARTS), type=some_of(list(STARTS)), metavar="DOORS", help=",".join(STARTS))
    parser.add_argument("--kinds", default=kinds, type=some_of(kinds), metavar="KINDS", help=",".join(kinds))
    return parser.parse_args(argv)


def measure(kind: Kind, doors: list[Door], direct: Door, rounds: int, seconds: int) -> tuple[Figures, int]:
    """All figures of one kind, and how many answers were bad."""
    cpu_us: dict[str, list[float]] = defaultdict(list)
    runs: dict[str, list[Run]] = defaultdict(list)
    half: dict[str, list[Run]] = defaultdict(list)
    for door in doors:
        kind.load(door, 1, 0)
    for turn in range(rounds):
        for door in doors:
            _say(f"{kind.name}, round {turn + 1}/{rounds}: {door.name}, full")
            before = cpu_s(door.pid)
            run = kind.load(door, seconds, 0)
            runs[door.name].append(run)
            cpu_us[door.name].append((cpu_s(door.pid) - before) * 1e6 / max(1, run.requests))
    rate = statistics.median(run.rps for run in runs[doors[0].name]) / 2
    for turn in range(rounds):
        for door in (direct, *doors):
            _say(f"{kind.name}, round {turn + 1}/{rounds}: {door.name}, {rate:.0f}/s")
            half[door.name].append(kind.load(door, max(1, seconds // 2), rate))
    name = f"warm.{kind.prefix}"
    figures: Figures = {f"{name}half_load_rps": round(rate)}
    for door in doors:
        figures |= {
            f"{name}{door.name}_{key}": value for key, value in _figures(door, cpu_us[door.name], runs[door.name], half)
        }
    for door in doors[1:]:
        if doors[0].name == "ebb":
            figures[f"{name}ratio_{door.name}"] = round(figures[f"{name}ebb_cpu_us"] / figures[f"{name}{door.name}_cpu_us"], 3)
    every = [run for group in (runs, half) for each in group.values() for run in each]
    return figures, sum(run.errors for run in every)


def _figures(door: Door, cpu_us: list[float], runs: list[Run], half: dict[str, list[Run]]) -> list[tuple[str, float]]:
    def middle(values: Sequence[float]) -> float:
        return round(statistics.median(values), 3)

    p50, p99 = middle([run.p50_ms for run in half[door.name]]), middle([run.p99_ms for run in half[door.name]])
    return [
        ("cpu_us", middle(cpu_us)),
        ("rps", middle([run.rps for run in runs])),
        ("p50_ms", middle([run.p50_ms for run in runs])),
        ("p99_ms", middle([run.p99_ms for run in runs])),
        ("half_p50_ms", p50),
        ("half_p99_ms", p99),
        ("added_p50_ms", round(p50 - middle([run.p50_ms for run in half[DIRECT]]), 3)),
        ("added_p99_ms", round(p99 - middle([run.p99_ms for run in half[DIRECT]]), 3)),
        ("rss_mb", round(rss_mb(door.pid), 1)),
    ]


def cpu_s(pid: int) -> float:
    """CPU seconds that `pid` has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of `pid` now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _say(what: str) -> None:
    sys.stderr.write(f"    {what}\n")
    sys.stderr.flush()


_COLUMNS = {
    "cpu_us": "CPU µs",
    "rps": "rps",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "half_p50_ms": "half p50",
    "half_p99_ms": "half p99",
    "added_p50_ms": "added p50",
    "added_p99_ms": "added p99",
    "rss_mb": "MB",
}


def _print(kind: Kind, figures: Figures, names: list[str], rounds: int, seconds: int) -> None:
    name = f"warm.{kind.prefix}"
    half = f"half load is {figures[f'{name}half_load_rps']:.0f}/s"
    table = Table(title=f"{kind.title}: medians of {rounds} runs of {seconds} s; {half}")
    for column in ("", *_COLUMNS.values(), "ebb ÷ it"):
        table.add_column(column, justify="right", no_wrap=True)
    for door in names:
        row = [figures[f"{name}{door}_{column}"] for column in _COLUMNS]
        ratio = figures.get(f"{name}ratio_{door}")
        table.add_row(door, *(f"{each:.0f}" if each >= 100 else f"{each:.2f}" for each in row), f"{ratio:.2f}" if ratio else "")
    Console(width=120).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
