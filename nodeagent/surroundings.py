"""All that an instance finds around it on the network of this node: its own network, names, and the policy of its project."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.firewall import Caps, Doors
from nodeagent.metadata import Metadata
from nodeagent.nameserver import NameServer, listening
from nodeagent.network.errors import NetworkError
from nodeagent.network.pool import NetworkPool
from nodeagent.residents import Residents
from process import logs
from process.clock import Clock
from process.run import Jobs
from store import keys
from store.backend import Store
from store.bus import Bus
from store.projects import Policy, Project, project_of
from store.watch import Table

RETRY_S = 1.0
_log = logs.get("network")


@dataclass(frozen=True, slots=True)
class Ground:
    """What the operator says of it."""

    prefix: str = "ebb"
    """≤ 6 characters that begin the names of all that is made."""
    subnet: str = "10.231.0.0/16"
    pool_size: int = 8
    caps: Caps | None = None
    dns: Sequence[str] = ()
    """Name servers to ask; empty: the machine's."""
    zone: str = ""
    inner_port: int = 0
    """The front door's for instances, at the gateway's address; 0: there is none."""


class Surroundings:
    """One for the agent. `apply`, set before `start`, gives the instances of a project what its policy says now."""

    def __init__(self, store: Store, bus: Bus, jobs: Jobs, clock: Clock, node: str, run_dir: Path, ground: Ground) -> None:
        self.pool = NetworkPool(
            prefix=ground.prefix, subnet=ground.subnet, run_dir=run_dir, pool_size=ground.pool_size, caps=ground.caps, jobs=jobs
        )
        self.projects = Table(store, keys.PROJECTS, Project, self._changed)
        self.residents = Residents(lambda name: self.project(name).policy)
        self.apply: Callable[[str], Awaitable[None]]
        self._names = NameServer(self.residents, self.pool.gateway, ground.dns, jobs, lambda: bool(ground.inner_port))
        self.metadata = Metadata(self.residents, bus, clock, node, ground.zone)
        self._inner_port, self._jobs = ground.inner_port, jobs

    def project(self, name: str) -> Project:
        """Its record, or one of defaults."""
        return project_of(self.projects, name)

    def weight(self, project: str) -> int:
        """The project's part where projects compete."""
        return project_of(self.projects, project).weight

    async def start(self) -> None:
        """Doors first, then the tables that lead to them. Raises BadSubnet, NetworkError or OSError."""
        self._jobs.start(self.projects.run(), "projects", fatal=True)
        await self._names.start()
        sock = listening(self.pool.gateway, 0, socket.SOCK_STREAM)
        await self.metadata.start(sock)
        self.pool.doors = Doors(inner=self._inner_port, metadata=sock.getsockname()[1], names=self._names.port)
        await self.pool.start()
        await self.projects.synced()

    async def stop(self) -> None:
        """The doors; the pool is stopped by itself."""
        self._names.stop()
        await self.metadata.stop()

    def _changed(self, key: str, new: Project | None, old: Project | None) -> None:
        if (new.policy if new else Policy()) != (old.policy if old else Policy()):
            self._jobs.start(self._apply(keys.tail(key, keys.PROJECTS)[0]), "a project's policy")

    async def _apply(self, project: str) -> None:
        """Until it is so: a policy that is not in force is worse than a busy kernel."""
        while True:
            try:
                return await self.apply(project)
            except (NetworkError, OSError) as error:
                _log.error("a project's policy is not in force yet; trying again", project=project, error=str(error))
                await asyncio.sleep(RETRY_S)
