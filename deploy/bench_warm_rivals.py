"""What `bench warm` runs: one backend, and the front doors before it, each with one worker, each on ports of its own."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.components import environment
from store import keys
from store.connect import open_store
from store.lifecycle import Phase
from store.model import Instance, Limits, RouteEntry, TrafficTarget, encode

BIN = Path(sys.executable).parent
HOST = "bench.default.localhost"
READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Door:
    """One front door that runs: `pid` is its one worker."""

    name: str
    port: int
    pid: int


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(services: int, only: tuple[str, ...]) -> Iterator[tuple[list[Door], int]]:
    """All doors of `only` before one nginx that answers 12 bytes, and that backend's port; stopped at the end."""
    with ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebb-bench-")))
        backend = free_port()
        started = _Started(stack, where)
        started.start("backend", ["nginx", "-p", str(where), "-c", str(_nginx(where, "backend", backend, None))], backend)
        doors = []
        for name, start in _STARTS.items():
            if name in only:
                port = free_port()
                pid = start(started, port, backend, services)
                doors.append(Door(name, port, pid))
        yield doors, backend


class _Started:
    """Children, stopped by their pid when the stack unwinds."""

    def __init__(self, stack: ExitStack, where: Path) -> None:
        self._stack = stack
        self.where = where

    def start(self, name: str, argv: list[str], port: int, core: int | None = None) -> int:
        """Start `argv`, wait until it accepts on `port`; its pid. Raises RuntimeError with its log when it does not."""
        log = self.where / f"{name}.log"
        pinned = ["taskset", "-c", str(core), *argv] if core is not None and (os.cpu_count() or 1) > 1 else argv
        with log.open("wb") as out:
            child = subprocess.Popen(pinned, stdout=out, stderr=out, env=environment(), cwd=self.where)
        self._stack.callback(_stop, child)
        until = time.monotonic() + READY_S
        while time.monotonic() < until and child.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return child.pid
            time.sleep(0.05)
        raise RuntimeError(f"{name} does not listen on {port}: {log.read_text(errors='replace')[-2000:]}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(5)


def _nginx(where: Path, name: str, port: int, backend: int | None) -> Path:
    """A configuration of nginx in one process: answering itself, or passing on to `backend`."""
    action = (
        'return 200 "hello world\\n";'
        if backend is None
        else 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";\n'
        "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;"
    )
    upstream = (
        "" if backend is None else f"upstream up {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 100000000; }}"
    )
    temp = "".join(f"{kind}_temp_path {where}/{name}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path = where / f"{name}.conf"
    path.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {where}/{name}.pid; error_log stderr error;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; {temp} keepalive_requests 100000000; {upstream}\n"
        f"server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {action} }} }} }}\n"
    )
    return path


def _start_nginx(started: _Started, port: int, backend: int, services: int) -> int:
    where = started.where
    return started.start("nginx", ["nginx", "-p", str(where), "-c", str(_nginx(where, "nginx", port, backend))], port, 0)


def _start_haproxy(started: _Started, port: int, backend: int, services: int) -> int:
    path = started.where / "haproxy.cfg"
    path.write_text(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 300s\n"
        f"  option forwardfor\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend b\n"
        f"backend b\n  server s 127.0.0.1:{backend}\n"
    )
    return started.start("haproxy", ["haproxy", "-db", "-f", str(path)], port, 0)


def _start_envoy(started: _Started, port: int, backend: int, services: int) -> int:
    def address(at: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": at}}

    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}
            ]
        },
    }
    endpoints = [{"endpoint": {"address": address(backend)}}]
    config = {
        "static_resources": {
            "listeners": [
                {"address": address(port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}
            ],
            "clusters": [
                {
                    "name": "up",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]},
                }
            ],
        }
    }
    path = started.where / "envoy.json"
    path.write_text(json.dumps(config))
    argv = [str(BIN / "envoy"), "-c", str(path), "--concurrency", "1", "--base-id", str(os.getpid() % 30_000), "-l", "error"]
    return started.start("envoy", argv, port, 0)


def _start_caddy(started: _Started, port: int, backend: int, services: int) -> int:
    path = started.where / "Caddyfile"
    path.write_text(
        "{\n admin off\n auto_https off\n persist_config off\n}\n"
        f"http://:{port} {{\n bind 127.0.0.1\n reverse_proxy 127.0.0.1:{backend}\n}}\n"
    )
    return started.start("caddy", [str(BIN / "caddy"), "run", "--config", str(path), "--adapter", "caddyfile"], port, 0)


def _start_ebb(started: _Started, port: int, backend: int, services: int) -> int:
    """The real front door on a real etcd and NATS, with routes for `services` services and one Ready instance of one."""
    where = started.where
    etcd, peer, nats = free_port(), free_port(), free_port()
    urls = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    argv = ["etcd", "--data-dir", str(where / "etcd"), "--log-level", "error", "--listen-client-urls", urls[0]]
    argv += ["--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1]]
    argv += ["--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"]
    started.start("etcd", argv, etcd)
    started.start("nats", [str(BIN / "nats-server"), "--addr", "127.0.0.1", "--port", str(nats)], nats)
    asyncio.run(_fill(f"127.0.0.1:{etcd}", backend, services))
    argv = [sys.executable, "-P", "-m", "ingress", "--etcd", f"127.0.0.1:{etcd}", "--nats", f"nats://127.0.0.1:{nats}"]
    return started.start("ebb", [*argv, "--listen", f"127.0.0.1:{port}"], port, 0)


async def _fill(etcd: str, backend: int, services: int) -> None:
    store = await open_store(etcd)
    for place in range(services):
        name = "bench" if place == 0 else f"service-{place}"
        entry = RouteEntry(
            project="default",
            route=name,
            hosts={f"{name}.default.localhost": [TrafficTarget(revision=f"{name}-00001", percent=100)]},
            limits={f"{name}-00001": Limits(container_concurrency=100, service=name, configuration=name)},
        )
        await store.put(keys.route("default", name), encode(entry))
    news = Instance(
        instance="bench-1",
        project="default",
        revision="bench-00001",
        node="n1",
        phase=Phase.READY,
        address=f"127.0.0.1:{backend}",
        seq=1,
    )
    await store.put(keys.instance("n1", "bench-1"), encode(news))
    await store.close()


Start = Callable[[_Started, int, int, int], int]
_STARTS: dict[str, Start] = {
    "ebb": _start_ebb,
    "haproxy": _start_haproxy,
    "nginx": _start_nginx,
    "envoy": _start_envoy,
    "caddy": _start_caddy,
}
DOORS = tuple(_STARTS)
