"""What `bench warm` runs: the backends, and the front doors before them, each with one worker, each on ports of its own.

Every door serves three hosts: HOST from nginx, WEBSOCKET from an echo server, GRPC from nghttpd with a trailer.
"""

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
from deploy.ports import free_port

BIN = Path(sys.executable).parent
HOST = "bench.default.localhost"
WEBSOCKET = "ws.default.localhost"
GRPC = "grpc.default.localhost"
LARGE = "/large"
LARGE_BYTES = 100_000
READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Door:
    """One front door that runs: `pid` is its one worker. `h2_port` speaks HTTP/2 by prior knowledge."""

    name: str
    port: int
    h2_port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Backends:
    """Ports of what answers behind the doors."""

    http: int
    http2: int
    """The same nginx, for a client that comes without a door."""
    websocket: int
    grpc: int


class Started:
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


Start = Callable[[Started, Backends], Door]


@contextmanager
def running(starts: dict[str, Start]) -> Iterator[tuple[list[Door], Backends]]:
    """The doors of `starts`, and the backends behind them; stopped at the end."""
    with ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebb-bench-")))
        started = Started(stack, where)
        backends = _start_backends(started)
        yield [start(started, backends) for start in starts.values()], backends


def _start_backends(started: Started) -> Backends:
    where, ports = started.where, Backends(free_port(), free_port(), free_port(), free_port())
    where.joinpath("large").write_bytes(b"x" * LARGE_BYTES)
    where.joinpath("index.html").write_bytes(b"\0\0\0\0\x10" + b"x" * 16)
    path = _nginx_config(
        where,
        "backend",
        [
            f"server {{ listen 127.0.0.1:{ports.http} backlog=4096; listen 127.0.0.1:{ports.http2} http2; root {where};\n"
            f'location / {{ return 200 "hello world\\n"; }} location {LARGE} {{ }} }}'
        ],
    )
    started.start("backend", ["nginx", "-p", str(where), "-c", str(path)], ports.http, 1)
    argv = [sys.executable, "-P", "-m", "deploy.bench_warm_ws", "serve", str(ports.websocket)]
    started.start("echo", argv, ports.websocket, 1)
    argv = ["nghttpd", "--no-tls", "--address=127.0.0.1", f"--htdocs={where}", "--trailer", "grpc-status: 0", str(ports.grpc)]
    started.start("nghttpd", argv, ports.grpc, 1)
    return ports


def _nginx_config(where: Path, name: str, servers: list[str]) -> Path:
    temp = "".join(f"{kind}_temp_path {where}/{name}-{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path = where / f"{name}.conf"
    path.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {where}/{name}.pid; error_log stderr error;\n"
        f"events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; {temp} keepalive_requests 100000000;\n" + "\n".join(servers) + "\n}\n"
    )
    return path


def _start_nginx(started: Started, backends: Backends) -> Door:
    where, port, h2 = started.where, free_port(), free_port()
    common = "proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;"
    up = f'{common} proxy_set_header Connection ""; proxy_pass http://up;'
    socket_ = f"{common} proxy_set_header Connection Upgrade; proxy_set_header Upgrade $http_upgrade; proxy_pass http://ws;"
    path = _nginx_config(
        where,
        "nginx",
        [
            f"upstream up {{ server 127.0.0.1:{backends.http}; keepalive 128; keepalive_requests 100000000; }}",
            f"upstream ws {{ server 127.0.0.1:{backends.websocket}; }}",
            f"upstream grpc {{ server 127.0.0.1:{backends.grpc}; keepalive 128; keepalive_requests 100000000; }}",
            f"server {{ listen 127.0.0.1:{port} backlog=4096; server_name {HOST}; location / {{ {up} }} }}",
            f"server {{ listen 127.0.0.1:{port}; server_name {WEBSOCKET}; location / {{ {socket_} }} }}",
            f"server {{ listen 127.0.0.1:{h2} http2 backlog=4096; server_name {HOST}; location / {{ {up} }} }}",
            f"server {{ listen 127.0.0.1:{h2} http2; server_name {GRPC}; location / {{ grpc_pass grpc://grpc; }} }}",
        ],
    )
    return Door("nginx", port, h2, started.start("nginx", ["nginx", "-p", str(where), "-c", str(path)], port, 0))


def _start_haproxy(started: Started, backends: Backends) -> Door:
    path, port = started.where / "haproxy.cfg", free_port()
    path.write_text(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n"
        "  timeout server 300s\n  timeout tunnel 300s\n  option forwardfor\n  http-reuse always\n"
        f"frontend f\n  bind 127.0.0.1:{port} backlog 4096\n"
        f"  use_backend ws if {{ hdr(host) -i {WEBSOCKET} }}\n  use_backend grpc if {{ hdr(host) -i {GRPC} }}\n"
        f"  default_backend b\nbackend b\n  server s 127.0.0.1:{backends.http}\n"
        f"backend ws\n  server s 127.0.0.1:{backends.websocket}\nbackend grpc\n  server s 127.0.0.1:{backends.grpc} proto h2\n"
    )
    return Door("haproxy", port, port, started.start("haproxy", ["haproxy", "-db", "-f", str(path)], port, 0))


def _start_envoy(started: Started, backends: Backends) -> Door:
    port = free_port()

    def address(at: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": at}}

    kind = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.filters.http.router.v3.Router"}}],
        "route_config": {
            "virtual_hosts": [
                {"name": name, "domains": [host], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}]}
                for name, host in (("http", HOST), ("ws", WEBSOCKET), ("grpc", GRPC))
            ]
        },
    }
    h2 = {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kind}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    }
    clusters = [
        {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(at)}}]}],
            },
            **(h2 if name == "grpc" else {}),
        }
        for name, at in (("http", backends.http), ("ws", backends.websocket), ("grpc", backends.grpc))
    ]
    chain = {"filters": [{"name": "hcm", "typed_config": manager}]}
    path = started.where / "envoy.json"
    path.write_text(
        json.dumps(
            {"static_resources": {"listeners": [{"address": address(port), "filter_chains": [chain]}], "clusters": clusters}}
        )
    )
    argv = [str(BIN / "envoy"), "-c", str(path), "--concurrency", "1", "--base-id", str(os.getpid() % 30_000), "-l", "error"]
    return Door("envoy", port, port, started.start("envoy", argv, port, 0))


def _start_caddy(started: Started, backends: Backends) -> Door:
    path, port = started.where / "Caddyfile", free_port()
    sites = (
        (HOST, f"127.0.0.1:{backends.http}"),
        (WEBSOCKET, f"127.0.0.1:{backends.websocket}"),
        (GRPC, f"h2c://127.0.0.1:{backends.grpc}"),
    )
    path.write_text(
        "{\n admin off\n auto_https off\n persist_config off\n servers {\n  protocols h1 h2c\n }\n}\n"
        + "".join(f"http://{host}:{port} {{\n bind 127.0.0.1\n reverse_proxy {up}\n}}\n" for host, up in sites)
    )
    argv = [str(BIN / "caddy"), "run", "--config", str(path), "--adapter", "caddyfile"]
    return Door("caddy", port, port, started.start("caddy", argv, port, 0))


RIVALS: dict[str, Start] = {
    "haproxy": _start_haproxy,
    "nginx": _start_nginx,
    "envoy": _start_envoy,
    "caddy": _start_caddy,
}
