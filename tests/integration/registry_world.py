"""A real registry process on real etcd and NATS, and an autoscaler and node agent that are played for it."""

import asyncio
import contextlib
import hashlib
import http.client
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from deploy.ports import free_port
from registry import authority
from store import keys
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
from store.messages import IMAGE_RESOLVE, ResolvedImage, ResolveImage
from store.model import Assignment, Failure, Instance, Node, Revision, Scale, decode, encode
from store.watch import Table
from tests import real

API = "/apis/serving.knative.dev/v1"
TOKEN = "ebb_testsadmin_" + "5a" * 32
"""The admin's, of every registry made here."""
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def make_tls_registry(directory: Path, etcd: str, nats: str, *flags: str) -> tuple[real.Server, str, str]:
    """The same with TLS: the server, its URL, and the file of the authority that signs for it."""
    ca, key = directory / "ca.crt", directory / "ca.key"
    authority.make(ca, key, "localhost", time.time())
    server = make_registry(
        directory, etcd, nats, "--listen-tls", "true", "--local-ca", str(ca), "--local-ca-key", str(key), *flags
    )
    server._answers = lambda _: _answers(server.admin_port, "/readyz") and _answers(server.port, "/healthz", str(ca))  # type: ignore[attr-defined]
    return server, server.url.replace("http://", "https://"), str(ca)


def make_registry(directory: Path, etcd: str, nats: str, *flags: str) -> real.Server:
    """`python -m registry`, not started; its admin endpoint is on `admin_port`."""
    port, admin = free_port(), free_port()
    argv = [sys.executable, "-m", "registry", "--etcd", etcd, "--nats", nats, "--listen", f"127.0.0.1:{port}"]
    argv += ["--admin", f"127.0.0.1:{admin}", "--data", str(directory / "spool"), "--lead-ttl-s", "1.5"]
    argv += ["--admin-token-file", str(token_file(directory)), *flags]

    def answers(_: int) -> bool:
        return _answers(admin, "/readyz") and _answers(port, "/healthz")

    server = real.Server("registry", argv, port, directory, answers)
    server.admin_port = admin  # type: ignore[attr-defined]
    return server


def token_file(directory: Path) -> Path:
    """A file with TOKEN that only we may read."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "admin.token"
    path.touch(mode=0o600)
    path.write_text(TOKEN)
    return path


def _answers(port: int, path: str, ca: str = "") -> bool:
    if ca:
        tls = ssl.create_default_context(cafile=ca)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection("127.0.0.1", port, timeout=1, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def service(name: str = "hello", image: str = "hello:v1", **spec: Any) -> dict[str, Any]:
    """A Service as a client sends it."""
    template = {"spec": {"containers": [{"image": image}]}}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def digest(image: str) -> str:
    """What the played agent resolves `image` to."""
    return f"docker.io/library/{image.partition(':')[0]}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


class Players:
    """Answers `ebb.image.resolve` and makes each revision run, or not, as the words in its image's name say:

    `missing` has no image until it is in `found`; `exits` fails with code 5 until it is in `cured`; `slow` never gets Ready.
    """

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store, self._bus = store, bus
        self._table: Table[Revision] = Table(store, keys.REVISIONS, Revision, self._changed)
        self._queue: asyncio.Queue[tuple[Revision, bool]] = asyncio.Queue()
        self.found: set[str] = set()
        self.cured: set[str] = set()

    async def run(self) -> None:
        """Play until cancelled."""
        await self._bus.respond(IMAGE_RESOLVE, self._resolve)
        await self._store.put(keys.node("n1"), encode(Node(node="n1", cpu_m=4000, memory_bytes=2**33)))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._table.run())
            for _ in range(8):
                group.create_task(self._work())

    def _changed(self, _: str, new: Revision | None, old: Revision | None) -> None:
        revision = new or old
        assert revision is not None
        self._queue.put_nowait((revision, new is not None))

    async def _resolve(self, data: bytes) -> bytes:
        image = decode(ResolveImage, data).image
        if "missing" in image and image not in self.found:
            return encode(ResolvedImage(reason="ImageNotFound", message=f"{image}: no such tag in its registry"))
        return encode(ResolvedImage(image=digest(image) if "@" not in image else image))

    async def _work(self) -> None:
        while True:
            revision, there = await self._queue.get()
            await (self.play(revision) if there else self._forget(revision))

    async def play(self, revision: Revision) -> None:
        """What autoscaler and agent say of `revision` now."""
        project, name, image = revision.project, revision.name, revision.image_name
        scale = Scale(project=project, revision=name, desired=1)
        if "exits" in image and image not in self.cured:
            failure = Failure(reason="ExitCode5", message="exited with code 5", exit_code=5, log_tail=["no config file"])
            await self._store.put(keys.scale(project, name), encode(Scale(**{**_fields(scale), "failure": failure})))
            return
        phase = Phase.STARTING if "slow" in image else Phase.READY
        instance = Instance(
            instance=f"{name}-i", project=project, revision=name, service=revision.service, node="n1", phase=phase
        )
        given = Assignment(
            instance=instance.instance, project=project, revision=name, service=revision.service, node="n1", goal="run"
        )
        await self._store.put(keys.assignment("n1", instance.instance), encode(given))
        await self._store.put(keys.instance("n1", instance.instance), encode(instance))
        await self._store.put(keys.scale(project, name), encode(Scale(**{**_fields(scale), "verified": phase is Phase.READY})))

    async def _forget(self, revision: Revision) -> None:
        await self._store.delete(keys.scale(revision.project, revision.name))
        for key in (keys.assignment, keys.instance):
            await self._store.delete(key("n1", f"{revision.name}-i"))


def _fields(scale: Scale) -> dict[str, Any]:
    return {name: getattr(scale, name) for name in scale.__struct_fields__}


class Client:
    """The API of one project, and waits for what it shall say."""

    def __init__(self, base: str, project: str = "default", ca: str = "") -> None:
        verify = ssl.create_default_context(cafile=ca) if ca else True
        self.http = httpx.AsyncClient(base_url=base, timeout=20, headers=AUTH, verify=verify)
        self.base, self.project = base, project

    def path(self, plural: str = "services", name: str = "") -> str:
        return f"{API}/namespaces/{self.project}/{plural}" + (f"/{name}" if name else "")

    async def get(self, name: str = "hello", plural: str = "services") -> dict[str, Any]:
        answer = await self.http.get(self.path(plural, name))
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def create(self, body: dict[str, Any], plural: str = "services") -> dict[str, Any]:
        answer = await self.http.post(self.path(plural), json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def until(self, status: str, name: str = "hello", plural: str = "services", timeout_s: float = 20) -> dict[str, Any]:
        """The object once its Ready condition has `status` for its present generation."""
        obj: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    obj = await self.get(name, plural)
                    observed = obj.get("status", {}).get("observedGeneration")
                    if observed == obj["metadata"]["generation"] and ready(obj)["status"] == status:
                        return obj
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{plural} {name} is not Ready={status}: {obj.get('status')}") from None


def ready(obj: dict[str, Any], kind: str = "Ready") -> dict[str, Any]:
    """A condition of `obj`."""
    found = [c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {"status": "none"}


@contextlib.asynccontextmanager
async def playing(store: Store, bus: Bus) -> AsyncIterator[Players]:
    """Players at work while the context lasts."""
    players = Players(store, bus)
    job = asyncio.get_running_loop().create_task(players.run())
    try:
        yield players
    finally:
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await job
