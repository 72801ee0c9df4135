"""Autoscalers as processes on real etcd and NATS, and a node agent played by the test."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from deploy.ports import free_port
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
        self.bus.publish(messages.instance(status.node), encode(status))
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
    return subprocess.Popen(argv, cwd=Path(__file__).parents[3], env=os.environ | {"PYTHONPATH": "."})


class Engine:
    """etcd and NATS, a bus and a store of the test's own, and autoscalers as processes."""

    def __init__(self, etcd: real.Server, nats: real.Server, store: Store, bus: Bus) -> None:
        self.etcd, self.nats, self.store, self.bus = etcd, nats, store, bus
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.refusals: list[Refusal] = []

    async def autoscaler(self, *flags: str) -> subprocess.Popen[bytes]:
        port = free_port()
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


async def at_zero(engine: Engine, name: str) -> None:
    """`name` is verified and idle, with one parked."""

    async def idle() -> bool:
        scale = await engine.scale(name)
        return scale is not None and scale.verified and scale.desired == 0 and await engine.goals(name) == [Goal.PARK]

    await until(idle, f"{name} is at zero and parked")


async def verified(engine: Engine, name: str) -> bool:
    scale = await engine.scale(name)
    return scale is not None and scale.verified
