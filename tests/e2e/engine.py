"""A whole engine for tests: `ebb up -d` on its own root, ports, names and subnet, driven through its command line and its API."""

import asyncio
import contextlib
import json
import os
import random
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from deploy.ports import free_ports
from process.ids import short_id

SERVING = "/apis/serving.knative.dev/v1"


class NotYet(AssertionError):
    """A condition did not come true in time; the message says what was last seen."""


def until(check: Callable[[], Any], what: str, timeout_s: float = 30, every_s: float = 0.05) -> Any:
    """The first true value of `check()`. Raises NotYet, with the last value or error, after `timeout_s`."""
    end = time.monotonic() + timeout_s
    seen: Any = None
    while time.monotonic() < end:
        try:
            seen = check()
            if seen:
                return seen
        except (httpx.HTTPError, AssertionError, KeyError) as error:
            seen = repr(error)
        time.sleep(every_s)
    raise NotYet(f"not within {timeout_s} s: {what}; last seen: {seen}")


def free_subnet() -> str:
    """A /16 that this machine does not route."""
    routed = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
    free = [f"10.{n}.0.0/16" for n in range(100, 250) if f"10.{n}." not in routed]
    return random.choice(free)


class Engine:
    """One running engine. `ebb(...)` runs a command against it; `api` is an HTTP client of its API."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        # Names of its own, so that two runs on one machine leave each other alone.
        self.name = f"t{short_id(4)}"
        self.root, self.run = home / "root", home / "run"
        base = free_ports(16)
        self.port_base, self.http_port, self.https_port = base, base + 14, base + 15
        self.pressure = home / "pressure"
        """For tests that tell it of memory pressure (`--pressure-file`)."""
        self.up_flags = ["--root", str(self.root), "--run", str(self.run), "--http", f"127.0.0.1:{self.http_port}",
                         "--https", f"127.0.0.1:{self.https_port}", "--port-base", str(base), "--id", self.name,
                         "--subnet", free_subnet(), "--allow-private-registries", "127.0.0.0/8", *flags]  # fmt: skip
        self._api: httpx.Client | None = None
        self.front = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60)

    @property
    def api(self) -> httpx.Client:
        """The API, as the first admin: of an engine that was up."""
        if self._api is None:
            tls = ssl.create_default_context(cafile=self.root / "ca.crt")
            login = {"Authorization": f"Bearer {(self.root / 'admin.token').read_text().strip()}"}
            self._api = httpx.Client(base_url=f"https://127.0.0.1:{self.port_base}", timeout=30, verify=tls, headers=login)
        return self._api

    def up(self) -> None:
        self.ebb("up", "-d", *self.up_flags, timeout_s=90)

    def down(self) -> None:
        self.ebb("down", "--root", str(self.root), "--run", str(self.run), timeout_s=90)

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
        self.front.close()

    def ebb(self, *argv: str, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`ebb argv…` against this engine. Fails the test with what it printed when it exits other than 0."""
        environment = {**os.environ, "EBB_RUN": str(self.run), "NO_COLOR": "1", "COLUMNS": "160"}
        command = [sys.executable, "-m", "cli", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
        if check:
            assert done.returncode == 0, f"ebb {' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def import_image(self, name: str, archive: Path) -> None:
        self.ebb("image", "import", str(archive), "--name", name, "--shared", timeout_s=180)

    # -- objects ---------------------------------------------------------------------------------------------------------

    def deploy(
        self,
        name: str,
        image: str,
        *,
        env: dict[str, str] | None = None,
        port: int | None = None,
        annotations: dict[str, str] | None = None,
        spec: dict[str, Any] | None = None,
        container: dict[str, Any] | None = None,
        traffic: list[dict[str, Any]] | None = None,
        project: str = "default",
        wait_s: float = 60,
    ) -> dict[str, Any]:
        """Create or update a Service over the API and wait until it is Ready; the object as it then is."""
        one: dict[str, Any] = {"image": image, **(container or {})}
        if env:
            one["env"] = [{"name": k, "value": v} for k, v in env.items()]
        if port:
            one["ports"] = [{"containerPort": port}]
        template: dict[str, Any] = {"spec": {"containers": [one], **(spec or {})}}
        if annotations:
            template["metadata"] = {
                "annotations": {k if "/" in k else f"autoscaling.knative.dev/{k}": v for k, v in annotations.items()}
            }
        body: dict[str, Any] = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"template": template},
        }
        if traffic is not None:
            body["spec"]["traffic"] = traffic
        path = f"{SERVING}/namespaces/{project}/services"
        old = self.api.get(f"{path}/{name}")
        if old.status_code == 200:
            body["metadata"]["resourceVersion"] = old.json()["metadata"]["resourceVersion"]
            answer = self.api.put(f"{path}/{name}", json=body)
        else:
            answer = self.api.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return self.wait_ready(name, wait_s, project) if wait_s else answer.json()

    def service(self, name: str, project: str = "default") -> dict[str, Any]:
        answer = self.api.get(f"{SERVING}/namespaces/{project}/services/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def condition(self, name: str, kind: str = "services", type_: str = "Ready", project: str = "default") -> dict[str, Any]:
        answer = self.api.get(f"{SERVING}/namespaces/{project}/{kind}/{name}")
        assert answer.status_code == 200, answer.text
        found = [c for c in answer.json().get("status", {}).get("conditions", []) if c["type"] == type_]
        return found[0] if found else {}

    def wait_ready(self, name: str, timeout_s: float = 60, project: str = "default") -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            now = self.service(name, project)
            status = now.get("status", {})
            if status.get("observedGeneration") != now["metadata"]["generation"]:
                return None
            mine = [c for c in status.get("conditions", []) if c["type"] == "Ready"]
            assert mine, f"no Ready condition: {status}"
            assert mine[0]["status"] != "Unknown", mine[0]
            if mine[0]["status"] == "False":
                raise RuntimeError(f"{name}: {mine[0].get('reason')}: {mine[0].get('message')}")
            return now

        return until(ready, f"service {name} Ready", timeout_s)  # type: ignore[no-any-return]

    def wait_failed(self, name: str, timeout_s: float = 60, project: str = "default") -> dict[str, Any]:
        """The Ready condition of a service once it is False."""
        return until(
            lambda: (c := self.condition(name, project=project)).get("status") == "False" and c, f"{name} not Ready", timeout_s
        )  # type: ignore[no-any-return]

    def delete(self, name: str, project: str = "default") -> None:
        answer = self.api.delete(f"{SERVING}/namespaces/{project}/services/{name}")
        assert answer.status_code in (200, 202, 404), answer.text

    def instances(self, project: str = "default", *, service: str = "", phases: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        answer = self.api.get(f"/apis/ebb.dev/v1/namespaces/{project}/instances")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        items = found["items"] if isinstance(found, dict) else found
        return [i for i in items if (not service or i.get("service") == service) and (not phases or i["phase"] in phases)]

    def at_zero(self, service: str, timeout_s: float = 60) -> None:
        """Wait until no instance of `service` runs any app code."""
        running = ("Pending", "Pulling", "Starting", "Ready", "Draining")
        until(lambda: not self.instances(service=service, phases=running), f"{service} at zero", timeout_s)

    # -- requests ----------------------------------------------------------------------------------------------------------

    def host(self, name: str, project: str = "default") -> str:
        return f"{name}.{project}.localhost"

    def get(self, name: str, path: str = "/", *, project: str = "default", **more: Any) -> httpx.Response:
        return self.front.get(path, headers={"Host": self.host(name, project), **more.pop("headers", {})}, **more)

    def pids(self) -> dict[str, int]:
        """Component → pid, as `ebb status -o json` says."""
        shown = json.loads(
            self.ebb("status", "--root", str(self.root), "--run", str(self.run), "-o", "json", check=False).stdout
        )
        return {c["name"]: c["pid"] for c in shown["components"]}


@dataclass
class Outcomes:
    """What a load driver saw: one outcome a request, `200` or the status or the error's name."""

    counts: Counter[str] = field(default_factory=Counter)
    by_revision: Counter[str] = field(default_factory=Counter)
    by_instance: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    last_begun: dict[str, float] = field(default_factory=dict)
    """When the latest request began that a revision answered, by the monotonic clock."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        return self.total - self.counts["200"]

    def percentile_s(self, q: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class Load:
    """Requests at one service: `burst` (all at once), `callers` (so many always), `steady` (a fixed rate, in the background)."""

    def __init__(self, engine: Engine, service: str, path: str = "/", project: str = "default") -> None:
        self.outcomes = Outcomes()
        self._url = f"http://127.0.0.1:{engine.http_port}{path}"
        self._headers = {"Host": engine.host(service, project)}

    async def one(self, client: aiohttp.ClientSession) -> None:
        begin = time.monotonic()
        try:
            async with client.get(self._url, headers=self._headers) as answer:
                body = await answer.read()
                outcome = str(answer.status)
                if answer.status == 200 and body.startswith(b"{"):
                    said = json.loads(body)
                    self.outcomes.by_revision[said.get("revision")] += 1
                    last = self.outcomes.last_begun.get(said.get("revision"), begin)
                    self.outcomes.last_begun[said.get("revision")] = max(begin, last)
                    self.outcomes.by_instance[said.get("instance")] += 1
                elif answer.status != 200:
                    outcome = f"{answer.status} {answer.headers.get('x-ebb-reason', '')} {body[:120]!r}"
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__ + f" {error}"
        self.outcomes.latencies_s.append(time.monotonic() - begin)
        self.outcomes.counts[outcome] += 1
        if outcome != "200":
            self.outcomes.failures.append((begin, outcome))

    async def burst(self, count: int, timeout_s: float = 60) -> Outcomes:
        async with self._client(timeout_s) as client:
            await asyncio.gather(*(self.one(client) for _ in range(count)))
        return self.outcomes

    async def callers(self, count: int, lasting_s: float, timeout_s: float = 30) -> Outcomes:
        """`count` callers for `lasting_s`, each of whom asks again as soon as it was answered."""
        end = time.monotonic() + lasting_s

        async def caller(client: aiohttp.ClientSession) -> None:
            while time.monotonic() < end:
                await self.one(client)

        async with self._client(timeout_s) as client:
            await asyncio.gather(*(caller(client) for _ in range(count)))
        return self.outcomes

    @contextlib.asynccontextmanager
    async def steady(self, rate: float, timeout_s: float = 30) -> AsyncIterator[Outcomes]:
        """`rate` requests a second while the body runs; all are answered or failed when it ends."""
        stop = asyncio.Event()
        async with self._client(timeout_s) as client:

            async def drive() -> None:
                pending: set[asyncio.Task[None]] = set()
                begin, sent = time.monotonic(), 0
                while not stop.is_set():
                    due = int((time.monotonic() - begin) * rate)
                    while sent < due:
                        job = asyncio.create_task(self.one(client))
                        pending.add(job)
                        job.add_done_callback(pending.discard)
                        sent += 1
                    await asyncio.sleep(1 / max(rate, 1) / 2)
                await asyncio.gather(*pending)

            driver = asyncio.create_task(drive())
            try:
                yield self.outcomes
            finally:
                stop.set()
                await driver

    def _client(self, timeout_s: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=timeout_s))
