"""`deploy/bench warm`: what a warm request costs through Ebb's front door, beside HAProxy, nginx, Envoy and Caddy.

The same backend (nginx, 12 bytes), the same client (wrk, 32 kept connections), one worker each on core 0 while client and backend
have the other; rounds alternate over all doors, so that what the machine does besides hits all alike. CPU is the worker's own,
user and system, by /proc. Ebb runs with everything on: 1,000 services' routes from etcd, limits, metrics, admission. `half` is
latency at a fixed rate, half of what Ebb reached; `added` is that minus the backend's own, without a door.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.bench_warm_rivals import DOORS, HOST, Door, running

CONNECTIONS = 32
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the client. Latencies in ms."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    errors: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON. Exit code 0 when every answer of every run was good."""
    options = _options(argv)
    rounds, seconds = (2, 2) if options.quick else (5, 8)
    doors_wanted = tuple(options.only.split(",")) if options.only else DOORS
    with running(options.services, doors_wanted) as (doors, backend):
        figures, errors = measure(doors, backend, rounds, seconds)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    _print(figures, [door.name for door in doors], rounds, seconds)
    if errors:
        sys.stderr.write(f"bench warm: {errors} answers were not good\n")
    return 1 if errors else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/bench warm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s: a look, not a measurement")
    parser.add_argument("--services", type=int, default=1000, help="services whose routes the front door holds (default 1000)")
    parser.add_argument("--only", default="", metavar="DOORS", help=f"comma-separated, of {','.join(DOORS)}")
    return parser.parse_args(argv)


def measure(doors: list[Door], backend: int, rounds: int, seconds: int) -> tuple[dict[str, float], int]:
    """All figures, and how many answers were bad."""
    cpu_us: dict[str, list[float]] = defaultdict(list)
    runs: dict[str, list[Run]] = defaultdict(list)
    half: dict[str, list[Run]] = defaultdict(list)
    for door in doors:
        load(door.port, 1)
    for turn in range(rounds):
        for door in doors:
            _say(f"round {turn + 1}/{rounds}: {door.name}, full")
            before = cpu_s(door.pid)
            run = load(door.port, seconds)
            runs[door.name].append(run)
            cpu_us[door.name].append((cpu_s(door.pid) - before) * 1e6 / max(1, run.requests))
    paced = "ebb" if "ebb" in runs else doors[0].name
    rate = statistics.median(run.rps for run in runs[paced]) / 2
    for turn in range(rounds):
        for name, port in [("direct", backend), *((door.name, door.port) for door in doors)]:
            _say(f"round {turn + 1}/{rounds}: {name}, {rate:.0f} requests/s")
            half[name].append(load(port, max(1, seconds // 2), rate))
    figures: dict[str, float] = {"warm.half_load_rps": round(rate)}
    for door in doors:
        figures |= _figures(door, cpu_us[door.name], runs[door.name], half)
    for name in runs:
        if "ebb" in runs and name != "ebb":
            figures[f"warm.ratio_{name}"] = round(figures["warm.ebb_cpu_us"] / figures[f"warm.{name}_cpu_us"], 3)
    every = [run for group in (runs, half) for each in group.values() for run in each]
    return figures, sum(run.errors for run in every)


def _figures(door: Door, cpu_us: list[float], runs: list[Run], half: dict[str, list[Run]]) -> dict[str, float]:
    def middle(values: Sequence[float]) -> float:
        return round(statistics.median(values), 3)

    name = f"warm.{door.name}"
    direct_p50 = statistics.median(run.p50_ms for run in half["direct"])
    p50 = middle([run.p50_ms for run in half[door.name]])
    return {
        f"{name}_cpu_us": middle(cpu_us),
        f"{name}_rps": middle([run.rps for run in runs]),
        f"{name}_p50_ms": middle([run.p50_ms for run in runs]),
        f"{name}_p99_ms": middle([run.p99_ms for run in runs]),
        f"{name}_half_p50_ms": p50,
        f"{name}_half_p99_ms": middle([run.p99_ms for run in half[door.name]]),
        f"{name}_added_p50_ms": round(p50 - direct_p50, 3),
        f"{name}_rss_mb": round(rss_mb(door.pid), 1),
    }


def load(port: int, seconds: int, rate: float = 0.0) -> Run:
    """Run wrk against a port for `seconds`; with a `rate` its connections pause between requests to make about that many."""
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Host: {HOST}"]
    if (os.cpu_count() or 1) > 1:
        argv = ["taskset", "-c", "1", *argv]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if rate:
            # Random pauses around the mean, so that connections do not march in step; whole milliseconds are all wrk has.
            pause_ms = CONNECTIONS / rate * 1000
            script.write(f"function delay() return math.floor(math.random() * 2 * {pause_ms:.3f} + 0.5) end\n")
            script.flush()
            argv += ["-s", script.name]
        out = subprocess.run(
            [*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True, timeout=seconds + 30
        ).stdout
    return parse(out)


def parse(out: str) -> Run:
    """What wrk printed. Raises ValueError when it is not that."""
    found = {name: re.search(pattern, out) for name, pattern in _PATTERNS.items()}
    counted, rps, p50, p99 = (found[name] for name in ("requests", "rps", "p50", "p99"))
    if counted is None or rps is None or p50 is None or p99 is None:
        raise ValueError(f"not wrk's output: {out[:500]!r}")
    bad = found["bad"]
    broken = found["broken"]
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return Run(int(counted[1]), float(rps[1]), float(p50[1]) * _UNITS[p50[2]], float(p99[1]) * _UNITS[p99[2]], errors)


_PATTERNS = {
    "requests": r"(\d+) requests in",
    "rps": r"Requests/sec:\s+([\d.]+)",
    "p50": r"50%\s+([\d.]+)(us|ms|s)",
    "p99": r"99%\s+([\d.]+)(us|ms|s)",
    "bad": r"Non-2xx or 3xx responses: (\d+)",
    "broken": r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)",
}


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
    "rss_mb": "MB",
}


def _print(figures: dict[str, float], names: list[str], rounds: int, seconds: int) -> None:
    half = f"half load is {figures['warm.half_load_rps']:.0f} requests/s"
    table = Table(title=f"Warm requests: medians of {rounds} runs of {seconds} s; {half}")
    for column in ("", *_COLUMNS.values(), "ebb ÷ it"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in names:
        row = [figures[f"warm.{name}_{column}"] for column in _COLUMNS]
        ratio = figures.get(f"warm.ratio_{name}")
        table.add_row(name, *(f"{each:.0f}" if each >= 100 else f"{each:.2f}" for each in row), f"{ratio:.2f}" if ratio else "")
    Console(width=100).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
