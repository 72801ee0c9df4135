"""How an engine's state is shown: a table for people, plain lines for logs and pipes, JSON for scripts."""

import contextlib
import http.client
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from deploy.settings import Engine
from deploy.statefile import EngineState
from process import pids

if TYPE_CHECKING:
    from rich.console import RenderableType


class Row(msgspec.Struct, kw_only=True):
    """One component as `ebb status` shows it."""

    name: str
    pid: int
    state: str
    restarts: int
    since: float
    memory_bytes: int
    problem: str = ""
    note: str = ""
    """Worth knowing, not wrong: how it ended before it was started again."""

    @property
    def healthy(self) -> bool:
        return self.state == "running" and not self.problem


def rows(state: EngineState, problems: dict[str, str]) -> list[Row]:
    """The components now. `problems`: what each that was asked said is wrong."""
    found = []
    supervisor = state.supervisor
    up = pids.alive(supervisor)
    left = any(pids.alive(child.who) for child in state.children)
    found.append(
        Row(
            name="ebb up",
            pid=supervisor.pid,
            state="running" if up else "gone",
            restarts=0,
            since=state.started_at,
            memory_bytes=pids.memory_bytes(supervisor.pid) if up else 0,
            problem="nobody supervises what still runs; `ebb up` takes it over, `ebb down` stops it" if left and not up else "",
        )
    )
    for child in state.children:
        alive = pids.alive(child.who)
        known = child.state if alive or child.state != "running" else "died"
        problem = problems.get(child.name, "") if alive else ""
        if child.state in ("starting", "restarting", "running") and not alive:
            problem = f"last time: {child.last_exit}" if child.last_exit else "ended while nobody supervised it"
        found.append(
            Row(
                name=child.name,
                pid=child.pid if alive else 0,
                state=known,
                restarts=child.restarts,
                since=child.since,
                memory_bytes=pids.memory_bytes(child.pid) if alive else 0,
                problem=problem,
                note=f"last time: {child.last_exit}" if alive and child.restarts else "",
            )
        )
    return found


_COLOURS = {"starting": "yellow", "restarting": "yellow", "stopping": "yellow", "stopped": "dim", "waiting": "dim"}


def ago(seconds: float) -> str:
    """A duration in the two largest units: `4 s`, `3 m 20 s`, `2 h 5 m`, `3 d 1 h`."""
    whole = max(0, int(seconds))
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def table(found: Sequence[Row], now: float, title: str = "") -> "RenderableType":
    """A rich table of the rows."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, title=title or None, title_justify="left", padding=(0, 2, 0, 0))
    for name in ("COMPONENT", "PID", "STATE", "RESTARTS", "SINCE", "MEMORY", ""):
        shown.add_column(name, justify="right" if name in ("PID", "RESTARTS", "MEMORY") else "left", no_wrap=name != "")
    for row in found:
        colour = "green" if row.healthy else _COLOURS.get(row.state, "red")
        shown.add_row(
            row.name,
            str(row.pid or "-"),
            Text(row.state, style=colour),
            str(row.restarts),
            ago(now - row.since) if row.since else "-",
            f"{row.memory_bytes / 2**20:.0f} MB" if row.memory_bytes else "-",
            Text(row.problem, style="red") if row.problem else Text(row.note, style="dim"),
        )
    return shown


def say(line: str) -> None:
    """One plain line, at once."""
    with contextlib.suppress(OSError):  # a terminal that hung up must not keep us from stopping in order
        sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
        sys.stdout.flush()


def encode(shown: object, form: str) -> str:
    """`shown` as indented JSON or as YAML."""
    if form == "yaml":
        import yaml

        return yaml.safe_dump(shown, sort_keys=False)
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n"


def cluster(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Nodes, and revisions with their instances, as the API knows them; empty when it does not answer within two seconds, or to
    who may not read the first admin's token."""
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        tls = ssl.create_default_context(cafile=engine.local_ca)
        login = {"Authorization": f"Bearer {engine.admin_token.read_text().strip()}"}
        api = http.client.HTTPSConnection("localhost", timeout=2, context=tls)
        host, _, port = engine.api.removeprefix("https://").rpartition(":")
        api.sock = tls.wrap_socket(
            socket.create_connection((host.strip("[]"), int(port)), timeout=2), server_hostname="localhost"
        )
        with contextlib.closing(api):
            api.request("GET", "/apis/ebb.dev/v1/nodes", headers=login)
            found["nodes"] = msgspec.json.decode(api.getresponse().read(2**24))["items"]
            api.request("GET", "/apis/ebb.dev/v1/top", headers=login)  # a stream: its first line is enough
            found["revisions"] = msgspec.json.decode(api.getresponse().readline(2**24))["revisions"]
    except (OSError, http.client.HTTPException, msgspec.DecodeError, KeyError, TypeError):
        pass
    return found


def cluster_lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Nodes and instances in words."""
    lines = []
    for node in found.get("nodes", []):
        barred = node.get("unschedulable") or "schedulable"
        lines.append(
            f"node {node.get('node', '?')}: {node.get('cpu_m', 0)}m CPU, {node.get('memory_bytes', 0) >> 20} MiB, {barred}"
        )
    if "revisions" in found:
        counts: Counter[str] = Counter()
        for revision in found["revisions"]:
            counts.update(revision.get("instances", {}))
        lines.append("instances: " + (", ".join(f"{count} {phase}" for phase, count in sorted(counts.items())) or "none"))
    return lines
