"""Ebb as a door of `bench warm`: the real front door on a real etcd and NATS, with the routes of many services."""

import asyncio
import sys
from functools import partial

from deploy.bench_warm_rivals import BIN, GRPC, HOST, WEBSOCKET, Backends, Door, Start, Started
from deploy.ports import free_port
from store import keys
from store.backend import Store
from store.connect import open_store
from store.lifecycle import Phase
from store.model import Instance, Limits, RouteEntry, TrafficTarget, encode


def ebb(name: str, services: int) -> Start:
    """A door called `name` that holds the routes of `services` services beside those that are asked for."""
    return partial(_start, name=name, services=services)


def _start(started: Started, backends: Backends, *, name: str, services: int) -> Door:
    etcd, peer, nats, port = free_port(), free_port(), free_port(), free_port()
    urls = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
    argv = ["etcd", "--data-dir", str(started.where / f"{name}-etcd"), "--log-level", "error", "--listen-client-urls", urls[0]]
    argv += ["--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1]]
    argv += ["--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"]
    started.start(f"{name}-etcd", argv, etcd)
    started.start(f"{name}-nats", [str(BIN / "nats-server"), "--addr", "127.0.0.1", "--port", str(nats)], nats)
    asyncio.run(_fill(f"127.0.0.1:{etcd}", backends, services))
    argv = [sys.executable, "-P", "-m", "ingress", "--etcd", f"127.0.0.1:{etcd}", "--nats", f"nats://127.0.0.1:{nats}"]
    pid = started.start(name, [*argv, "--listen", f"127.0.0.1:{port}"], port, 0)
    return Door(name, port, port, pid)


async def _fill(etcd: str, backends: Backends, services: int) -> None:
    store = await open_store(etcd)
    for host, backend, protocol in (
        (HOST, backends.http, "http1"),
        (WEBSOCKET, backends.websocket, "http1"),
        (GRPC, backends.grpc, "h2c"),
    ):
        await _serve(store, host, protocol, f"127.0.0.1:{backend}")
    for place in range(services):
        await _serve(store, f"service-{place}.default.localhost", "http1", "")
    await store.close()


async def _serve(store: Store, host: str, protocol: str, address: str) -> None:
    """The route of one service, and its one Ready instance when it has an `address`."""
    name = host.partition(".")[0]
    revision = f"{name}-00001"
    limits = Limits(container_concurrency=100, service=name, configuration=name, protocol=protocol)
    hosts = {host: [TrafficTarget(revision=revision, percent=100)]}
    entry = RouteEntry(project="default", route=name, hosts=hosts, limits={revision: limits})
    await store.put(keys.route("default", name), encode(entry))
    if address:
        instance = Instance(
            instance=f"{name}-1", project="default", revision=revision, node="n1", phase=Phase.READY, address=address, seq=1
        )
        await store.put(keys.instance("n1", instance.instance), encode(instance))
