"""`deploy/bench neighbours`: a service that is called steadily, alone and beside another project's that takes all it can get.

The steady one is called on new connections at a fixed pace; the ratio is its p99 beside each greedy one to its p99 alone, measured right
before. The greedy ones serve a page, and beside it fork, allocate, fill the disk, make files, write to the log, open sockets or burn.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.bench_cold_engine import IMAGE, BenchEngine, call_once, percentile, until
from deploy.bench_cold_starts import PYTHON
from deploy.bench_images import python_image

STEADY, GREEDY = "steady", "greedy"
PATH = f"/apis/serving.knative.dev/v1/namespaces/{GREEDY}/services"
GOAL = 1.2
RATE = 50.0
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
    "fork bomb": SERVE + "while :; do (while :; do sleep 1000 & done); done",
    "memory hog": SERVE + "while :; do busybox tail /dev/zero; done",
    "disk filler": SERVE + "while :; do busybox dd if=/dev/zero of=/x bs=1M; busybox rm /x; done",
    "inode filler": SERVE + "busybox mkdir /d; i=0; while :; do echo > /d/$i; i=$((i+1)); done",
    "log flood": SERVE + "busybox yes a line of a log that says nothing at all",
    "cpu burn": SERVE + "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON. Exit code 1 when a call of the steady service was not answered well."""
    parser = argparse.ArgumentParser(prog="deploy/bench neighbours", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="5 s of each instead of 30")
    options = parser.parse_args(argv)
    seconds = 5.0 if options.quick else 30.0
    rows: list[tuple[str, float, float, int]] = []
    with BenchEngine() as engine:
        engine.import_image(PYTHON, python_image(engine.home / "python.tar"))
        engine.deploy(STEADY, annotations={"autoscaling.knative.dev/min-scale": "1"})
        engine.until_ready([STEADY], 60)
        commands = {name: (IMAGE, ["/bin/busybox", "sh", "-c", script]) for name, script in SCRIPTS.items()}
        commands["50,000 sockets"] = (PYTHON, ["/usr/bin/python3.11", "-S", "-c", SOCKETS])
        for number, (name, (image, command)) in enumerate(commands.items()):
            alone, bad = asyncio.run(called(engine.port, seconds))
            service = f"{GREEDY}-{number}"
            greedy(engine, service, image, command)
            beside, worse = asyncio.run(called(engine.port, seconds))
            rows.append((name, percentile(alone, 0.99), percentile(beside, 0.99), bad + worse))
            engine.call("DELETE", f"{PATH}/{service}")
    show(rows)
    if options.json:
        figures = {f"neighbours.{name.replace(' ', '_')}_ratio": round(beside / alone, 2) for name, alone, beside, _ in rows}
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    return 1 if any(bad for *_, bad in rows) else 0


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


async def called(port: int, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of calls at RATE for so long, whether the last one was answered or not, and how many were not answered well."""
    loop, calls = asyncio.get_running_loop(), []
    begin = loop.time()
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(begin + number / RATE - loop.time())
        calls.append(asyncio.ensure_future(call_once(port, STEADY)))
    done = await asyncio.gather(*calls)
    return [took for took, _ in done], sum(not good for _, good in done)


def show(rows: Sequence[tuple[str, float, float, int]]) -> None:
    """A table."""
    table = Table(title=f"a steady service's p99 beside a greedy one (goal: ratio ≤ {GOAL:g})", box=None)
    for column in ("neighbour", "alone, ms", "beside, ms", "ratio", "not answered"):
        table.add_column(column, justify="left" if column == "neighbour" else "right")
    for name, alone, beside, bad in rows:
        table.add_row(name, f"{alone:.1f}", f"{beside:.1f}", f"{beside / alone:.2f}", str(bad))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
