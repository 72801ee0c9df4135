"""`ebb up`, `ebb down`, `ebb status` for real: an engine on a root, ports, names and a subnet of its own."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.ports import free_ports
from tests.integration.netns_world import in_namespace

pytestmark = [pytest.mark.real, pytest.mark.timeout(170)]

COMPONENTS = ["ebb up", "etcd", "nats", "containerd", "gate", "registry", "autoscaler", "nodeagent", "ingress"]


def until(check: Callable[[], Any], what: str, timeout_s: float = 40) -> Any:
    """The first true value of `check()`; fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := check():
            return value
        time.sleep(0.05)
    pytest.fail(f"not within {timeout_s} s: {what}")


class Engine:
    """One engine's flags, and the commands on it."""

    def __init__(self, home: Path, subnet: str = "10.196.0.0/16") -> None:
        self.subnet = subnet
        self.root, self.run = home / "root", home / "run"
        self.base = free_ports(18)
        self.id = "ai" + os.urandom(2).hex()
        self.front = f"127.0.0.1:{self.base + 16}"
        self.flags = ["--root", str(self.root), "--run", str(self.run), "--http", self.front, "--port-base", str(self.base)]
        self.flags += ["--id", self.id, "--subnet", subnet, "--https", f"127.0.0.1:{self.base + 17}"]
        self.within: list[str] = []
        """What its commands are started by."""

    def ebb(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        command = [*self.within, sys.executable, "-P", "-m", "cli", *words]
        env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)

    def up(self) -> None:
        done = self.ebb("up", "-d", *self.flags)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def down(self) -> subprocess.CompletedProcess[str]:
        done = self.ebb("down", "--run", str(self.run))
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.ebb("status", "--run", str(self.run), "-o", "json").stdout)
        return shown

    def component(self, name: str) -> dict[str, Any]:
        return next(row for row in self.status()["components"] if row["name"] == name)

    def logs(self) -> str:
        return "".join(f"\n--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted((self.root / "logs").glob("*.log")))

    def left(self) -> list[str]:
        """Everything of this engine that the machine still holds, looked for without the engine's own help."""
        found = []
        for pid in (entry for entry in os.listdir("/proc") if entry.isdigit()):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if str(self.run) in line or str(self.root) in line:
                    found.append(f"process {pid}: {line[:120]}")
        found += [f"mount {m}" for m in Path("/proc/self/mounts").read_text().splitlines() if str(self.root.parent) in m]
        found += [f"interface {name}" for name in os.listdir("/sys/class/net") if name.startswith(self.id)]
        groups = os.walk("/sys/fs/cgroup")  # Others' come and go meanwhile: a walk does not mind.
        found += [f"cgroup {at}/{name}" for at, below, _ in groups for name in below if f"ebb-{self.id}" in name]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=20, check=True).stdout
        found += [f"table {line}" for line in tables.splitlines() if line.endswith(f"ebb_{self.id}")]
        routes = subprocess.run(["ip", "route"], capture_output=True, text=True, timeout=20, check=True).stdout
        found += [f"route {line}" for line in routes.splitlines() if self.subnet[:7] in line]
        return found


@contextlib.contextmanager
def going(home: Path) -> Iterator[Engine]:
    """An engine for `ebb up`, of which nothing is left in the end."""
    made = Engine(home)
    yield made
    made.ebb("down", "--run", str(made.run))
    assert until(lambda: not made.left(), f"nothing is left: {made.left()}", 10)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with going(tmp_path) as made:
        yield made


def test_up_is_healthy_down_leaves_nothing_and_the_next_up_knows_what_was_stored(engine: Engine) -> None:
    engine.up()
    shown = engine.status()
    assert [row["name"] for row in shown["components"]] == COMPONENTS
    assert shown["healthy"], shown
    assert engine.ebb("status", "--run", str(engine.run)).returncode == 0
    kubeconfig, token = engine.root / "kubeconfig", engine.root / "admin.token"
    assert "current-context: ebb" in kubeconfig.read_text()
    assert [path.stat().st_mode & 0o777 for path in (kubeconfig, token)] == [0o600, 0o600]
    api = f"https://127.0.0.1:{engine.base}/apis/serving.knative.dev/v1/namespaces/default/services"
    tls = ssl.create_default_context(cafile=engine.root / "ca.crt")
    admin = {"Authorization": f"Bearer {token.read_text().strip()}"}
    assert httpx.get(api, trust_env=False, verify=tls).status_code == 401
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "kept"},
            "spec": {"template": {"spec": {"containers": [{"image": "127.0.0.1:1/nothing:v1"}]}}}}  # fmt: skip
    assert httpx.post(api, json=body, trust_env=False, verify=tls, headers=admin).status_code == 201
    engine.down()
    assert engine.left() == []
    assert engine.ebb("status", "--run", str(engine.run)).returncode == 1
    engine.up()
    assert httpx.get(f"{api}/kept", trust_env=False, verify=tls, headers=admin).status_code == 200


def test_a_killed_component_comes_back_and_status_says_so(engine: Engine) -> None:
    engine.up()
    for name in ("nats", "ingress", "nodeagent", "containerd"):
        before = engine.component(name)["pid"]
        os.kill(before, signal.SIGKILL)

        def again(name: str = name, before: int = before) -> bool:
            now = engine.component(name)
            return bool(now["healthy"] and now["pid"] != before and now["restarts"] == 1 and "SIGKILL" in now["note"])

        until(again, f"{name} was started again and is well")
    until(lambda: engine.status()["healthy"], "all are healthy again")


def test_a_second_up_on_the_same_root_is_refused_or_finds_it_up_and_the_first_runs_on(engine: Engine) -> None:
    engine.up()
    second = engine.ebb("up", *engine.flags)
    assert second.returncode == 1
    pid = engine.component("ebb up")["pid"]
    assert f"an engine runs already with --root {engine.root} (pid {pid})" in second.stderr
    detached = engine.ebb("up", "-d", *engine.flags)
    assert (detached.returncode, f"up already, with these settings (pid {pid})" in detached.stdout) == (0, True)
    assert engine.status()["healthy"]


def test_a_killed_supervisor_leaves_a_working_engine_that_the_next_up_takes_over(engine: Engine) -> None:
    engine.up()
    before = {row["name"]: row["pid"] for row in engine.status()["components"]}
    os.kill(before["ebb up"], signal.SIGKILL)
    until(lambda: engine.component("ebb up")["state"] == "gone", "its end is noticed")
    assert httpx.get(f"http://{engine.front}/", headers={"Host": "no.such.host"}, trust_env=False).status_code == 404
    engine.up()
    after = {row["name"]: row["pid"] for row in engine.status()["components"]}
    assert engine.status()["healthy"]
    assert after.pop("ebb up") != before.pop("ebb up")
    assert after == before


def test_down_stops_what_a_killed_supervisor_left(engine: Engine) -> None:
    engine.up()
    os.kill(engine.component("ebb up")["pid"], signal.SIGKILL)
    until(lambda: engine.component("ebb up")["state"] == "gone", "its end is noticed")
    engine.down()
    assert engine.left() == []


def test_two_engines_live_side_by_side_and_stopping_one_leaves_the_other_alone(engine: Engine, tmp_path: Path) -> None:
    engine.up()
    other = Engine(tmp_path / "b", "10.197.0.0/16")  # A short name: sockets are below it.
    try:
        other.up()
        assert engine.status()["healthy"]
        engine.down()
        assert other.status()["healthy"]
    finally:
        other.down()
    assert other.left() == []


def test_while_an_engine_is_up_the_kernel_hands_what_waits_at_a_closing_socket_to_another(engine: Engine) -> None:
    """In a network namespace of its own: the setting is everybody's."""
    setting = Path("/proc/sys/net/ipv4/tcp_migrate_req")

    def body() -> list[str]:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        setting.write_text("0")
        seen = []
        engine.up()
        seen.append(setting.read_text().strip())
        setting.write_text("0")  # As another engine does that stops.
        assert engine.ebb("roll", "--run", str(engine.run)).returncode == 0
        seen.append(setting.read_text().strip())
        engine.down()
        return [*seen, setting.read_text().strip()]

    assert in_namespace(None, body) == ["1", "1", "0"]
