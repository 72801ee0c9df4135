"""`deploy/bench workers`: what two workers of the front door do, beside one.

The same backend, client and routes as `bench warm`; a limit of 100, so that slots are lent. With four cores or more each worker has one of
its own, and `ratio` is requests per second of two over one. With fewer the client leaves two workers no room: both share core 0, CPU is
each worker's own by /proc (the client's is not in it), and `ratio` is 2 × (CPU per request of one) ÷ (CPU per request of two),
which is what two would do over one if each had a core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from deploy.bench_warm import cpu_s
from deploy.bench_warm_ebb import ebb
from deploy.bench_warm_kinds import parse_wrk
from deploy.bench_warm_rivals import HOST, READY_S, Door, running
from deploy.components import environment
from process import pids

CONNECTIONS = 64
GOAL = 1.8


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON. Exit code 0 when every answer was good."""
    parser = argparse.ArgumentParser(prog="deploy/bench workers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s: a look, not a measurement")
    parser.add_argument("--services", type=int, default=1000, help="services whose routes are held (default 1000)")
    options = parser.parse_args(argv)
    rounds, seconds = (2, 2) if options.quick else (7, 6)
    apart = (os.cpu_count() or 1) >= 4
    with running({"one": ebb("one", options.services), "two": ebb("two", options.services)}) as (doors, _):
        one, two = doors
        second = _again(two, core=2 if apart else 0)
        try:
            cpu_us, rps, errors = measure({"one": (one, [one.pid]), "two": (two, [two.pid, second.pid])}, rounds, seconds)
        finally:
            second.terminate()
            second.wait(40)
    figures = {f"workers.{name}_cpu_us": statistics.median(values) for name, values in cpu_us.items()}
    figures |= {f"workers.{name}_rps": statistics.median(values) for name, values in rps.items()}
    by_cpu = [2 * a / b for a, b in zip(cpu_us["one"], cpu_us["two"], strict=True)]
    by_rps = [b / a for a, b in zip(rps["one"], rps["two"], strict=True)]
    figures["workers.ratio"] = statistics.median(by_rps if apart else by_cpu)
    figures = {name: round(value, 3) for name, value in figures.items()}
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    how = "requests/s, a core each" if apart else "CPU per request, for want of cores"
    for name, value in figures.items():
        sys.stdout.write(f"{name:24} {value:12.3f}\n")
    sys.stdout.write(f"two workers do {figures['workers.ratio']:.2f} × one (by {how}; goal {GOAL})\n")
    if errors:
        sys.stderr.write(f"bench workers: {errors} answers were not good\n")
    return 1 if errors else 0


def measure(
    doors: dict[str, tuple[Door, list[int]]], rounds: int, seconds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], int]:
    """CPU µs per request and requests per second of each door, a round each; and how many answers were bad."""
    cpu_us: dict[str, list[float]] = defaultdict(list)
    rps: dict[str, list[float]] = defaultdict(list)
    errors = 0
    for turn in range(-1, rounds):  # The first is not counted: slots are lent, connections made.
        for name, (door, workers) in doors.items():
            sys.stderr.write(f"    round {turn + 1}/{rounds}: {name}\n")
            before = sum(map(cpu_s, workers))
            argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Host: {HOST}"]
            argv = ["taskset", "-c", "1", *argv] if (os.cpu_count() or 1) > 1 else argv
            url = f"http://127.0.0.1:{door.port}/"
            out = subprocess.run([*argv, url], capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
            run = parse_wrk(out)
            errors += run.errors
            if turn >= 0:
                cpu_us[name].append((sum(map(cpu_s, workers)) - before) * 1e6 / max(1, run.requests))
                rps[name].append(run.rps)
    return cpu_us, rps, errors


def _again(door: Door, core: int) -> "subprocess.Popen[bytes]":
    """One worker more of `door`: its command line once more. Returns when both accept. Raises RuntimeError."""
    argv = pids.command(door.pid)
    if (os.cpu_count() or 1) > 1:
        argv = ["taskset", "-c", str(core), *argv]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), cwd="/")
    until = time.monotonic() + READY_S
    while time.monotonic() < until and child.poll() is None:
        if _listeners(door.port) == 2:
            return child
        time.sleep(0.05)
    child.kill()
    child.wait()
    raise RuntimeError(f"a second worker does not listen on {door.port}")


def _listeners(port: int) -> int:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == port for fields in map(str.split, lines))


if __name__ == "__main__":
    raise SystemExit(main())
