"""Workers of a front door as processes, on real etcd and NATS, with oracles as instances and clients that keep the score."""

import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy import handover, readiness
from deploy.ports import free_port
from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.model import Instance, Limits, RouteEntry, TrafficTarget, encode
from tests import real
from tests.children import Child
from tests.eventually import eventually_async

ORACLE = Path(__file__).with_name("oracle.py")
IDS = itertools.count()


class Workers:
    """`python -m ingress` several times on one port."""

    def __init__(self, etcd: real.Server, nats: real.Server, peers: Path, *flags: str) -> None:
        self.port = free_port()
        self._argv = ["-m", "ingress", "--etcd", etcd.address, "--nats", nats.url, "--listen", f"127.0.0.1:{self.port}"]
        self._argv += ["--peers", str(peers), "--drain-timeout-s", "10", "--log-level", "warning", *flags]
        self.running: list[Child] = []
        self.at: dict[str, Child] = {}
        """By admin address."""
        self._run = peers.parent
        self._killed: list[Child] = []

    async def start(self) -> Child:
        """One more; it accepts when this returns."""
        handover.begin(self._run)  # As `ebb up` does.
        admin = free_port()
        worker = Child([sys.executable, *self._argv, "--admin", f"127.0.0.1:{admin}"])

        async def ready() -> bool:
            return await readiness.get(f"http://127.0.0.1:{admin}/readyz") is None

        await eventually_async(ready, "the worker is ready", timeout_s=30)
        self.running.append(worker)
        self.at[f"127.0.0.1:{admin}"] = worker
        return worker

    def kill(self, worker: Child) -> None:
        worker.send_signal(signal.SIGKILL)
        self.running.remove(worker)
        self._killed.append(worker)

    async def stop(self, worker: Child) -> None:
        """SIGTERM, and it must end well."""
        worker.terminate()
        self.running.remove(worker)
        assert await worker.wait(20) == 0

    async def roll(self) -> None:
        """Each is replaced, the new one first."""
        for worker in list(self.running):
            await self.start()
            await self.stop(worker)

    async def close(self) -> None:
        for worker in list(self.running):
            self.kill(worker)
        for worker in self._killed:
            await worker.wait()
        handover.end(self._run)


def clients_of(pid: int, port: int) -> set[int]:
    """The clients' ports of the connections at `port` that process `pid` has accepted."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(entry.readlink()).removeprefix("socket:[").rstrip("]"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2][-4:], 16) for row in rows if int(row[1][-4:], 16) == port and row[9] in inodes}


def waited_s(pid: int) -> float:
    """How long process `pid` was ready to run and had no core: the machine's other work, not its own."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


class Judge:
    """An oracle process as instances of one revision, and what its record says."""

    def __init__(self, store: Store, name: str, limit: int) -> None:
        self.name = name
        self.host = f"{name}.default.localhost"
        self.limit = limit
        self._store = store
        self._processes: list[Child] = []
        self._ports: list[int] = []

    async def route(self, *, protocol: str = "") -> None:
        entry = RouteEntry(
            project="default",
            route=self.name,
            hosts={self.host: [TrafficTarget(revision=self.name, percent=100)]},
            limits={self.name: Limits(container_concurrency=self.limit, protocol=protocol)},
        )
        await self._store.put(keys.route("default", self.name), encode(entry))

    async def instance(self) -> None:
        """One more oracle, Ready."""
        port = free_port()
        process = Child([sys.executable, str(ORACLE), str(port)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        self._processes.append(process)
        await self.ready(port)

    async def ready(self, port: int) -> None:
        """What listens at `port` is an instance."""
        self._ports.append(port)
        name = f"{self.name}-{len(self._ports)}"
        news = Instance(
            instance=name, project="default", revision=self.name, node="n", phase=Phase.READY,
            address=f"127.0.0.1:{port}", seq=1,
        )  # fmt: skip
        await self._store.put(keys.instance("n", name), encode(news))

    async def record(self) -> tuple[int, Counter[str]]:
        """(the most that were ever inside one instance, how often each request ran)"""
        most, ran = 0, Counter[str]()
        for port in self._ports:
            said = json.loads((await fetch(port, "oracle", "/record")).partition(b"\r\n\r\n")[2])
            most = max(most, said["most"])
            ran.update(said["ran"])
        return most, ran

    async def close(self) -> None:
        for process in self._processes:
            process.kill()
            await process.wait()


class Score:
    """Outcomes of requests by their ids: a status, or `lost` for a connection that ended instead."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.kept: list[KeepAlive] = []
        """The clients that keep their connections."""

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.outcomes.values())

    def note(self, request: str, answer: bytes) -> None:
        assert request not in self.outcomes, "one outcome a request"
        self.outcomes[request] = answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "lost"

    def agree(self, ran: Counter[str]) -> None:
        """At most once; and what was answered ran, what was refused did not."""
        assert [request for request, times in ran.items() if times > 1] == []
        assert [request for request, outcome in self.outcomes.items() if outcome == "200" and not ran[request]] == []
        assert [request for request, outcome in self.outcomes.items() if outcome in ("503", "504") and ran[request]] == []


async def fetch(port: int, host: str, target: str, timeout_s: float = 30) -> bytes:
    """The answer on a connection of its own; what came of it when the connection broke."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(timeout_s):
            return await reader.read()
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


class KeepAlive:
    """One client that sends its next request when it has its answer, on the same connection for as long as that is offered."""

    def __init__(self, port: int, judge: Judge, ms: float, score: Score) -> None:
        self._port = port
        self._judge = judge
        self._ms = ms
        self._score = score
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.lost = 0

    @property
    def port(self) -> int:
        """Its own end of the connection it has, or 0."""
        return 0 if self._streams is None else int(self._streams[1].get_extra_info("sockname")[1])

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            request = str(next(IDS))
            try:
                answer = await self._one(f"/work?id={request}&ms={self._ms:g}")
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                answer = b""
                self.lost += 1
                self._close()
                await asyncio.sleep(0.02)
            self._score.note(request, answer)
        self._close()

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _one(self, target: str) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {self._judge.host}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        if b"connection: close" in head.lower():
            self._close()
        return head + body


async def each_anew(port: int, judge: Judge, ms: float, score: Score, stop: asyncio.Event) -> None:
    """A client that makes a connection for each request."""
    while not stop.is_set():
        request = str(next(IDS))
        score.note(request, await fetch(port, judge.host, f"/work?id={request}&ms={ms:g}"))


@asynccontextmanager
async def clients(workers: Workers, judge: Judge, *, kept: int, anew: int, ms: float) -> AsyncIterator[Score]:
    """So many clients, each with one request at a time, while the body runs."""
    score, stop = Score(), asyncio.Event()
    score.kept = [KeepAlive(workers.port, judge, ms, score) for _ in range(kept)]
    jobs = [asyncio.create_task(each.run(stop)) for each in score.kept]
    jobs += [asyncio.create_task(each_anew(workers.port, judge, ms, score, stop)) for _ in range(anew)]
    try:
        yield score
    finally:
        stop.set()
        await asyncio.gather(*jobs)
