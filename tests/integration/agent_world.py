"""A node agent as a process, beside real etcd, NATS and containerd, with an image that behaves as its variables say."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from deploy.ports import free_port
from nodeagent import cgroups
from nodeagent.containerd.client import Containerd
from nodeagent.images.facade import ImageStore
from nodeagent.tasks import Tasks
from nodeagent.volumes import place_of
from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.messages import LogLine
from store.model import Assignment, Goal, Instance, Probe, Revision, decode, encode
from tests import archives, real
from tests.real_containerd import RealContainerd, private_containerd

NODE = "node-1"
SERVE = "busybox httpd -f -p $PORT -h /www & trap 'kill $!; exit 0' TERM; echo serving; echo beside >&2; wait"
"""Ends at once on SIGTERM, which a shell as process 1 does only when told so."""


class World:
    """The test's hands: `assign`, `phase`, `until`. `agent` is the running process."""

    def __init__(self, store: Store, etcd: real.Server, nats: real.Server, containerd: RealContainerd, home: Path) -> None:
        self.store, self.etcd, self.nats, self.containerd, self.home = store, etcd, nats, containerd, home
        number = int.from_bytes(os.urandom(2)) % 5000
        self.id = f"t{number}"
        self.subnet = f"10.{232 + number // 256}.{number % 256}.0/24"
        self.image = ""
        self.port, self.asked = free_port(), free_port()
        """Of health, and of what the registry asks for."""
        self._process: subprocess.Popen[bytes] | None = None

    # -- the agent -------------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def files(self) -> Path:
        """Where the agent keeps the files of volumes."""
        return place_of(Path(self.containerd.socket), self.id)

    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    async def start(self, *flags: str) -> None:
        """Run `python -m nodeagent` and wait until it is ready."""
        argv = [sys.executable, "-P", "-m", "nodeagent", "--etcd", self.etcd.address, "--nats", self.nats.url]
        argv += ["--node", NODE, "--containerd", self.containerd.socket, "--root", str(self.home / "node"), "--id", self.id]
        argv += ["--subnet", self.subnet, "--admin", f"127.0.0.1:{self.port}", "--pool-size", "3"]
        argv += ["--listen", f"127.0.0.1:{self.asked}"]
        argv += ["--allow-private-registries", "127.0.0.0/8", *flags]
        self._spawn(argv)
        await self.until(self.ready, "the agent is ready")

    def _spawn(self, argv: list[str]) -> None:
        with (self.home / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], stdout=log, stderr=log)

    async def ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the agent ended:\n{self.log()[-4000:]}"
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200
        return False

    def kill(self) -> None:
        """SIGKILL the agent."""
        self._end(signal.SIGKILL)

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM the agent; its exit code."""
        return self._end(signal.SIGTERM, timeout_s)

    def _end(self, number: int, timeout_s: float = 40) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(5)
        self._process = None
        return code

    def sweep(self) -> None:
        """Remove what an agent that was killed in the end could not; what is frozen dies only when it is thawed."""
        # Below our own alone: beside it, cgroups of others come and go while one looks.
        all_groups = Path("/sys/fs/cgroup")
        own = [path / f"ebb-{self.id}" for path in (all_groups, *all_groups.iterdir())]
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            for file in (file for path in own for file in path.glob(f"**/{name}")):
                file.write_text(word)
        for procs in (file for path in own for file in path.glob("**/cgroup.procs")):
            for pid in procs.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for line in _run("ip", "-o", "link", "show").splitlines():
            name = line.split(": ")[1].partition("@")[0]
            if name.startswith(f"{self.id}-"):
                _run("ip", "link", "delete", name)
        for family in ("inet", "arp"):
            _run("nft", "delete", "table", family, f"ebb_{self.id}")
        shutil.rmtree(self.files, ignore_errors=True)
        cgroups.remove(cgroups.detect(), f"/ebb-{self.id}")

    async def get(self, path: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.asked}{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    # -- what is wanted --------------------------------------------------------------------------------------------------------

    async def revision(self, name: str = "app-00001", script: str = SERVE, **changes: Any) -> Revision:
        """Store a revision that runs `script` in busybox's shell."""
        plan: dict[str, Any] = {
            "project": "default",
            "name": name,
            "service": "app",
            "image": self.image,
            "command": ["/bin/busybox", "sh", "-c", script],
            "readiness_probe": Probe(),
        }
        revision = Revision(**(plan | changes))
        await self.store.put(keys.revision(revision.project, name), encode(revision))
        return revision

    async def assign(self, instance: str, goal: str = Goal.RUN, revision: str = "app-00001", project: str = "default") -> None:
        assignment = Assignment(instance=instance, project=project, revision=revision, node=NODE, goal=goal, cause_id="c-test")
        await self.store.put(keys.assignment(NODE, instance), encode(assignment))

    async def withdraw(self, instance: str) -> None:
        await self.store.delete(keys.assignment(NODE, instance))

    async def status(self, instance: str) -> Instance | None:
        entry = await self.store.get(keys.instance(NODE, instance))
        return None if entry is None else decode(Instance, entry.value)

    async def phase(self, instance: str, *phases: Phase, timeout_s: float = 20) -> Instance:
        """Wait until `instance` is in one of `phases`."""
        found: list[Instance] = []

        async def there() -> bool:
            status = await self.status(instance)
            found[:] = [status] if status is not None else []
            return status is not None and status.phase in phases

        await self.until(there, f"{instance} in {phases}", timeout_s, lambda: repr(found))
        return found[0]

    async def gone(self, instance: str) -> None:
        """Wait until nothing is told of it any more, and containerd has nothing of it."""

        async def away() -> bool:
            return await self.status(instance) is None and instance not in await self.instances()

        await self.until(away, f"{instance} gone")

    async def instances(self) -> dict[str, Any]:
        return {row["instance"]: row for row in json.loads(await self.get("/instances"))}

    async def task_pid(self, instance: str) -> int:
        """The pid of its first process."""
        engine = Containerd(self.containerd.socket)
        try:
            return (await Tasks(engine, "").get(instance)).pid
        finally:
            await engine.close()

    async def nothing_in_containerd(self) -> bool:
        """Whether no container is left."""
        engine = Containerd(self.containerd.socket)
        try:
            return not await Tasks(engine, "").list()
        finally:
            await engine.close()

    async def follow_logs(self, query: str, count: int) -> list[LogLine]:
        """The first `count` lines that GET /logs streams."""
        found: list[LogLine] = []
        async with asyncio.timeout(10), aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{self.asked}/logs?{query}") as answer:
                async for raw in answer.content:
                    found.append(decode(LogLine, raw))
                    if len(found) == count:
                        break
        return found

    async def until(
        self, true: Callable[[], Any], what: str, timeout_s: float = 20, seen: Callable[[], str] = lambda: ""
    ) -> None:
        """Wait for a condition. Fails with the end of the agent's log."""
        until = time.monotonic() + timeout_s
        while not await true():
            assert time.monotonic() < until, f"not within {timeout_s} s: {what}; {seen()}\n{self.log()[-6000:]}"
            await asyncio.sleep(0.01)

    async def answer(self, address: str, path: str = "/") -> str:
        """As `fetch`, of busybox's server in gVisor. Asked again when it hangs up: with Debian's runsc (20221219) a `read` of a socket that
        has nothing yet does not wait but ends with EAGAIN, and the server is lost when the request comes a moment after its connection."""
        found: list[str] = []

        async def answered() -> bool:
            with contextlib.suppress(aiohttp.ServerDisconnectedError):
                found.append(await fetch(address, path))
            return bool(found)

        await self.until(answered, f"an answer to {path}")
        return found[0]


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout


async def fetch(address: str, path: str = "/") -> str:
    """What an instance answers, asked from the host."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"http://{address}{path}") as answer:
        return await answer.text()


async def imported(containerd: RealContainerd, archive: bytes) -> str:
    """An image's reference by digest, after it was imported for the project `default`; before an agent is there."""
    engine = Containerd(containerd.socket)
    await engine.ready(10)
    with tempfile.TemporaryDirectory(prefix="ebb-spool-") as spool:
        images = ImageStore(engine, node=NODE, spool=Path(spool))

        async def body() -> AsyncIterator[bytes]:
            yield archive

        [(name, digest)] = await images.import_archive(body(), "app:v1")
        await images.close()
    await engine.close()
    return f"{name.rpartition(':')[0]}@{digest}"


@contextlib.asynccontextmanager
async def world(store: Store, etcd: real.Server, nats: real.Server, *flags: str) -> AsyncIterator[World]:
    """A World with its agent started; afterwards nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="ebb-agent-") as home:
        async with private_containerd() as containerd:
            made = World(store, etcd, nats, containerd, Path(home))
            made.image = await imported(containerd, archives.oci_tar(archives.busybox("hello\n"), "app:v1"))
            try:
                await made.start(*(flags or ("--on-stop", "stop")))
                yield made
            finally:
                made.stop()
                made.sweep()
