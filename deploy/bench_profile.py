"""`deploy/bench profile`: where the time of a warm GET goes: the kernel, the loop and C, and our own steps one by one.

The first part is a real door under `bench warm`'s load, user and system time by /proc. The second drives the real protocol objects without
sockets in this process, by CPU time: a whole request with its answer, then its steps by themselves; the best of several rounds, since what
the machine does besides only adds.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from activator.admitter import Admitter
from deploy.bench_warm_ebb import ebb
from deploy.bench_warm_kinds import KINDS
from deploy.bench_warm_rivals import HOST, running
from ingress.access_log import AccessLog
from ingress.client import Client
from ingress.gate import Bounds, Gate
from ingress.listener import Listener
from ingress.metrics import Metrics
from ingress.pool import Pool
from ingress.ruled import follow
from ingress.upstream import Upstream
from process.clock import SystemClock
from store import keys
from store.lifecycle import Phase
from store.memory_bus import MemoryBus
from store.messages import Wake
from store.model import Instance, Limits, RouteEntry, TrafficTarget

SERVICES = 1_000
_NEVER = float("inf")
"""When an idle connection is probed or given up here, however long the machine does other things."""
KNOWN = b"GET / HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n\r\n"
BROWSER = (
    b"GET /page?number=%d HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Accept: text/html\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: session=%d\r\nConnection: keep-alive\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:%02d:%02d GMT\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n"
    b"Connection: keep-alive\r\n\r\nhello world\n"
)


class _Wire:
    """A transport that goes nowhere."""

    def write(self, data: bytes) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return "127.0.0.1", 1

    def is_closing(self) -> bool:
        return False


class Bench:
    """A front door with the routes of `SERVICES` services, one client and one connection to one instance."""

    def __init__(self) -> None:
        clock, metrics = SystemClock(), Metrics()

        async def stored(wake: Wake) -> None: ...

        def tell(*_: object, **__: object) -> None: ...

        admitter = Admitter(MemoryBus(), "bench", clock, stored, tell)
        self.gate = gate = Gate(admitter, clock, Bounds(), AccessLog("off", metrics), metrics, tell, follow)
        for place in range(SERVICES):
            name = f"service-{place}" if place else HOST.partition(".")[0]
            hosts = {f"{name}.default.localhost": [TrafficTarget(revision="r1", percent=100)]}
            limits = {"r1": Limits(container_concurrency=100)}
            entry = RouteEntry(project="default", route=name, hosts=hosts, limits=limits)
            gate.routes.put(keys.route("default", name), entry)
        news = Instance(
            instance="i1", project="default", revision="r1", node="n1", phase=Phase.READY, address="10.0.0.1:1", seq=1
        )
        admitter.heard(news, stored=True)
        self.throttler = admitter.throttlers[news.revision_key]
        self.throttler.limited(100, 0.0)
        self.throttler.quiet = False
        target = self.throttler.targets["i1"]
        target.connections = pool = Pool()
        wire: Any = _Wire()
        self.client = Client(Listener(gate), gate)
        self.client.connection_made(wire)
        nothing: Any = None
        self.upstream = Upstream(gate, target, pool, nothing)
        self.upstream.connection_made(wire)
        pool.give(self.upstream)

    def whole(self, head: bytes, answer: bytes) -> None:
        """One request and its answer, through everything."""
        self.upstream.since = self.upstream.idle_until = _NEVER
        self.client.data_received(head)
        self.upstream.data_received(answer)

    def steps(self) -> dict[str, Callable[[int], object]]:
        """What `whole` is made of, by itself."""
        gate, throttler = self.gate, self.throttler
        heads, answers = gate.requests, gate.responses
        stats = gate.metrics.stats(throttler.revision)
        known = ANSWER.partition(b"\r\n\r\n")[0] % (0, 0) + b"\r\n\r\n"
        fresh = ANSWER.partition(b"\r\n\r\n")[0] + b"\r\nX-Number: %d\r\n\r\n"

        def admit(_: int) -> None:
            target = throttler.reserve(1.0)
            assert target is not None
            throttler.release(target, 1.0)

        def count(_: int) -> None:
            stats.by_class[2] += 1
            stats.at_once.add(0.001)
            stats.sent_bytes += 12

        return {
            "a known head": lambda _: heads.known(KNOWN),
            "a new head": lambda number: heads.parse(BROWSER % (number, number)),
            "route and revision": lambda _: gate.routes.memo.get(HOST.encode()),
            "choose an instance, count in and out": admit,
            "ids, X-Forwarded-*, Forwarded, traceparent": lambda _: gate.marked(heads.parse(KNOWN), b"x" * 180),
            "a known answer's head": lambda _: answers.parse(known, b"GET"),
            "a new answer's head": lambda number: answers.parse(fresh % (number % 60, 0, number), b"GET"),
            "metrics": count,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON. Exit code 0 when every answer was good."""
    parser = argparse.ArgumentParser(prog="deploy/bench profile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    options = parser.parse_args(argv)
    rounds, count = (3, 2_000) if options.quick else (9, 20_000)
    figures, errors = outside(2 if options.quick else 8)
    figures |= asyncio.run(inside(rounds, count))
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    table = Table(title="a warm GET, µs of CPU", box=None)
    table.add_column("")
    table.add_column("µs", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.2f}")
    Console(width=100).print(table)
    return 1 if errors else 0


def outside(seconds: int) -> tuple[dict[str, float], int]:
    """User and system time of a real door per request, and how many answers were bad."""
    with running({"ebb": ebb("ebb", SERVICES)}) as (doors, _):
        (door,) = doors
        KINDS[0].load(door, 1, 0)
        before = _times(door.pid)
        run = KINDS[0].load(door, seconds, 0)
        spent = [(after - at) * 1e6 / max(1, run.requests) for after, at in zip(_times(door.pid), before, strict=True)]
    return {"the door: user": round(spent[0], 2), "the door: kernel": round(spent[1], 2)}, run.errors


def _times(pid: int) -> tuple[float, float]:
    """(user, system) seconds of `pid`."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK"), int(fields[12]) / os.sysconf("SC_CLK_TCK")


async def inside(rounds: int, count: int) -> dict[str, float]:
    """Our own part: the whole of it for heads that are known and for new ones, and its steps."""
    bench = Bench()
    gc.collect()
    gc.freeze()
    answer = ANSWER % (0, 0)
    figures = {
        "ours, heads known": _best(lambda _: bench.whole(KNOWN, answer), rounds, count),
        "ours, a browser's head, never the same": _best(lambda at: bench.whole(BROWSER % (at, at), answer), rounds, count),
    }
    gc.unfreeze()
    return figures | {f"  {name}": _best(step, rounds, count) for name, step in bench.steps().items()}


def _best(step: Callable[[int], object], rounds: int, count: int) -> float:
    """µs that `step` takes; each call gets another number."""
    best = float("inf")
    for turn in range(rounds):
        begun = time.process_time()
        for number in range(turn * count, (turn + 1) * count):
            step(number)
        best = min(best, time.process_time() - begun)
    return round(best / count * 1e6, 2)


if __name__ == "__main__":
    sys.exit(main())
