"""`python -m nodeagent`: the node agent of this machine."""

import asyncio
import os
import platform
from pathlib import Path

import msgspec

from nodeagent import uids
from nodeagent.admin_routes import Routes
from nodeagent.agent import Agent
from nodeagent.fences import Ids
from nodeagent.firewall import Caps
from nodeagent.images import admin_routes as image_routes
from nodeagent.images.registry import Registry
from nodeagent.resolv import check_servers
from nodeagent.server import Server
from nodeagent.surroundings import Ground
from process import run
from process.admin import Admin
from process.outbound import Outbound
from process.settings import Common
from store import messages
from store.connect import identity_of, open_bus, open_store
from store.scaling import Taint


class Settings(Common, frozen=True, kw_only=True):
    """The node agent's flags."""

    node: str = msgspec.field(default_factory=platform.node)
    """This machine's name in the cluster."""
    containerd: str = "/run/ebb/containerd/containerd.sock"
    root: str = "/var/lib/ebb/node"
    """Logs and files of instances, and uploads; kept over restarts."""
    id: str = "ebb"
    """≤ 6 characters; begins the names of veths, the nft table and the cgroup."""
    subnet: str = "10.231.0.0/16"
    pool_size: int = 8
    runtime: str = "auto"
    insecure_registries: str = ""
    """host:port of registries spoken to by plain HTTP, comma-separated."""
    allow_private_registries: str = ""
    """Networks of registries that are not on the internet, such as 10.1.0.0/16, comma-separated; what --insecure-registries names may be
    anywhere."""
    dns: str = ""
    """Name servers that are asked on behalf of instances, comma-separated; default: the host's."""
    inner_port: int = 0
    """The front door's port for instances, at the subnet's first address (its --listen-inner); 0: services cannot call each other."""
    instance_connections: int = 4096
    """Connections that one instance may have toward the world; 0: no limit."""
    instance_mbytes_per_s: int = 250
    """Megabytes a second that one instance may send into the world, and get; 0: no limit."""
    on_stop: str = "keep"
    """keep: containers run on when the agent stops; stop: all are stopped and everything is removed."""
    lease_ttl_s: float = 5
    """How long a silent agent's instances count as there."""
    creates: int = 3
    """Tasks created at once. A create is some 50 ms of CPU: one more than two cores keeps them busy while one waits for the kernel, and a
    fourth makes each slower and none earlier."""
    shim_bound: int = 10
    """Instances that one shim serves at most."""
    log_keep_s: float = 3600
    """How long logs of instances that are gone are kept."""
    image_keep_s: float = 7 * 24 * 3600
    """How long images that nobody uses are kept."""
    parked_most: int = 0
    """Parked and frozen instances kept at most; 0: as many as memory and slots allow."""
    project_processors: int = 0
    """Processors of this machine that one project's instances run on, those that fewest other projects have; 0: all."""
    pressure_file: str = "/proc/pressure/memory"
    """Where the kernel tells memory pressure: of the machine, or of a cgroup (its `memory.pressure`)."""
    zone: str = ""
    labels: str = ""
    """name=value that services select nodes by, comma-separated; hostname, arch, os and zone are there by Kubernetes' names."""
    taints: str = ""
    """name=value, comma-separated: only what tolerates them is placed here."""
    secret_key_file: str = ""
    """File of the keys that Secrets are sealed with, mode 0600 (store/seal.py); empty: instances with Secrets fail."""
    user_namespaces: str = "auto"
    """auto: each project has ids of its own where the kernel can; on: a kernel that cannot is an error; off: the machine's ids."""
    first_id: int = uids.FIRST_ID
    """The first of the ids that projects get, 65,536 each."""
    id_ranges: int = uids.MOST
    """How many projects can have instances here at once."""
    listen: str = "127.0.0.1:0"
    """host:port where the registry asks for logs, instances and images: by TLS with `--identity`, without it on loopback alone."""
    advertise: str = ""
    """host:port at which the registry reaches that; default: the address it listens on."""


def words(text: str) -> list[str]:
    """The items of a comma-separated flag."""
    return [word.strip() for word in text.split(",") if word.strip()]


def pairs(text: str, flag: str) -> dict[str, str]:
    """name=value items of a comma-separated flag; a value may be missing. Raises SystemExit for an item without a name."""
    found = {}
    for word in words(text):
        name, _, value = word.partition("=")
        if not name.strip():
            raise SystemExit(f"--{flag}: {word!r} has no name; write name=value, several with commas")
        found[name.strip()] = value.strip()
    return found


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`."""
    if settings.on_stop not in ("keep", "stop"):
        raise ValueError(f"--on-stop {settings.on_stop!r}: want keep or stop")
    check_servers(words(settings.dns))
    jobs = run.Jobs("nodeagent", stop)
    identity = identity_of(settings)
    store = await open_store(settings.etcd, identity)
    bus = await open_bus(settings.nats, f"nodeagent {settings.node}", identity)
    agent = Agent(
        store,
        bus,
        jobs,
        node=settings.node,
        containerd=settings.containerd,
        root=Path(settings.root),
        ground=Ground(
            prefix=settings.id,
            subnet=settings.subnet,
            pool_size=settings.pool_size,
            caps=Caps(settings.instance_connections, settings.instance_mbytes_per_s),
            dns=words(settings.dns),
            zone=settings.zone,
            inner_port=settings.inner_port,
        ),
        runtime=settings.runtime,
        registry=Registry(
            frozenset(words(settings.insecure_registries)), outbound=Outbound(words(settings.allow_private_registries))
        ),
        lease_ttl_s=settings.lease_ttl_s,
        creates=settings.creates,
        shim_bound=settings.shim_bound,
        log_keep_s=settings.log_keep_s,
        image_keep_s=settings.image_keep_s,
        zone=settings.zone,
        parked_most=settings.parked_most,
        project_processors=settings.project_processors,
        pressure_file=Path(settings.pressure_file),
        labels=pairs(settings.labels, "labels"),
        taints=[Taint(key=key, value=value) for key, value in pairs(settings.taints, "taints").items()],
        ids=Ids(settings.user_namespaces, settings.first_id, settings.id_ranges),
        secret_keys=Path(settings.secret_key_file) if settings.secret_key_file else None,
    )
    own = Routes(agent.loop, agent.reporter, agent.logs, agent.clock, agent.places)
    admin = Admin(agent.checks())
    await admin.start(settings.admin)
    asked = Server(identity, [*own.all(), *image_routes.routes(agent.images, agent.images_in_use)])
    await asked.start(settings.listen, jobs)
    host = settings.listen.rpartition(":")[0]
    try:
        starting = asyncio.ensure_future(agent.start(settings.advertise or f"{host}:{asked.port}"))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            return  # nothing was touched that the next agent does not find again
        await starting
        await bus.respond(messages.IMAGE_RESOLVE, image_routes.responder(agent.images))
        await stopping
        await agent.stop(everything=settings.on_stop == "stop")
    finally:
        await asked.stop()
        await admin.stop()
        await jobs.cancel()
        await bus.close()
        await store.close()


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    run.main("nodeagent", Settings, serve)
