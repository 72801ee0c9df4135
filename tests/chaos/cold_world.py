"""A cold service with everything real but the containers: workers of the front door, the autoscaler, etcd, NATS.

The node is the test's own: what it is told to start is one port of an oracle process, Ready after as long as an app would take to boot.
"""

import asyncio
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from activator.ownership import View
from deploy import readiness
from deploy.ports import free_port, free_ports
from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
from store.model import (
    Assignment,
    Goal,
    Instance,
    Member,
    Node,
    Revision,
    ScaleSpec,
    decode,
    encode,
)
from store.watch import Table
from tests import real
from tests.chaos.workers_world import ORACLE, Judge, Workers
from tests.children import Child
from tests.eventually import eventually_async

NODE = "n"
MI = 1 << 20


class Cold(Judge):
    """A service at zero, its revision, and the node that will run it."""

    def __init__(self, store: Store, bus: Bus, name: str, limit: int, *, boot_s: float, most: int) -> None:
        super().__init__(store, name, limit)
        self.boot_s = boot_s
        self.most = most
        self.started: list[str] = []
        """Instances that were ordered to run, in order."""
        self.ready_at = float("inf")
        self.faults: list[str] = []
        """What the node could not do."""
        self._bus = bus
        self._free: list[int] = []
        self._seq = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._table = Table(store, keys.assignments(NODE), Assignment, self._changed)

    async def exist(self) -> None:
        first = free_ports(self.most)
        self._free = list(range(first, first + self.most))
        self._ports = list(self._free)
        argv = [sys.executable, str(ORACLE), *map(str, self._free)]
        process = Child(argv, stdout=subprocess.PIPE)
        self._processes.append(process)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"listening\n"
        node = Node(node=NODE, cpu_m=1_000_000, memory_bytes=1_000_000 * MI, slots=self.most)
        await self._store.put(keys.node(NODE), encode(node), lease=await self._store.grant(600))
        self._job(self._table.run())
        await self._table.synced()
        revision = Revision(
            project="default", name=self.name, image="i@sha256:1", created_at=time.time(), container_concurrency=self.limit,
            scale=ScaleSpec(stable_window_s=60.0, initial_scale=0),
        )  # fmt: skip
        await self._store.put(keys.revision("default", self.name), encode(revision))
        await self.route()

    def _changed(self, _: str, new: Assignment | None, old: Assignment | None) -> None:
        if new is not None and new.goal == Goal.RUN and (old is None or old.goal != Goal.RUN):
            self.started.append(new.instance)
            self._job(self._boot(new))

    async def _boot(self, order: Assignment) -> None:
        port = self._free.pop(0)
        await self._say(order, Phase.STARTING, "")
        await asyncio.sleep(self.boot_s)
        await self._say(order, Phase.READY, f"127.0.0.1:{port}")
        self.ready_at = min(self.ready_at, time.monotonic())

    async def _say(self, order: Assignment, phase: Phase, address: str) -> None:
        self._seq += 1
        news = Instance(
            instance=order.instance, project=order.project, revision=order.revision, node=NODE, phase=phase,
            address=address, at=time.time(), seq=self._seq, cause_id=order.cause_id,
        )  # fmt: skip
        self._bus.publish(messages.instance(NODE), encode(news))
        await self._store.put(keys.instance(NODE, order.instance), encode(news))

    def _job(self, coro: object) -> None:
        job = asyncio.ensure_future(coro)  # type: ignore[call-overload]
        self._jobs.add(job)
        job.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and job.exception() is not None:
            self.faults.append(repr(job.exception()))

    async def assigned(self) -> int:
        return len((await self._store.list(keys.ASSIGNMENTS)).entries)

    async def owner(self, workers: Workers) -> Child:
        """The worker in whose line its requests stand."""
        members = [decode(Member, entry.value) for entry in (await self._store.list(keys.members("ingress"))).entries]
        name = View(frozenset(each.worker for each in members)).owner(f"default/{self.name}")
        [admin] = [each.admin for each in members if each.worker == name]
        return workers.at[admin]

    async def close(self) -> None:
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await super().close()
        assert self.faults == []


@asynccontextmanager
async def autoscaler(etcd: real.Server, nats: real.Server) -> AsyncIterator[None]:
    admin = free_port()
    argv = [sys.executable, "-m", "autoscaler", "--etcd", etcd.address, "--nats", nats.url, "--park", "false"]
    process = Child([*argv, "--admin", f"127.0.0.1:{admin}", "--log-level", "warning"])

    async def ready() -> bool:
        return await readiness.get(f"http://127.0.0.1:{admin}/readyz") is None

    try:
        await eventually_async(ready, "the autoscaler leads", timeout_s=20)
        yield
    finally:
        process.terminate()
        await process.wait()


class Herd:
    """So many clients, each connected before it says anything; then all ask at once. Blocking: run it in a thread."""

    def __init__(self, port: int, host: str, count: int) -> None:
        self._host = host
        self._socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        for sock in self._socks:
            sock.setblocking(False)
        self.ports = {str(number): sock.getsockname()[1] for number, sock in enumerate(self._socks)}
        """By request, the client's own end of its connection."""
        self.sent_s = 0.0
        """What it took to send all."""
        self.sent_at = 0.0
        self.answers: dict[str, bytes] = {}
        """By request, what came of it: the answer, or nothing when the connection broke."""
        self.took_s: dict[str, float] = {}

    def run(self, ms: float, timeout_s: float = 60) -> None:
        requests = [
            (
                str(number),
                f"GET /work?id={number}&ms={ms:g} HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n".encode(),
            )
            for number in range(len(self._socks))
        ]
        self.sent_at = begun = time.monotonic()
        for sock, (_, data) in zip(self._socks, requests, strict=True):
            sock.send(data)
        self.sent_s = time.monotonic() - begun
        poll = select.epoll()
        waiting = {
            sock.fileno(): (sock, request, bytearray()) for sock, (request, _) in zip(self._socks, requests, strict=True)
        }
        for number in waiting:
            poll.register(number, select.EPOLLIN)
        while waiting and time.monotonic() < begun + timeout_s:
            for number, _ in poll.poll(1):
                self._hear(poll, waiting, number, begun)
        poll.close()
        for sock, _, _ in waiting.values():
            sock.close()

    def _hear(
        self, poll: select.epoll, waiting: dict[int, tuple[socket.socket, str, bytearray]], number: int, begun: float
    ) -> None:
        sock, request, heard = waiting[number]
        try:
            data = sock.recv(65536)
        except ConnectionError:
            data, heard = b"", bytearray()
        heard += data
        if not data:
            self.answers[request] = bytes(heard)
            self.took_s[request] = time.monotonic() - begun
            poll.unregister(number)
            sock.close()
            del waiting[number]

    @property
    def counts(self) -> Counter[str]:
        return Counter(answer[9:12].decode() or "lost" for answer in self.answers.values())
