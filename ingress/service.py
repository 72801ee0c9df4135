"""One front door, put together: what `__main__` runs and tests start. The store and the bus come from outside."""

import asyncio

import msgspec

from activator.admitter import Admitter
from activator.breaker import QUEUE_BOUND
from activator.lingering import Lingering
from activator.peers import Peers, Secure
from ingress.access_log import AccessLog
from ingress.certificates import Certificates
from ingress.gate import Bounds, Gate
from ingress.handshake import Handshakes
from ingress.inner import InnerListener
from ingress.listener import Listener
from ingress.metrics import Exposition, Metrics
from ingress.ports import Ports
from ingress.ruled import follow
from ingress.tls import TlsListener
from ingress.watcher import Watcher
from process import logs, metrics
from process.clock import Clock
from process.ids import short_id
from process.run import Jobs
from store import keys
from store.backend import Store
from store.bus import Bus
from store.lease import Presence
from store.messages import Wake
from store.model import Member, encode
from store.seal import Keyring
from store.story import Story
from store.watch import Table

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
        peers: str = "",
        secure: Secure | None = None,
        assigned_only: bool = False,
    ) -> None:
        """`ring` opens certificates; without it there is no TLS. `peers`: where other workers can reach this one
        (`activator.peers`); empty: it works alone. `secure`: how those of other machines are known.
        `assigned_only`: no node is believed of instances that it was not given."""
        self.member = member
        self.worker = f"{member}.{short_id(6)}"
        self._store = store
        self._jobs = Jobs("ingress")
        self.metrics = Metrics()
        self.access = AccessLog(access_log, self.metrics)
        story = Story(bus, "ingress", clock)
        self.admitter = Admitter(bus, member, clock, self._wake_in_store, story.tell, bound=queue_bound, worker=self.worker)
        self._clock = clock
        self._peers_at, self._secure = peers, secure
        self._peers: Peers | None = None
        self._started = False
        self._members = Table(store, keys.members("ingress"), Member, self._known)
        self.gate = Gate(self.admitter, clock, bounds or Bounds(), self.access, self.metrics, story.tell, follow)
        if traces:
            from ingress.tracing import Tracer  # Loaded where it is used.

            self.gate.trace(Tracer(traces, traces_share, member, self.metrics))
        self.listener = Listener(self.gate)
        self.inner = InnerListener(self.gate)
        self.tls: TlsListener | None = None
        self.certificates: Certificates | None = None
        if ring is not None:
            self.certificates = Certificates(self.gate.routes.project_of)
            self.tls = TlsListener(self.gate, Handshakes(self.certificates, ring, clock))
        self.ports = Ports(self.gate, self._tell_ports, self._shared)
        self._member = Member(role="ingress", member=member)
        self.watcher = Watcher(
            store, bus, clock, self.gate.routes, self.admitter, self.gate.identities, self.certificates, assigned_only=assigned_only
        )  # fmt: skip
        self._presence = Presence(store, MEMBER_TTL_S)
        self._bus = bus

    async def start(
        self, listen: str, *, listen_tls: str = "", listen_inner: str = "", https_port: int = 0, admin: str = "",
        stop: asyncio.Event | None = None,
    ) -> None:  # fmt: skip
        """Join the other workers, learn the cluster, then listen. Raises OSError when a port is taken."""
        self._jobs = Jobs("ingress", stop)
        self._jobs.start(self.admitter.run(), "admitter", fatal=True)
        await self._join(listen, admin, stop)
        await self.watcher.start(self._jobs)
        await self.listener.start(listen)
        self._jobs.start(self.listener.sweep(), "sweep", fatal=True)
        own = {self.listener.port}
        if listen_inner:
            await self.inner.start(listen_inner)
            self._jobs.start(self.inner.sweep(), "sweep of the inner door", fatal=True)
            own.add(self.inner.port)
        if self.tls is not None:
            await self.tls.start(listen_tls)
            self._jobs.start(self.tls.sweep(), "sweep TLS", fatal=True)
            own.add(self.tls.port)
        # Without TLS of our own, `https_port` is that of a proxy before us.
        self.gate.routes.https_port = https_port or (self.tls.port if self.tls is not None else 0)
        self.gate.routes.memo.clear()
        self.ports.start(listen.rpartition(":")[0], frozenset(own), self._jobs)
        if self.gate.tracer is not None:
            self._jobs.start(self.gate.tracer.run(), "tracer", fatal=True)

    async def drain(self, timeout_s: float) -> None:
        """Finish what is in flight, at most `timeout_s`, then leave."""
        self.admitter.loans.leave(self._clock.now())
        tls = () if self.tls is None else (self.tls.drain(timeout_s),)
        await asyncio.gather(self.listener.drain(timeout_s), self.inner.drain(timeout_s), self.ports.drain(timeout_s), *tls)
        await self._presence.stop()
        await self._jobs.cancel()
        if self._peers is not None:
            self._peers.close()
        self.access.close()

    async def _join(self, listen: str, admin: str, stop: asyncio.Event | None) -> None:
        """Say that this member is there, and learn who else is.

        In this order, so that of two workers that start together at least one knows of the other; and before the first request,
        because from now on a draining instance waits for our word.
        """
        member = Member(role="ingress", member=self.member, address=listen, admin=admin, worker=self.worker)
        if self._peers_at:
            fatal = stop.set if stop is not None else lambda: None
            self._peers = Peers(self.admitter.loans, self._clock, self._peers_at, self.admitter.stir, fatal, self._secure)
            self.admitter.loans.orphans.lingering = Lingering()
            self._peers.listen()
            member = msgspec.structs.replace(member, machine=self._peers.machine, peers=self._peers.address)
        await self._presence.start()
        self._member = member
        await self._presence.put(keys.member("ingress", self.member), encode(member))
        self._jobs.start(self._members.run(), "watch members", fatal=True)
        await self._members.synced()
        if self._peers is not None:
            others = [each for _, each in self._members.items() if each.peers and each.worker != self.worker]
            self._started = True
            await self._peers.start({each.worker: (each.machine, each.peers) for each in others})

    def _known(self, key: str, new: Member | None, old: Member | None) -> None:
        self.gate.routes.workers(max(1, len(self._members)))
        if self._peers is None or not self._started:
            return
        if old is not None and (new is None or new.worker != old.worker):
            self._peers.unknown(old.worker)
        if new is not None and new.peers and new.worker != self.worker:
            self._peers.known(new.worker, new.machine, new.peers)

    def _shared(self, port: int) -> bool:
        """Whether another worker on this machine says that it listens on `port`."""
        return any(
            each.worker != self.worker and each.machine == self._member.machine and each.ports.get(port) == ""
            for _, each in self._members.items()
        )

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
