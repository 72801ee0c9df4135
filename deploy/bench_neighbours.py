"""`deploy/bench neighbours`: a service that is called steadily, alone and beside another project's that takes all it can get.

The steady one is called on new connections at a fixed pace, in windows: in every second one the greedy one is frozen. A pair of windows
gives a ratio of p99s; the median of the pairs counts, so that what else the machine did in one window does not. The greedy ones serve a
page, and beside it fork, allocate, fill the disk, make files, write to the log, open sockets or burn; the first one does nothing beside it,
so that its row says how far two windows differ by themselves. Callers run in real time: they
stand for other machines. What each greedy one is told of its limits is printed with it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench_cold_engine import EBB, IMAGE, BenchEngine, call_once, percentile, until
from deploy.bench_cold_starts import PYTHON
from deploy.bench_images import python_image
from nodeagent import cgroups
from nodeagent.cgroups import Places
from nodeagent.freezer import Freezer

STEADY, GREEDY = "steady", "greedy"
PATH = f"/apis/serving.knative.dev/v1/namespaces/{GREEDY}/services"
GOAL = 1.2
RATE = 50.0
PAIRS = 5
SOCKETS = """
import os, resource, socket, threading, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held, server = [], socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
def take():
    while len(held) < 50_000:
        try:
            held.append(socket.socket())
        except OSError:
            time.sleep(1)
threading.Thread(target=take, daemon=True).start()
while True:
    server.accept()[0].close()
"""
SERVE = "busybox httpd -f -p $PORT -h /www & "
SCRIPTS = {
    "nothing": SERVE + "wait",
    "fork bomb": SERVE + "while :; do (while :; do sleep 1000 & done); done",
    "memory hog": SERVE + "while :; do busybox tail /dev/zero; done",
    "disk filler": SERVE + "while :; do busybox dd if=/dev/zero of=/x bs=1M; busybox rm /x; done",
    "inode filler": SERVE + "busybox mkdir /d; i=0; while :; do echo > /d/$i; i=$((i+1)); done",
    "log flood": SERVE + "busybox yes a line of a log that says nothing at all",
    "cpu burn": SERVE + "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait",
}


@dataclass
class Row:
    """What one greedy one did to the steady one: p99s in milliseconds by window."""

    name: str
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    bad: int = 0
    told: str = ""

    def take(self, into: list[float], window: tuple[float, int]) -> None:
        into.append(window[0])
        self.bad += window[1]

    @property
    def ratios(self) -> list[float]:
        return [beside / alone for alone, beside in zip(self.alone, self.beside, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON. Exit code 1 when a call of the steady service was not answered well."""
    parser = argparse.ArgumentParser(prog="deploy/bench neighbours", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="windows of 1 s instead of 6")
    parser.add_argument("--only", metavar="NAME,…", default="", help="these greedy ones (by the beginning of their names)")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"pairs of windows ({PAIRS})")
    parser.add_argument("--project-processors", type=int, default=0, metavar="N", help="as `ebb up` has it")
    options = parser.parse_args(argv)
    seconds = 1.0 if options.quick else 6.0
    wanted = tuple(options.only.split(","))
    rows: list[Row] = []
    with BenchEngine("--project-processors", str(options.project_processors)) as engine:
        engine.import_image(PYTHON, python_image(engine.home / "python.tar"))
        engine.deploy(STEADY, annotations={"autoscaling.knative.dev/min-scale": "1"})
        engine.until_ready([STEADY], 60)
        commands = {name: (IMAGE, ["/bin/busybox", "sh", "-c", script]) for name, script in SCRIPTS.items()}
        commands["50,000 sockets"] = (PYTHON, ["/usr/bin/python3.11", "-S", "-c", SOCKETS])
        chosen = {name: what for name, what in commands.items() if name.startswith(wanted)}
        if not chosen:
            parser.error(f"--only {options.only}: none of {', '.join(commands)}")
        for number, (name, (image, command)) in enumerate(chosen.items()):
            service = f"{GREEDY}-{number}"
            greedy(engine, service, image, command)
            rows.append(compared(engine, name, seconds, options.pairs))
            engine.call("DELETE", f"{PATH}/{service}")
            until(lambda: not instances(engine), "the greedy one is gone", 60)
    show(rows)
    if options.json:
        figures = {f"neighbours.{row.name.replace(' ', '_')}_ratio": round(row.ratio, 2) for row in rows}
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    return 1 if any(row.bad for row in rows) else 0


def compared(engine: BenchEngine, name: str, seconds: float, pairs: int) -> Row:
    """Windows alone and beside what runs now in the greedy project, in turn."""
    places = Places(f"/ebb-{engine.id}")
    freezer = Freezer(cgroups.detect(), places)
    row, told = Row(name), set[str]()

    def stands() -> str:
        """The greedy instance that was stopped; its limits may have ended one meanwhile, and another begun."""
        for each in instances(engine):
            told.update(line.partition(":")[0] for line in each.get("notices") or [])
            told.update([each["failure"]["reason"]] if each.get("failure") else [])
            places.put(each["instance"], GREEDY)
            if each["phase"] == "Ready":
                freezer.freeze(each["instance"])
        return next((each["instance"] for each in instances(engine) if freezer.frozen(each["instance"])), "")

    for _ in range(pairs):
        instance = until(stands, f"{name} stands still", 30)
        row.take(row.alone, called(engine.port, seconds))
        freezer.thaw(instance)
        row.take(row.beside, called(engine.port, seconds))
    freezer.thaw(until(stands, f"{name} stands still", 30))
    row.told = ", ".join(sorted(told))
    return row


def instances(engine: BenchEngine) -> list[dict[str, Any]]:
    """Of the greedy project."""
    return list(engine.call("GET", f"{EBB}/namespaces/{GREEDY}/instances")["items"])


def greedy(engine: BenchEngine, name: str, image: str, command: Sequence[str]) -> None:
    """Deploy it into a project of its own and wait until it is Ready. Raises NotInTime."""
    limits = {"memory": "256Mi"}
    container = {"image": image, "command": list(command), "resources": {"limits": limits}}
    notes = {"autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "1"}
    template = {"metadata": {"annotations": notes}, "spec": {"containers": [container]}}
    body = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": template},
    }
    engine.call("POST", PATH, body)

    def ready() -> bool:
        conditions = engine.call("GET", f"{PATH}/{name}").get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    until(ready, f"{name} is Ready", 60)


def called(port: int, seconds: float) -> tuple[float, int]:
    """p99 in milliseconds of calls at RATE for so long, the last one awaited, and how many were not answered well."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        took, bad = asyncio.run(calls(port, seconds))
    finally:
        os.sched_setscheduler(0, *before)
    return percentile(took, 0.99), bad


async def calls(port: int, seconds: float) -> tuple[list[float], int]:
    loop, begun = asyncio.get_running_loop(), []
    begin = loop.time()
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(begin + number / RATE - loop.time())
        begun.append(asyncio.ensure_future(call_once(port, STEADY)))
    done = await asyncio.gather(*begun)
    return [took for took, _ in done], sum(not good for _, good in done)


def show(rows: Sequence[Row]) -> None:
    """A table."""
    table = Table(title=f"a steady service's p99 beside a greedy one (goal: ratio ≤ {GOAL:g})", box=None)
    for column in ("neighbour", "alone, ms", "beside, ms", "ratio", "of pairs", "not answered", "told"):
        table.add_column(column, justify="left" if column in ("neighbour", "told") else "right")
    for row in rows:
        alone, beside = statistics.median(row.alone), statistics.median(row.beside)
        pairs = " ".join(f"{each:.2f}" for each in row.ratios)
        table.add_row(row.name, f"{alone:.1f}", f"{beside:.1f}", f"{row.ratio:.2f}", pairs, str(row.bad), row.told)
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
