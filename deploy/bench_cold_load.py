"""Calls at a fixed rate, from a process of their own that stands for clients on other machines: it runs in real time.

    python -m deploy.bench_cold_load PORT SERVICE RATE    # until its stdin ends; then what came of each call, as JSON

In the bench's own process a call would wait for the bench's other work, and in the kernel's turns, at whatever priority, for that of the
engine: both would be taken for the engine's latency.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deploy.bench_cold_engine import call_once, note


class Call(NamedTuple):
    """One call: when it was to be made (monotonic seconds), milliseconds to the first byte, whether it was a 200."""

    at: float
    took_ms: float
    good: bool


@contextlib.contextmanager
def load(port: int, service: str, rate: float) -> Iterator[list[Call]]:
    """`rate` calls a second at `service`, whatever becomes of the earlier ones, while the context lasts. Afterwards the list has them."""
    outcomes: list[Call] = []
    argv = [sys.executable, "-m", "deploy.bench_cold_load", str(port), service, str(rate)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as child:
        try:
            yield outcomes
        finally:
            said, _ = child.communicate(timeout=60)
    outcomes.extend(Call(*each) for each in json.loads(said))


async def _drive(port: int, service: str, rate: float) -> list[Call]:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    calls: list[asyncio.Task[tuple[float, bool]]] = []
    told = Counter[str]()
    begin = time.monotonic()
    while not ended.done():
        await asyncio.sleep(max(0.0, begin + len(calls) / rate - time.monotonic()))
        calls.append(asyncio.create_task(call_once(port, service, told=told)))
    outcomes = [Call(begin + number / rate, *each) for number, each in enumerate(await asyncio.gather(*calls))]
    for what, count in told.most_common(5):
        note(f"{count} calls of {service} got: {what}")
    return outcomes


if __name__ == "__main__":
    os.setsid()
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print(json.dumps(asyncio.run(_drive(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))))
