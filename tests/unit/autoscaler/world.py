"""A world for the autoscaler: the store's and the bus's twins, virtual time, and an agent that obeys at once."""

import asyncio
from collections.abc import Awaitable, Callable

from autoscaler.loop import Scaler
from autoscaler.mind import Limits
from process.run import Jobs
from store import keys, messages
from store.lifecycle import Phase
from store.memory import MemoryStore
from store.memory_bus import MemoryBus, MemoryHub
from store.messages import Refusal, Sample, SampleReport, Wake
from store.model import (
    Assignment,
    Failure,
    Goal,
    Instance,
    Node,
    Revision,
    RouteEntry,
    Scale,
    ScaleSpec,
    TrafficTarget,
    decode,
    encode,
)
from store.story import Story
from store.watch import Table
from tests import virtual


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 1e9 + self.now()


class World:
    """etcd, NATS, one autoscaler, one agent on every node that is put."""

    def __init__(self, **limits: float | bool) -> None:
        self.store, self.hub, self.clock = MemoryStore(), MemoryHub(), LoopClock()
        self.bus: MemoryBus = self.hub.client()
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.jobs = Jobs("test")
        self.failing: set[str] = set()
        self.start_s = 0.0
        self.refusals: list[Refusal] = []
        self.busy: dict[str, int] = {}
        self.waits: set[str] = set()
        self._seq = 0
        self.table = Table(self.store, keys.ASSIGNMENTS, Assignment, self._obey)
        self.scaler: Scaler
        self._leading: asyncio.Task[None]

    async def start(self) -> None:
        await self.bus.handle(messages.REFUSAL, lambda _, data: self.refusals.append(decode(Refusal, data)))
        self.jobs.start(self.table.run(), "agents")
        await self.table.synced()
        await self.take_over()

    async def take_over(self) -> None:
        bus = self.hub.client()
        self.scaler = Scaler(self.store, bus, self.clock, Story(bus, "autoscaler", self.clock), self.limits, self.jobs)
        await self.scaler.start()
        self._leading = self.jobs.start(self.scaler.lead(), "lead")

    def resign(self) -> None:
        self._leading.cancel()

    async def node(self, name: str = "n1", memory: int = 1 << 30) -> None:
        await self.store.put(keys.node(name), encode(Node(node=name, cpu_m=2000, memory_bytes=memory)))

    async def deploy(self, name: str, *, cc: int = 0, routed: bool = True, **scale: object) -> None:
        spec = ScaleSpec(**scale)  # type: ignore[arg-type]
        revision = Revision(
            project="p",
            name=name,
            service="s",
            image="i@sha256:1",
            container_concurrency=cc,
            scale=spec,
            created_at=self.clock.wall(),
        )
        await self.store.put(keys.revision("p", name), encode(revision))
        if routed:
            await self.route(name)

    async def route(self, name: str, route: str = "hello") -> None:
        entry = RouteEntry(project="p", route=route, hosts={"h": [TrafficTarget(revision=name, percent=100)]})
        await self.store.put(keys.route("p", route), encode(entry))

    def _obey(self, _: str, new: Assignment | None, old: Assignment | None) -> None:
        if new is None:
            assert old is not None
            self.jobs.start(self.store.delete(keys.instance(old.node, old.instance)), "forget")
        elif new.goal == Goal.PARK:
            self.say(new, Phase.PARKED)
        elif new.goal == Goal.DRAIN:
            self.say(new, Phase.DRAINING)
            self.say(new, Phase.STOPPED)
        elif old is None or old.goal != Goal.RUN:
            self.say(new, Phase.STARTING)
            asyncio.get_running_loop().call_later(self.start_s, self._end_start, new)

    def _end_start(self, a: Assignment) -> None:
        failing = a.revision in self.failing
        self.say(
            a, Phase.FAILED if failing else Phase.READY, Failure(reason="ExitCode1", message="exited") if failing else None
        )

    def say(self, a: Assignment, phase: Phase, failure: Failure | None = None) -> None:
        self._seq += 1
        status = Instance(
            instance=a.instance,
            project=a.project,
            revision=a.revision,
            node=a.node,
            phase=phase,
            seq=self._seq,
            failure=failure,
        )
        self.bus.publish(messages.instance(status.node), encode(status))
        self.jobs.start(self.store.put(keys.instance(a.node, a.instance), encode(status)), "status")

    def wake(self, name: str, waiting: int = 1) -> None:
        self.bus.publish(messages.WAKE, encode(Wake(revision=f"p/{name}", waiting=waiting, sender="i", cause_id="c-1")))

    async def traffic(self, name: str, load: int, for_s: int) -> None:
        """`load` requests at once, reported every second, and a last report of none."""
        for second in range(for_s + 1):
            now = load if second < for_s else 0
            sample = Sample(revision=f"p/{name}", concurrency=now, requests=now, in_flight=now)
            self.bus.publish(messages.SAMPLES, encode(SampleReport(sender="i", at=0, interval_s=1, samples=[sample])))
            await asyncio.sleep(1)

    def goals(self, name: str) -> list[str]:
        return sorted(a.goal for _, a in self.table.items() if a.revision == name)

    def assigned(self, name: str) -> list[Assignment]:
        return [a for _, a in self.table.items() if a.revision == name]

    async def scale(self, name: str) -> Scale:
        entry = await self.store.get(keys.scale("p", name))
        assert entry is not None
        return decode(Scale, entry.value)


def play(body: Callable[[World], Awaitable[None]], **limits: float | bool) -> None:
    """Run `body` in a world with one node."""

    async def whole() -> None:
        world = World(**limits)
        await world.start()
        await world.node()
        try:
            await body(world)
        finally:
            await world.jobs.cancel()
            await world.store.close()
            await world.bus.close()

    virtual.run(whole)
