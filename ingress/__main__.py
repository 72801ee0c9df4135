"""`python -m ingress`: one worker of the front door."""

import asyncio
import gc
import sys
from pathlib import Path

from activator.breaker import QUEUE_BOUND
from ingress.coworkers import Coworkers
from ingress.gate import Bounds
from ingress.handshake import unraised
from ingress.service import Ingress
from process import logs, turns
from process.admin import Admin
from process.clock import SystemClock
from process.identity import when_renewed
from process.ids import short_id
from process.run import Jobs, main
from process.settings import BadSettings, Common
from store.connect import identity_of, open_bus, open_store
from store.seal import Keyring

log = logs.get("ingress")


class Settings(Common, frozen=True, kw_only=True):
    """Flags of the front door."""

    listen: str = "0.0.0.0:8080"
    listen_tls: str = ""
    """Where TLS is spoken; empty: nowhere."""
    listen_inner: str = ""
    """Where instances call each other's services: the gateway's address with the node agent's --inner-port; empty: nowhere."""
    https_port: int = 0
    """The port of TLS as clients reach it, for redirects; 0: that of --listen-tls."""
    certificate_key_file: str = ""
    """File of the keys that certificates' private keys are sealed with, mode 0600 (store/seal.py)."""
    member: str = ""
    """Name of this worker; random when empty."""
    drain_timeout_s: float = 30
    queue_bound: int = QUEUE_BOUND
    """Requests that may wait, a revision."""
    max_body_bytes: int = 0
    """0: no limit."""
    max_connections: int = 50_000
    max_connections_per_address: int = 20_000
    """0: no limit of its own."""
    trusted_proxies: str = ""
    """Addresses and networks, comma-separated, whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    header_time_s: float = 10
    body_rate_bytes_s: float = 100
    """What a body of HTTP/1 must bring at least; 0: it may rest."""
    idle_time_s: float = 60
    access_log: str = "off"
    """off, sampled or full; on stdout."""
    traces: str = ""
    """URL of an OpenTelemetry collector (OTLP/HTTP) that gets a span for each sampled request."""
    traces_share: float = 0.01
    """Of the requests that bring no trace of their own, so many are sampled."""
    peers: str = "/run/ebb/peers"
    """Where other workers reach this one: a directory for a socket of this machine, or host:port; empty: there are no others."""


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    sys.unraisablehook = unraised
    if bool(settings.listen_tls) != bool(settings.certificate_key_file):
        raise BadSettings("--listen-tls ADDRESS:PORT and --certificate-key-file FILE go together: one is missing")
    identity = identity_of(settings)
    store = await open_store(settings.etcd, identity)
    member = settings.member or f"ingress-{short_id()}"
    bus = await open_bus(settings.nats, member, identity)
    bounds = Bounds(
        max_body_bytes=settings.max_body_bytes,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        trusted_proxies=settings.trusted_proxies,
        header_time_s=settings.header_time_s,
        body_rate_bytes_s=settings.body_rate_bytes_s,
        idle_time_s=settings.idle_time_s,
    )
    jobs = Jobs("ingress", stop)
    coworkers = Coworkers(identity) if identity is not None else None
    ingress = Ingress(
        store,
        bus,
        SystemClock(),
        member=member,
        bounds=bounds,
        access_log=settings.access_log,
        queue_bound=settings.queue_bound,
        ring=Keyring(Path(settings.certificate_key_file)) if settings.listen_tls else None,
        traces=settings.traces,
        traces_share=settings.traces_share,
        peers=settings.peers,
        secure=coworkers,
        assigned_only=identity is not None,
    )
    if identity is not None and coworkers is not None:
        jobs.start(when_renewed(identity, coworkers.renew), "identity", fatal=True)
    ingress.expose()
    admin = Admin(
        {
            "store": ingress.problem_of_store,
            "listener": lambda: None if ingress.listener.port else "does not listen yet",
            "draining": lambda: "yes" if stop.is_set() else None,
        }
    )
    await admin.start(settings.admin)
    host = settings.admin.rpartition(":")[0]
    await ingress.start(
        settings.listen,
        listen_tls=settings.listen_tls,
        listen_inner=settings.listen_inner,
        https_port=settings.https_port,
        admin=f"{host}:{admin.port}",
        stop=stop,
    )
    # What exists now stays: the collector need not look at it again, which takes its pauses out of the request path.
    gc.collect()
    gc.freeze()
    if not turns.shorten():
        log.info("short turns on a processor are refused: requests may wait until the turns of others end")
    log.info("listening", address=settings.listen, port=ingress.listener.port, member=member, admin_port=admin.port)
    await stop.wait()
    log.info("draining", connections=len(ingress.listener), drain_timeout_s=settings.drain_timeout_s)
    await ingress.drain(settings.drain_timeout_s)
    await jobs.cancel()
    await admin.stop()
    await bus.close()
    await store.close()


if __name__ == "__main__":
    main("ingress", Settings, serve)
