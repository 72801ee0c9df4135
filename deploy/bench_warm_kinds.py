"""What `bench warm` asks of every door: six kinds of load, and the client that makes each.

wrk for HTTP/1.1, h2load for HTTP/2 and gRPC, our own for WebSocket messages; each on core 1, for a time, as fast as it goes or at
a rate. All give the same `Run`.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.bench_warm_rivals import GRPC, HOST, LARGE, WEBSOCKET, Backends, Door

CONNECTIONS = 32
STREAMS = 10
H2_CONNECTIONS = 4
"""Times `STREAMS`: about what 32 connections have in flight."""
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the client. Latencies in ms."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    errors: int


Load = Callable[[Door, int, float], Run]
"""load(door, seconds, rate): rate 0 is as fast as it goes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of load. `prefix` begins its keys after `warm.`; the first kind's is empty. `direct` is the backend's own port."""

    name: str
    prefix: str
    title: str
    load: Load
    direct: Callable[[Backends], int]


def on_core_1(argv: list[str]) -> list[str]:
    """The client and the backends share the core that the doors do not have."""
    return ["taskset", "-c", "1", *argv] if (os.cpu_count() or 1) > 1 else argv


# -- wrk ------------------------------------------------------------------------------------------------------------------------


def _wrk(path: str, body_bytes: int = 0) -> Load:
    def load(door: Door, seconds: int, rate: float) -> Run:
        lines = []
        if body_bytes:
            lines.append(f'wrk.method = "POST"\nwrk.body = string.rep("x", {body_bytes})')
        if rate:
            # Random pauses around the mean, so that connections do not march in step; whole milliseconds are all wrk has.
            pause_ms = CONNECTIONS / rate * 1000
            lines.append(f"function delay() return math.floor(math.random() * 2 * {pause_ms:.3f} + 0.5) end")
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write("\n".join(lines))
            script.flush()
            argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Host: {HOST}"]
            argv += ["-s", script.name] if lines else []
            return parse_wrk(_run([*argv, f"http://127.0.0.1:{door.port}{path}"], seconds))

    return load


def parse_wrk(out: str) -> Run:
    """What wrk printed. Raises ValueError when it is not that."""
    found = {name: re.search(pattern, out) for name, pattern in _WRK.items()}
    counted, rps, p50, p99 = (found[name] for name in ("requests", "rps", "p50", "p99"))
    if counted is None or rps is None or p50 is None or p99 is None:
        raise ValueError(f"not wrk's output: {out[:500]!r}")
    bad = found["bad"]
    broken = found["broken"]
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return Run(int(counted[1]), float(rps[1]), float(p50[1]) * _UNITS[p50[2]], float(p99[1]) * _UNITS[p99[2]], errors)


_WRK = {
    "requests": r"(\d+) requests in",
    "rps": r"Requests/sec:\s+([\d.]+)",
    "p50": r"50%\s+([\d.]+)(us|ms|s)",
    "p99": r"99%\s+([\d.]+)(us|ms|s)",
    "bad": r"Non-2xx or 3xx responses: (\d+)",
    "broken": r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)",
}


# -- h2load ---------------------------------------------------------------------------------------------------------------------


def _h2load(host: str, fields: tuple[str, ...] = (), body: bytes = b"") -> Load:
    def load(door: Door, seconds: int, rate: float) -> Run:
        with tempfile.TemporaryDirectory(prefix="ebb-h2load-") as where:
            log = Path(where, "log")
            argv = ["h2load", f"-c{H2_CONNECTIONS}", f"-m{STREAMS}", "-t1", f"-D{seconds}", f"--log-file={log}"]
            argv += [f"-H:authority: {host}", *(f"-H{field}" for field in fields)]
            if body:
                Path(where, "body").write_bytes(body)
                argv += ["-d", str(Path(where, "body"))]
            if rate:
                argv.append(f"--rps={max(1, round(rate / H2_CONNECTIONS))}")
            out = _run([*argv, f"http://127.0.0.1:{door.h2_port}/"], seconds)
            return parse_h2load(out, log.read_text(), seconds)

    return load


def parse_h2load(out: str, log: str, seconds: float) -> Run:
    """What h2load printed, and its log: start, status and µs of each request. Raises ValueError when it is not that."""
    counted = re.search(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", out)
    if counted is None:
        raise ValueError(f"not h2load's output: {out[:500]!r}")
    took_ms = sorted(int(line.split("\t")[2]) / 1000 for line in log.splitlines())
    if len(took_ms) < 2:
        return Run(0, 0.0, 0.0, 0.0, max(1, int(counted[2])))
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    errors = sum(not line.split("\t")[1].startswith("2") for line in log.splitlines()) + int(counted[3])
    return Run(len(took_ms), len(took_ms) / seconds, cuts[49], cuts[98], errors)


# -- WebSocket ------------------------------------------------------------------------------------------------------------------


def _websocket(door: Door, seconds: int, rate: float) -> Run:
    argv = [sys.executable, "-P", "-m", "deploy.bench_warm_ws", "load", str(door.port), WEBSOCKET]
    return Run(**json.loads(_run([*argv, str(CONNECTIONS), str(seconds), str(rate)], seconds)))


def _run(argv: list[str], seconds: int) -> str:
    return subprocess.run(on_core_1(argv), capture_output=True, text=True, check=True, timeout=seconds + 30).stdout


_UNARY = b"\0\0\0\0\x10" + b"x" * 16
"""One gRPC message of 16 bytes, not compressed."""
_GRPC_FIELDS = ("content-type: application/grpc", "te: trailers")
KINDS = (
    Kind("get", "", "small GET, 12 bytes back", _wrk("/"), lambda to: to.http),
    Kind("post", "post_", "POST of 1 KB, 12 bytes back", _wrk("/", 1024), lambda to: to.http),
    Kind("large", "large_", "GET, 100 KB back", _wrk(LARGE), lambda to: to.http),
    Kind("websocket", "ws_", "WebSocket messages of 64 bytes, there and back", _websocket, lambda to: to.websocket),
    Kind("h2", "h2_", f"HTTP/2, {STREAMS} streams a connection, small GET", _h2load(HOST), lambda to: to.http2),
    Kind("grpc", "grpc_", "gRPC unary, 16 bytes", _h2load(GRPC, _GRPC_FIELDS, _UNARY), lambda to: to.grpc),
)
