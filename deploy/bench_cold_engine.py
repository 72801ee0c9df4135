"""A throw-away engine for the cold benchmark: `ebb up` on a root, ports and names of its own, driven over its API."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
EBB = "/apis/ebb.dev/v1"
IMAGE = "bench:static"


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


class ApiError(Exception):
    """The API answered with something else than 2xx."""


class BenchEngine:
    """`with BenchEngine() as engine:` is up, and has the image `IMAGE`; afterwards nothing of it is left."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ebb-bench-"))
        self.base = _free_ports(9)
        self.port = self.base + 8

    def __enter__(self) -> "BenchEngine":
        try:
            flags = [
                "--http",
                f"127.0.0.1:{self.port}",
                "--port-base",
                str(self.base),
                "--id",
                "ebbb",
                "--subnet",
                "10.239.0.0/16",
            ]
            self._ebb("up", "-d", *self._where(), *flags, timeout_s=180)
            archive = static_image(self.home / "static.tar")
            self._ebb("image", "import", str(archive), "--name", IMAGE, timeout_s=120)
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._down()

    def _down(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self._ebb("down", *self._where(), timeout_s=240, check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    def _where(self) -> list[str]:
        return ["--root", str(self.home / "root"), "--run", str(self.home / "run")]

    def _ebb(self, *argv: str, timeout_s: float, check: bool = True) -> None:
        environment = {**os.environ, "EBB_API": f"http://127.0.0.1:{self.base}", "NO_COLOR": "1"}
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

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the API; the decoded answer. Raises ApiError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.base, timeout=30)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise ApiError(f"{method} {path}: {answer.status} {text[:300]!r}")
            return json.loads(text) if text else None

    def deploy(self, name: str, *, park: bool, window_s: int) -> None:
        """Create a service of the static image; does not wait."""
        annotations = {"autoscaling.knative.dev/window": f"{window_s}s"}
        if not park:
            annotations["ebb.dev/park"] = "false"
        template = {"metadata": {"annotations": annotations}, "spec": {"containers": [{"image": IMAGE}]}}
        body = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"template": template},
        }
        self.call("POST", SERVICES, body)

    def ready(self) -> set[str]:
        """Names of the services that are Ready. Raises RuntimeError when one says that it never will be."""
        found = set()
        for item in self.call("GET", SERVICES)["items"]:
            conditions = {c["type"]: c for c in item.get("status", {}).get("conditions", [])}
            state = conditions.get("Ready", {})
            if state.get("status") == "True":
                found.add(item["metadata"]["name"])
            elif state.get("status") == "False":
                raise RuntimeError(f"service {item['metadata']['name']}: {state.get('reason')}: {state.get('message')}")
        return found

    def phases(self) -> dict[str, list[str]]:
        """Service → phases of its instances."""
        found: dict[str, list[str]] = {}
        for item in self.call("GET", f"{EBB}/namespaces/default/instances")["items"]:
            found.setdefault(item.get("service", ""), []).append(item["phase"])
        return found

    def story(self, about: str) -> list[dict[str, Any]]:
        """Events about a cause, in order of time."""
        return list(self.call("GET", f"{EBB}/story/{about}")["items"])

    def instance(self, name: str) -> dict[str, Any] | None:
        """What its node says of the instance `name`."""
        items = self.call("GET", f"{EBB}/namespaces/default/instances")["items"]
        return next((item for item in items if item["instance"] == name), None)

    def first_byte(self, service: str, timeout_s: float = 30) -> tuple[float, str]:
        """GET / of `service` on a new connection: milliseconds until the first byte of a 200, and the request's cause."""
        request = f"GET / HTTP/1.1\r\nHost: {service}.default.localhost\r\nConnection: close\r\n\r\n".encode()
        begin = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as client:
            client.sendall(request)
            first = client.recv(65536)
            took_ms = (time.perf_counter() - begin) * 1000
            head = first
            while more := client.recv(65536):
                head += more
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{service}: {head[:300]!r}")
        fields = dict(line.lower().partition(b": ")[::2] for line in head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
        return took_ms, fields.get(b"x-ebb-cause", b"").decode()

    # -- what it takes ------------------------------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Pid → name of everything that belongs to it: what names its directories, and their descendants, shims' included."""
        home, parents, names, own = str(self.home), dict[int, int](), dict[int, str](), set[int]()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                stat = (entry / "stat").read_text()
                parents[pid] = int(stat.rpartition(")")[2].split()[1])
                names[pid] = stat[stat.index("(") + 1 : stat.rindex(")")]
                if home in (entry / "cmdline").read_bytes().decode(errors="replace") and pid != os.getpid():
                    own.add(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in own and pid not in own}
            own |= more
            grown = bool(more)
        return {pid: names[pid] for pid in own}


def usage(pids: dict[int, str]) -> tuple[dict[str, float], dict[str, float], float]:
    """(RSS in MiB by name, PSS in MiB by name, CPU seconds of all) of the processes that are still there."""
    rss, pss, cpu_s = dict[str, float](), dict[str, float](), 0.0
    tick = os.sysconf("SC_CLK_TCK")
    for pid, name in pids.items():
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu_s += (int(fields[11]) + int(fields[12])) / tick
            lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
            rss[name] = rss.get(name, 0) + int(lines["Rss"].split()[0]) / 1024
            pss[name] = pss.get(name, 0) + int(lines["Pss"].split()[0]) / 1024
    return rss, pss, cpu_s


def static_image(out: Path) -> Path:
    """An OCI archive with busybox's web server and one page. Raises FileNotFoundError when busybox or umoci is not installed."""
    busybox, umoci = shutil.which("busybox"), shutil.which("umoci")
    if busybox is None or umoci is None:
        raise FileNotFoundError("busybox-static and umoci are needed to build the image; run deploy/install")
    work = out.parent / "image"
    root = work / "root"
    for folder in ("bin", "www", "tmp", "etc", "proc", "sys", "dev"):
        (root / folder).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin" / "busybox")
    (root / "www" / "index.html").write_text("a static page\n")
    layout, layer = f"{work}/layout", work / "layer.tar"
    start = ["/bin/busybox", "sh", "-c", "exec /bin/busybox httpd -f -p $PORT -h /www"]
    entry = [f"--config.entrypoint={word}" for word in start]
    for argv in (
        ["tar", "-C", str(root), "--owner=0", "--group=0", "-cf", str(layer), "."],
        [umoci, "init", "--layout", layout],
        [umoci, "new", "--image", f"{layout}:static"],
        [umoci, "raw", "add-layer", "--image", f"{layout}:static", str(layer)],
        [umoci, "config", "--image", f"{layout}:static", *entry],
        ["tar", "-C", layout, "-cf", str(out), "."],
    ):
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return out


def _free_ports(count: int) -> int:
    for base in range(21000 + os.getpid() % 4000, 32000, 16):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    stack.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise RuntimeError("no free ports from 21000 to 32000")
