"""`deploy/bench half-open`: ten thousand clients that never finish their request, and what that costs the others.

The same front door as in `deploy/bench warm`, on loopback. Memory is the growth of the worker's resident set from before the
connections to when all are open; latency is of requests on connections of their own, one after the other, while they are.
"""

import argparse
import json
import resource
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.bench_cold_engine import percentile
from deploy.bench_warm import SERVICES, rss_mb
from deploy.bench_warm_ebb import ebb
from deploy.bench_warm_rivals import HOST, running

HALF = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Half:".encode()
WHOLE = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
GOAL_MB, GOAL_P99_MS = 25.0, 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON. Exit code 1 when an answer was not good or a half-open connection did not stay."""
    parser = argparse.ArgumentParser(prog="deploy/bench half-open", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="2,000 connections, 200 requests")
    options = parser.parse_args(argv)
    count, requests = (2_000, 200) if options.quick else (10_000, 2_000)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with running({"ebb": ebb("ebb", SERVICES)}) as ((door,), _backends):
        for _ in range(200):
            fresh(door.port)
        before_mb = rss_mb(door.pid)
        held = [half_open(door.port) for _ in range(count)]
        took = [fresh(door.port) for _ in range(requests)]
        grown_mb = rss_mb(door.pid) - before_mb
        stayed = sum(still_open(each) for each in held)
        for each in held:
            each.close()
    figures = {
        "halfopen.connections": count,
        "halfopen.grown_mb": round(grown_mb, 2),
        "halfopen.fresh_p50_ms": round(percentile(took, 0.5), 3),
        "halfopen.fresh_p99_ms": round(percentile(took, 0.99), 3),
    }
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    table = Table(title=f"{count} half-open connections", box=None)
    for column in ("what", "figure", "goal"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("memory grown, MB", f"{grown_mb:.1f}", f"≤ {GOAL_MB * count / 10_000:g}")
    table.add_row("a fresh request, p50 ms", f"{figures['halfopen.fresh_p50_ms']}", "")
    table.add_row("a fresh request, p99 ms", f"{figures['halfopen.fresh_p99_ms']}", f"≤ {GOAL_P99_MS:g}")
    Console().print(table)
    if stayed < count:
        sys.stderr.write(f"bench half-open: {count - stayed} of {count} connections were closed before the end\n")
    return 1 if stayed < count else 0


def half_open(port: int) -> socket.socket:
    """A connection whose request has begun and goes no further."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=5)
    sock.sendall(HALF)
    return sock


def still_open(sock: socket.socket) -> bool:
    """Whether the front door still waits for the rest."""
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def fresh(port: int) -> float:
    """How long one request on a connection of its own took, ms. Raises RuntimeError when its answer is not good."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(WHOLE)
        answer = b""
        while more := sock.recv(65536):
            answer += more
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the front door answered {answer[:200]!r}")
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    sys.exit(main())
