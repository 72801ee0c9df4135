"""The autoscaler as a process, on real etcd and NATS, with a node agent played by the test."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from process.ids import short_id
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
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
from store.watch import Table
from tests import real

MI = 1 << 20


class Agent:
    """A node that obeys its assignments at once; what fails is named in `failing`."""

    def __init__(self, store: Store, bus: Bus, name: str = "n1", memory: int = 1024) -> None:
        self.store, self.bus, self.name, self.memory = store, bus, name, memory
        self.failing: Failure | None = None
        self.seen_at: dict[str, float] = {}
        self.instances: dict[str, Instance] = {}
        self.starts: list[float] = []
        self._seq = 0
        self._lease = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self.table = Table(store, keys.assignments(name), Assignment, self._changed)

    async def start(self) -> None:
        self._lease = await self.store.grant(600)
        node = Node(node=self.name, cpu_m=2000, memory_bytes=self.memory * MI, slots=100)
        await self.store.put(keys.node(self.name), encode(node), lease=self._lease)
        self._job(self.table.run())
        await self.table.synced()

    async def vanish(self) -> None:
        """As when the machine dies and its lease ends."""
        await self.stop()
        await self.store.revoke(self._lease)

    async def stop(self) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def say(self, a: Assignment, phase: Phase, failure: Failure | None = None) -> None:
        self._seq += 1
        status = Instance(
            instance=a.instance, project=a.project, revision=a.revision, node=self.name, phase=phase,
            address="127.0.0.1:1", at=time.time(), seq=self._seq, failure=failure, cause_id=a.cause_id,
        )  # fmt: skip
        self.instances[a.instance] = status
        self.bus.publish(messages.INSTANCE, encode(status))
        self._job(self._put(status))

    async def _put(self, status: Instance) -> None:
        with contextlib.suppress(Exception):
            await self.store.put(keys.instance(self.name, status.instance), encode(status), lease=self._lease)

    def _changed(self, _: str, new: Assignment | None, old: Assignment | None) -> None:
        if new is None:
            assert old is not None
            self.instances.pop(old.instance, None)
            self._job(self._forget(old.instance))
        elif new.goal == Goal.PARK:
            self.say(new, Phase.PARKED)
        elif new.goal == Goal.DRAIN:
            self.say(new, Phase.STOPPED)
        elif old is None or old.goal != Goal.RUN:
            self.seen_at[new.instance] = time.monotonic()
            self.starts.append(time.monotonic())
            self.say(new, Phase.STARTING)
            self.say(new, Phase.FAILED if self.failing else Phase.READY, self.failing)

    async def _forget(self, name: str) -> None:
        await self.store.delete(keys.instance(self.name, name))

    def _job(self, coro: "asyncio.coroutines._CoroutineLike[None]") -> None:  # type: ignore[name-defined]
        job = asyncio.ensure_future(coro)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


def spawn(argv: list[str]) -> subprocess.Popen[bytes]:
    """A process of Ebb; not by asyncio, since it is awaited by its pid alone."""
    return subprocess.Popen(argv, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONPATH": "."})


class Engine:
    """etcd and NATS, a bus and a store of the test's own, and autoscalers as processes."""

    def __init__(self, etcd: real.Server, nats: real.Server, store: Store, bus: Bus) -> None:
        self.etcd, self.nats, self.store, self.bus = etcd, nats, store, bus
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.refusals: list[Refusal] = []

    async def autoscaler(self, *flags: str) -> subprocess.Popen[bytes]:
        port = real.free_port()
        argv = [sys.executable, "-m", "autoscaler", "--etcd", self.etcd.address, "--nats", self.nats.url]
        argv += ["--admin", f"127.0.0.1:{port}", "--tick-s", "0.5", "--node-gone-s", "1", *flags]
        process = spawn(argv)
        self.processes.append(process)
        self.ports.append(port)
        await until(lambda: self._answers(port), "the autoscaler answers /healthz")
        return process

    @staticmethod
    async def _answers(port: int) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        return False

    async def get(self, path: str) -> dict[str, object]:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.ports[-1]}{path}") as answer:
            body: dict[str, object] = await answer.json()
            return body

    async def deploy(self, name: str, *, routed: bool = True, cc: int = 0, **scale: object) -> Revision:
        revision = Revision(
            project="p",
            name=name,
            image="i@sha256:1",
            created_at=time.time(),
            scale=ScaleSpec(**{"stable_window_s": 6.0, **scale}),  # type: ignore[arg-type]
            container_concurrency=cc,
        )
        await self.store.put(keys.revision("p", name), encode(revision))
        if routed:
            await self.route(name)
        return revision

    async def route(self, name: str, route: str = "") -> None:
        entry = RouteEntry(
            project="p", route=route or name, hosts={f"{name}.p.localhost": [TrafficTarget(revision=name, percent=100)]}
        )
        await self.store.put(keys.route("p", route or name), encode(entry))

    async def scale(self, name: str) -> Scale | None:
        entry = await self.store.get(keys.scale("p", name))
        return decode(Scale, entry.value) if entry is not None else None

    async def assignments(self, name: str = "") -> list[Assignment]:
        listing = await self.store.list(keys.ASSIGNMENTS)
        found = [decode(Assignment, entry.value) for entry in listing.entries]
        return [a for a in found if not name or a.revision == name]

    async def goals(self, name: str) -> list[str]:
        return sorted(a.goal for a in await self.assignments(name))

    def wake(self, name: str, waiting: int = 1, cause_id: str = "c-test") -> None:
        wake = Wake(revision=f"p/{name}", waiting=waiting, sender="ingress-1", cause_id=cause_id, at=time.time())
        self.bus.publish(messages.WAKE, encode(wake))

    def sample(self, name: str, load: float, interval_s: float = 1) -> None:
        sample = Sample(revision=f"p/{name}", concurrency=load, requests=int(load), in_flight=int(load))
        self.bus.publish(
            messages.SAMPLES, encode(SampleReport(sender="ingress-1", at=time.time(), interval_s=interval_s, samples=[sample]))
        )

    async def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            assert process.wait(10) in (0, -signal.SIGKILL)


async def until(check: Callable[[], object], what: str, timeout_s: float = 20) -> None:
    """Wait until `check` (or what it returns, awaited) is true."""
    end = time.monotonic() + timeout_s
    while True:
        answer = check()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture
async def engine(etcd: real.Server, nats: real.Server, store: Store, bus: Bus) -> AsyncIterator[Engine]:
    made = Engine(etcd, nats, store, bus)
    await bus.handle(messages.REFUSAL, lambda _, data: made.refusals.append(decode(Refusal, data)))
    yield made
    await made.close()


@pytest.fixture
async def agent(engine: Engine) -> AsyncIterator[Agent]:
    made = Agent(engine.store, engine.bus)
    await made.start()
    yield made
    await made.stop()


async def at_zero(engine: Engine, name: str) -> None:
    """`name` is verified and idle, with one parked."""

    async def idle() -> bool:
        scale = await engine.scale(name)
        return scale is not None and scale.verified and scale.desired == 0 and await engine.goals(name) == [Goal.PARK]

    await until(idle, f"{name} is at zero and parked")


async def test_a_new_revision_is_verified_goes_to_zero_and_parks(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("r-1", initial_scale=3)
    await until(lambda: len(agent.starts) == 3, "three are started to verify it")
    await until(lambda: verified(engine, "r-1"), "it is verified")
    started = time.monotonic()
    await at_zero(engine, "r-1")
    assert 3 < time.monotonic() - started < 12, "a stable window of six seconds, and the ticks to go down"
    scale = await engine.scale("r-1")
    assert scale is not None
    assert scale.reason == "NoTraffic"


async def verified(engine: Engine, name: str) -> bool:
    scale = await engine.scale(name)
    return scale is not None and scale.verified


async def test_a_wake_becomes_an_assignment_within_twenty_milliseconds(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    took = []
    for number in range(15):
        name = f"w-{number}"
        await engine.deploy(name, initial_scale=0)
        await until(lambda name=name: verified(engine, name), "a revision without initial instances is verified at once")
        await until(lambda name=name: parked(engine, name), "and keeps one parked") if number % 2 else None
        started, before = time.monotonic(), set(agent.seen_at)
        engine.wake(name)
        await until(lambda before=before: set(agent.seen_at) - before, "the agent sees the assignment")
        took.append(agent.seen_at[next(iter(set(agent.seen_at) - before))] - started)
        assert await engine.goals(name) == [Goal.RUN]
    took.sort()
    assert took[len(took) // 2] < 0.02, f"{[round(t * 1000, 1) for t in took]} ms"


async def parked(engine: Engine, name: str) -> bool:
    return await engine.goals(name) == [Goal.PARK]


async def test_a_burst_asks_for_as_many_as_it_needs_at_once_and_says_why(engine: Engine, agent: Agent) -> None:
    agent.memory = 1 << 20
    await engine.autoscaler()
    await engine.deploy("b-1", cc=1, initial_scale=0, max_scale=20)
    await until(lambda: verified(engine, "b-1"), "verified")
    engine.wake("b-1", waiting=10)
    await until(lambda: len(agent.starts) == 15, "ten wait with one each at 70 %: fifteen")
    shown = await engine.get("/decisions?revision=p/b-1")
    steps = [step["rule"] for made in shown["decisions"] for step in made["steps"]]  # type: ignore[attr-defined]
    assert {"wake", "stable"} <= set(steps)


async def test_traffic_holds_instances_and_its_end_lets_them_go(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("t-1", initial_scale=0)
    await until(lambda: verified(engine, "t-1"), "verified")
    engine.wake("t-1")
    await until(lambda: agent.starts, "it is woken")
    for _ in range(9):
        engine.sample("t-1", 1)
        await asyncio.sleep(1)
        assert Goal.RUN in await engine.goals("t-1")
    engine.sample("t-1", 0)
    await at_zero(engine, "t-1")


async def test_an_app_that_cannot_start_is_refused_with_its_cause_and_waits_longer_each_time(
    engine: Engine, agent: Agent
) -> None:
    agent.failing = Failure(reason="ExitCode3", message="exited with 3", exit_code=3, log_tail=["no such file"])
    await engine.autoscaler()
    await engine.deploy("f-1")
    await until(lambda: len(agent.starts) >= 3, "it is tried again")
    gaps = [b - a for a, b in zip(agent.starts, agent.starts[1:], strict=False)]
    assert gaps[0] >= 0.95
    assert gaps[1] >= 1.9
    await until(lambda: engine.refusals, "whoever waits is refused")
    engine.refusals.clear()
    engine.wake("f-1")
    await until(lambda: engine.refusals, "a wake during back-off is refused at once", 1)
    refusal = engine.refusals[0]
    assert (refusal.revision, refusal.reason, refusal.message) == ("p/f-1", "ExitCode3", "exited with 3")
    scale = await engine.scale("f-1")
    assert scale is not None
    assert scale.failure is not None
    assert scale.failure.count >= 3
    assert scale.failure.log_tail == ["no such file"]
    assert not await engine.goals("f-1"), "what failed is cleared away"
    agent.failing = None
    await until(lambda: verified(engine, "f-1"), "and it starts once the cause is gone", 15)
    scale = await engine.scale("f-1")
    assert scale is not None
    assert scale.failure is None


async def test_what_does_not_fit_is_refused_with_what_is_missing(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    revision = await engine.deploy("big-1", initial_scale=0, routed=False)
    from msgspec import structs

    await engine.store.put(
        keys.revision("p", "big-2"), encode(structs.replace(revision, name="big-2", memory_request_bytes=2048 * MI))
    )
    await engine.route("big-2")
    await until(lambda: verified(engine, "big-2"), "verified")
    engine.wake("big-2")
    await until(lambda: engine.refusals, "the wake is refused")
    assert engine.refusals[0].reason == "NoRoom"
    assert engine.refusals[0].message == "needs 2048Mi, largest free is 1024Mi on n1"
    scale = await engine.scale("big-2")
    assert scale is not None
    assert "needs 2048Mi" in scale.unplaced


async def test_instances_of_a_lost_node_are_replaced_elsewhere_and_given_up(engine: Engine, agent: Agent) -> None:
    second = Agent(engine.store, engine.bus, "n2")
    await engine.autoscaler()
    await engine.deploy("n-1", min_scale=2)
    await until(lambda: len(agent.starts) == 2, "two run on the only node")
    await until(lambda: verified(engine, "n-1"), "verified")
    await second.start()
    await agent.vanish()
    await until(lambda: len(second.starts) == 2, "the other node starts two")

    async def cleared() -> bool:
        return {a.node for a in await engine.assignments("n-1")} == {"n2"}

    await until(cleared, "what was assigned to the lost node is deleted")
    await second.stop()


async def test_another_autoscaler_takes_over_from_one_that_was_killed_and_takes_nothing_down(
    engine: Engine, agent: Agent
) -> None:
    first = await engine.autoscaler("--member", "one")
    await engine.deploy("k-1", initial_scale=3)
    await until(lambda: verified(engine, "k-1"), "verified")
    await engine.deploy("k-2", initial_scale=0)
    await until(lambda: verified(engine, "k-2"), "verified")
    await engine.autoscaler("--member", "two")
    running = await engine.goals("k-1")
    first.send_signal(signal.SIGKILL)

    async def woken() -> bool:
        engine.wake("k-2")
        await asyncio.sleep(0.25)
        return Goal.RUN in await engine.goals("k-2")

    await until(woken, "the second one answers wakes", 15)
    assert await engine.goals("k-1") == running, "for one stable window nothing goes down"


async def test_a_restarted_autoscaler_does_not_wait_for_the_lease_of_its_killed_predecessor(
    engine: Engine, agent: Agent
) -> None:
    first = await engine.autoscaler("--election-ttl-s", "30")
    await engine.deploy("s-1", initial_scale=0)
    await until(lambda: verified(engine, "s-1"), "verified")
    first.send_signal(signal.SIGKILL)
    first.wait(5)
    await engine.autoscaler()

    async def woken() -> bool:
        engine.wake("s-1")
        await asyncio.sleep(0.1)
        return Goal.RUN in await engine.goals("s-1")

    await until(woken, "it answers wakes", 5)


async def test_a_deleted_revision_leaves_nothing_behind(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("d-1", min_scale=2)
    await until(lambda: verified(engine, "d-1"), "verified")
    await engine.store.delete(keys.route("p", "d-1"))
    await engine.store.delete(keys.revision("p", "d-1"))

    async def gone() -> bool:
        return not await engine.assignments("d-1") and await engine.scale("d-1") is None

    await until(gone, "its assignments and its scale are deleted")
    await until(lambda: not agent.instances, "and the agent has nothing left")


async def test_a_revision_that_no_route_names_any_more_falls_at_once(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("u-1", min_scale=1, stable_window_s=60)
    await until(lambda: verified(engine, "u-1"), "verified")
    await engine.deploy("u-2", initial_scale=0, routed=False)
    await engine.route("u-2", "u-1")
    await until(lambda: nothing_of(engine, "u-1"), "nothing is left of it, and nothing parked", 5)


async def nothing_of(engine: Engine, name: str) -> bool:
    return not await engine.assignments(name)


async def test_without_nats_a_wake_through_etcd_works(engine: Engine, agent: Agent) -> None:
    await engine.autoscaler()
    await engine.deploy("e-1", initial_scale=0)
    await until(lambda: verified(engine, "e-1"), "verified")
    lease = await engine.store.grant(5)
    wake = Wake(revision="p/e-1", waiting=1, sender=short_id(), cause_id="c-etcd")
    await engine.store.put(keys.wake("p", "e-1"), encode(wake), lease=lease)
    await until(lambda: agent.starts, "it is woken")
    assert (await engine.assignments("e-1"))[0].cause_id == "c-etcd"


async def test_a_restarted_etcd_takes_nothing_down(nats: real.Server, bus: Bus) -> None:
    from store.connect import open_store

    async with real.etcd() as etcd:
        store = await open_store(etcd.address)
        engine = Engine(etcd, nats, store, bus)
        agent = Agent(store, bus)
        try:
            await agent.start()
            await engine.autoscaler()
            await engine.deploy("x-1", min_scale=2)
            await until(lambda: verified(engine, "x-1"), "verified")
            before = sorted(a.instance for a in await engine.assignments("x-1"))
            await etcd.restart()
            await engine.deploy("x-2", initial_scale=1)
            await until(lambda: verified(engine, "x-2"), "it goes on deciding")
            assert sorted(a.instance for a in await engine.assignments("x-1")) == before
        finally:
            await agent.stop()
            await engine.close()
            await store.close()
