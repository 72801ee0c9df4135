"""A throw-away engine for the cold benchmark: `ebb up` on a root, ports and names of its own, driven over its API."""

import asyncio
import contextlib
import functools
import http.client
import json
import math
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from deploy.bench_images import static_image
from deploy.ports import free_ports
from deploy.settings import PORTS

T = TypeVar("T")

SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
EBB = "/apis/ebb.dev/v1"
IMAGE = "bench:static"
PARKED, FROZEN = "Parked", "Frozen"
STANDING = frozenset({"Pending", "Pulling", "Parked", "Starting", "Ready", "Frozen", "Draining"})


class NotInTime(Exception):
    """Something did not come true before its deadline; the message says what, and what was seen last."""


def until(check: Callable[[], T], what: str, timeout_s: float, every_s: float = 0.05) -> T:
    """The first true value of `check()`. Raises NotInTime."""
    end, seen = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        try:
            value = check()
            if value:
                return value
            seen = repr(value)
        except (OSError, http.client.HTTPException, ApiError) as error:
            seen = repr(error)
        time.sleep(every_s)
    raise NotInTime(f"not within {timeout_s:g} s: {what}; last seen: {seen}")


class NotAnswered(Exception):
    """A call was answered with something else than 200; the message is the answer."""


class ApiError(Exception):
    """The API answered with something else than 2xx."""


class BenchEngine:
    """`with BenchEngine() as engine:` is up, and has the image `IMAGE`; afterwards nothing of it is left."""

    def __init__(self, *flags: str) -> None:
        """`flags`: of `ebb up`, beside what keeps it apart from other engines."""
        self._flags = flags
        self.home = Path(tempfile.mkdtemp(prefix="ebb-bench-"))
        # As /run of any machine is: on a disk, the kernel would be measured that makes and removes small files there.
        self._run = Path("/dev/shm" + str(self.home))
        own = len(PORTS) + 1
        self.base = free_ports(own + 1)
        self.port = self.base + own
        self.id = f"b{self.base:05}"

    def __enter__(self) -> "BenchEngine":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `__exit__` takes the engine down then, too
        try:
            flags = [
                "--http",
                f"127.0.0.1:{self.port}",
                "--https",
                "off",
                "--port-base",
                str(self.base),
                "--id",
                self.id,
                "--subnet",
                f"10.{200 + self.base // 16 % 50}.0.0/16",
                *self._flags,
            ]
            self._ebb("up", "-d", *self._where(), *flags, timeout_s=180)
            self.import_image(IMAGE, static_image(self.home / "static.tar"))
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._down()

    def import_image(self, name: str, archive: Path) -> None:
        self._ebb("image", "import", str(archive), "--name", name, "--shared", timeout_s=120)

    def _down(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self._ebb("down", *self._where(), timeout_s=240, check=False)
        for directory in (self.home, self._run):
            shutil.rmtree(directory, ignore_errors=True)

    def _where(self) -> list[str]:
        return ["--root", str(self.home / "root"), "--run", str(self._run)]

    def _ebb(self, *argv: str, timeout_s: float, check: bool = True) -> None:
        environment = {**os.environ, "EBB_RUN": str(self._run), "NO_COLOR": "1"}
        home = Path(__file__).parents[1]
        done = subprocess.run(
            [sys.executable, "-m", "cli", *argv],
            env=environment,
            cwd=home,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"ebb {' '.join(argv)}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    # -- the API ----------------------------------------------------------------------------------------------------------------

    @functools.cache  # noqa: B019 - one engine a process
    def _login(self) -> tuple[ssl.SSLContext, str]:
        root = self.home / "root"
        token = (root / "admin.token").read_text().strip()
        return ssl.create_default_context(cafile=root / "ca.crt"), f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the API on a connection of its own; the decoded answer. Raises ApiError."""
        with contextlib.closing(self.connection()) as connection:
            return self.call_on(connection, method, path, body)

    def connection(self) -> http.client.HTTPSConnection:
        """To the API; whoever makes several calls, as the command line does, keeps one."""
        return http.client.HTTPSConnection("127.0.0.1", self.base, timeout=30, context=self._login()[0])

    def call_on(self, connection: http.client.HTTPSConnection, method: str, path: str, body: Any = None) -> Any:
        """One call of the API on `connection`; the decoded answer. Raises ApiError."""
        data = None if body is None else json.dumps(body)
        fields = {"Content-Type": "application/json", "Authorization": self._login()[1]}
        connection.request(method, path, data, fields)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise ApiError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def deploy(
        self,
        name: str,
        *,
        park: bool = True,
        window_s: int = 6,
        initial_scale: int = 1,
        image: str = IMAGE,
        spec: Mapping[str, Any] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Create a service; does not wait."""
        notes = {
            **(annotations or {}),
            "autoscaling.knative.dev/window": f"{window_s}s",
            "autoscaling.knative.dev/initial-scale": str(initial_scale),
        }
        if not park:
            notes["ebb.dev/park"] = "false"
        template = {"metadata": {"annotations": notes}, "spec": {"containers": [{"image": image}], **(spec or {})}}
        body = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"template": template},
        }
        self.call("POST", SERVICES, body)

    def deploy_all(self, names: Sequence[str], *, park: bool, initial_scale: int, window_s: int = 6) -> None:
        """Create many services, several at a time."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.deploy(name, park=park, window_s=window_s, initial_scale=initial_scale), names))

    def delete(self, names: Sequence[str]) -> None:
        """Delete services and wait until nothing of them runs."""
        for name in names:
            self.call("DELETE", f"{SERVICES}/{name}")
        self.until_gone(names)

    def until_gone(self, names: Sequence[str]) -> None:
        """Wait until nothing of these services runs."""
        until(lambda: not self.phases().keys() & set(names), f"{len(names)} services are gone", 60)

    def services(self) -> list[dict[str, Any]]:
        """All services, as one list of the API."""
        return list(self.call("GET", SERVICES)["items"])

    def ready(self) -> set[str]:
        """Names of the services that are Ready. Raises RuntimeError when one says that it never will be."""
        found = set()
        for item in self.services():
            conditions = {c["type"]: c for c in item.get("status", {}).get("conditions", [])}
            state = conditions.get("Ready", {})
            if state.get("status") == "True":
                found.add(item["metadata"]["name"])
            elif state.get("status") == "False":
                raise RuntimeError(f"service {item['metadata']['name']}: {state.get('reason')}: {state.get('message')}")
        return found

    def until_ready(self, names: Sequence[str], timeout_s: float, every_s: float = 0.05) -> None:
        until(lambda: self.ready() >= set(names), f"{len(names)} services are Ready", timeout_s, every_s)

    def until_at_zero(self, names: Sequence[str], standing: str, timeout_s: float = 120) -> None:
        """Wait until none of `names` runs, and each has one instance in the phase `standing`; with "" none at all."""
        want = [standing] if standing else []

        def other() -> dict[str, list[str]]:
            phases = self.phases()
            found = {name: sorted(p for p in phases.get(name, []) if p in STANDING) for name in names}
            return {name: stands for name, stands in found.items() if stands != want}

        what = f"{len(names)} services are at zero, {standing or 'nothing'} stands"
        try:
            until(lambda: not other(), what, timeout_s, 0.2)
        except NotInTime:
            left = other()
            raise NotInTime(
                f"not within {timeout_s:g} s: {what}; {len(left)} are not, as {dict(list(left.items())[:5])}"
            ) from None

    def parked(self) -> int:
        """How many instances are parked."""
        return sum(phases.count("Parked") for phases in self.phases().values())

    def until_settled(self, count: int, timeout_s: float = 600, still_s: float = 6) -> None:
        """Wait until nothing runs and `count` instances are parked, or so many as the node parks: the number stands still."""
        seen, since = -1, time.monotonic()

        def settled() -> bool:
            nonlocal seen, since
            phases = [phase for of_one in self.phases().values() for phase in of_one]
            parked = phases.count("Parked")
            if parked != seen or len(phases) != parked:
                seen, since = parked, time.monotonic()
            return len(phases) == parked and (parked >= count or time.monotonic() - since > still_s)

        until(settled, f"{count} instances are parked and none runs", timeout_s, 0.5)

    def phases(self) -> dict[str, list[str]]:
        """Service → phases of its instances."""
        found: dict[str, list[str]] = {}
        for item in self.call("GET", f"{EBB}/namespaces/default/instances")["items"]:
            found.setdefault(item.get("service", ""), []).append(item["phase"])
        return found

    def queued(self) -> int:
        """Requests that wait for an instance now, as the front door says on /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.base + PORTS.index("ingress_admin"), timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("ebb_ingress_queued{"))

    def story(self, about: str) -> list[dict[str, Any]]:
        """Events about a cause, in order of time."""
        return list(self.call("GET", f"{EBB}/story/{about}")["items"])

    def instance(self, name: str) -> dict[str, Any] | None:
        """What its node says of the instance `name`."""
        items = self.call("GET", f"{EBB}/namespaces/default/instances")["items"]
        return next((item for item in items if item["instance"] == name), None)

    def first_byte(self, service: str, timeout_s: float = 30) -> tuple[float, str]:
        """GET / of `service` on a new connection: milliseconds until the first byte of a 200, and the request's cause.

        Raises NotAnswered."""
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as client:
            client.sendall(_request(service))
            first = client.recv(65536)
            took_ms = (time.perf_counter() - begin) * 1000
            head = first
            while more := client.recv(65536):
                head += more
        if not head.startswith(b"HTTP/1.1 200"):
            raise NotAnswered(f"{service}: {head[:300]!r}")
        fields = dict(line.lower().partition(b": ")[::2] for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
        return took_ms, fields.get(b"x-ebb-cause", b"").decode()

    def answers(self, service: str) -> bool:
        """Whether a GET of `service` is answered with 200 now."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            client.sendall(_request(service))
            return client.recv(65536).startswith(b"HTTP/1.1 200")

    async def call_once(self, service: str, timeout_s: float = 30) -> tuple[float, bool]:
        return await call_once(self.port, service, timeout_s)


async def call_once(port: int, service: str, timeout_s: float = 30, told: Counter[str] | None = None) -> tuple[float, bool]:
    """Milliseconds until the first byte of the answer to a GET on a new connection, and whether it is a 200; `told` counts what else
    came."""
    begin, first, what = time.perf_counter(), b"", "nothing"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(_request(service))
                first = await reader.read(65536)
    except (OSError, TimeoutError) as error:
        what = repr(error)
    good = first.startswith(b"HTTP/1.1 200")
    if told is not None and not good:
        head, _, body = first.decode("latin-1").partition("\r\n\r\n")
        told[f"{head[9:12]} {body[:160]}".strip() or what] += 1
    return (time.perf_counter() - begin) * 1000, good


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def note(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def _request(service: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {service}.default.localhost\r\nConnection: close\r\n\r\n".encode()
