"""One front door, put together: what `__main__` runs and tests start. The store and the bus come from outside."""

import asyncio

import msgspec

from activator.admitter import Admitter
from activator.breaker import QUEUE_BOUND
from ingress.access_log import AccessLog
from ingress.certificates import Certificates
from ingress.gate import Bounds, Gate
from ingress.handshake import Handshakes
from ingress.listener import Listener
from ingress.metrics import Exposition, Metrics
from ingress.ports import Ports
from ingress.ruled import follow
from ingress.tls import TlsListener
from ingress.watcher import Watcher
from process import logs, metrics
from process.clock import Clock
from process.run import Jobs
from store import keys
from store.backend import Store
from store.bus import Bus
from store.lease import Presence
from store.messages import Wake
from store.model import Member, encode
from store.seal import Keyring
from store.story import Story

log = logs.get("ingress")

WAKE_LEASE_S = 5.0
MEMBER_TTL_S = 5.0


class Ingress:
    """`await start()`, serve, `await drain()`."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Clock,
        *,
        member: str,
        bounds: Bounds | None = None,
        access_log: str = "off",
        queue_bound: int = QUEUE_BOUND,
        ring: Keyring | None = None,
        traces: str = "",
        traces_share: float = 0.01,
    ) -> None:
        """`ring` opens certificates; without it there is no TLS."""
        self.member = member
        self._store = store
        self._jobs = Jobs("ingress")
        self.metrics = Metrics()
        self.access = AccessLog(access_log, self.metrics)
        story = Story(bus, "ingress", clock)
        self.admitter = Admitter(bus, member, clock, self._wake_in_store, story.tell, bound=queue_bound)
        self.gate = Gate(self.admitter, clock, bounds or Bounds(), self.access, self.metrics, story.tell, follow)
        if traces:
            from ingress.tracing import Tracer  # Loaded where it is used.

            self.gate.trace(Tracer(traces, traces_share, member, self.metrics))
        self.listener = Listener(self.gate)
        self.tls: TlsListener | None = None
        self.certificates: Certificates | None = None
        if ring is not None:
            self.certificates = Certificates(self.gate.routes.project_of)
            self.tls = TlsListener(self.gate, Handshakes(self.certificates, ring, clock))
        self.ports = Ports(self.gate, self._tell_ports)
        self._member = Member(role="ingress", member=member)
        self.watcher = Watcher(store, bus, self.gate.routes, self.admitter, self.certificates)
        self._presence = Presence(store, MEMBER_TTL_S)
        self._bus = bus

    async def start(
        self, listen: str, *, listen_tls: str = "", https_port: int = 0, admin: str = "", stop: asyncio.Event | None = None
    ) -> None:
        """Learn the cluster, say that this member is there, then listen. Raises OSError when a port is taken."""
        self._jobs = Jobs("ingress", stop)
        self._jobs.start(self.admitter.run(), "admitter", fatal=True)
        await self.watcher.start(self._jobs)
        # The member key comes before the first request: from then on a draining instance waits for our word.
        await self._presence.start()
        self._member = Member(role="ingress", member=self.member, address=listen, admin=admin)
        await self._presence.put(keys.member("ingress", self.member), encode(self._member))
        await self.listener.start(listen)
        self._jobs.start(self.listener.sweep(), "sweep", fatal=True)
        own = {self.listener.port}
        if self.tls is not None:
            await self.tls.start(listen_tls)
            self._jobs.start(self.tls.sweep(), "sweep TLS", fatal=True)
            own.add(self.tls.port)
            self.gate.routes.https_port = https_port or self.tls.port
            self.gate.routes.memo.clear()
        self.ports.start(listen.rpartition(":")[0], frozenset(own), self._jobs)
        if self.gate.tracer is not None:
            self._jobs.start(self.gate.tracer.run(), "tracer", fatal=True)

    async def drain(self, timeout_s: float) -> None:
        """Finish what is in flight, at most `timeout_s`, then leave."""
        tls = () if self.tls is None else (self.tls.drain(timeout_s),)
        await asyncio.gather(self.listener.drain(timeout_s), self.ports.drain(timeout_s), *tls)
        await self._presence.stop()
        await self._jobs.cancel()
        self.access.close()

    def expose(self) -> None:
        """Add this front door's numbers to /metrics of the process."""
        metrics.REGISTRY.register(Exposition(self.metrics, self.gate.present, self.gate.routes))

    def problem_of_store(self) -> str | None:
        return self.watcher.problem()

    def problem_of_bus(self) -> str | None:
        """A bus that is away is survived: wakes go through the store."""
        return None if self._bus.connected else "away; wakes go through etcd"

    def _tell_ports(self) -> None:
        """Which ports are listened on and which cannot be, for the conditions of their routes."""
        member = msgspec.structs.replace(self._member, ports={**dict.fromkeys(self.ports.open, ""), **self.ports.down})
        self._jobs.start(self._presence.put(keys.member("ingress", self.member), encode(member)), "tell ports")

    async def _wake_in_store(self, wake: Wake) -> None:
        lease = await self._store.grant(WAKE_LEASE_S)
        project, _, revision = wake.revision.partition("/")
        await self._store.put(keys.wake(project, revision), encode(wake), lease=lease)
