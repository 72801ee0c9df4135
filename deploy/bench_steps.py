"""`deploy/bench steps`: a load that steps 1 → 10 → 100 → 10 → 0 callers at an app that takes 200 ms, as figures and as a picture.

Callers ask again as soon as they were answered. Four times a second it is noted how many instances run, how many requests wait and
what the callers of the last moment saw. The picture goes to docs/load-steps.svg, the figures are printed beside their goals.
"""

import argparse
import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bench_cold_engine import PARKED, BenchEngine, note, percentile
from deploy.bench_images import python_image
from deploy.bench_steps_picture import Moment, draw

IMAGE = "bench:python"
SERVICE = "steps"
APP_MS = 200
CONCURRENCY = 10
UTILIZATION = 0.7
WINDOW_S = 10
STEPS = ((1, 12.0), (10, 20.0), (100, 30.0), (10, 40.0), (0, 0.0))
"""(callers, seconds); the last step lasts until nothing runs."""
EVERY_S = 0.25
RUNNING = ("Pending", "Pulling", "Starting", "Ready")
GOALS = {
    "steps.errors": ("≤", 0),
    "steps.overshoot": ("≤", 1.2),
    "steps.zero_after_s": ("≤", WINDOW_S + 5),
}
"""`overshoot`: most instances ÷ what the load needs; `zero_after_s`: from the last answer until no instance is Ready."""


@dataclass
class Seen:
    """What the callers saw: milliseconds of each answer and when it came, and what went wrong."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def since(self, at: float) -> list[float]:
        """Milliseconds of the answers that came after `at`."""
        found = []
        for when, took_ms in reversed(self.answers):
            if when < at:
                break
            found.append(took_ms)
        return found


@dataclass
class Load:
    """How many callers there shall be, and what they saw. `over`: no more come."""

    callers: int = 0
    over: bool = False
    seen: Seen = field(default_factory=Seen)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, draw, print. Exit code 0 when it was measured."""
    parser = argparse.ArgumentParser(prog="deploy/bench steps", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--picture", metavar="FILE", default="docs/load-steps.svg", help="where the picture goes")
    parser.add_argument("--quick", action="store_true", help="a third of the time: a look, not a measurement")
    options = parser.parse_args(argv)
    steps = [(callers, lasting_s / 3 if options.quick else lasting_s) for callers, lasting_s in STEPS]
    with BenchEngine() as engine:
        engine.import_image(IMAGE, python_image(engine.home / "python.tar"))
        engine.deploy(
            SERVICE,
            image=IMAGE,
            window_s=WINDOW_S,
            spec={"containerConcurrency": CONCURRENCY},
            annotations={"autoscaling.knative.dev/target-utilization-percentage": f"{UTILIZATION * 100:g}"},
        )
        engine.until_ready([SERVICE], 60)
        engine.until_at_zero([SERVICE], PARKED)
        moments, seen = asyncio.run(_run(engine, steps))
    figures = summary(moments, seen)
    Path(options.picture).write_text(
        draw(moments, f"{APP_MS} ms an answer, {CONCURRENCY} at once in an instance, {WINDOW_S} s window")
    )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    for name, value in sorted(figures.items()):
        sign, bound = GOALS.get(name, ("", 0))
        sys.stdout.write(f"{name:28} {value:>10}  {f'{sign} {bound:g}' if sign else ''}".rstrip() + "\n")
    for error in seen.errors[:5]:
        note(error)
    return 0


async def _run(engine: BenchEngine, steps: Sequence[tuple[int, float]]) -> tuple[list[Moment], Seen]:
    load, callers = Load(), list[asyncio.Task[None]]()
    watcher = asyncio.create_task(_watch(engine, load))
    for count, lasting_s in steps:
        load.callers = count
        note(f"{count} callers for {lasting_s:g} s")
        callers = [caller for caller in callers if not caller.done()]
        callers += [asyncio.create_task(_caller(engine, number, load)) for number in range(len(callers), count)]
        await asyncio.sleep(lasting_s)
    load.over = True
    async with asyncio.timeout(120):
        moments = await watcher
        await asyncio.gather(*callers)
    return moments, load.seen


async def _caller(engine: BenchEngine, number: int, load: Load) -> None:
    """Ask, on one connection, for as long as more than `number` callers are wanted."""
    seen = load.seen
    request = f"GET /?ms={APP_MS} HTTP/1.1\r\nHost: {SERVICE}.default.localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    try:
        while number < load.callers:
            begin = time.monotonic()
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            now = time.monotonic()
            seen.answers.append((now, (now - begin) * 1000))
            if not head.startswith(b"HTTP/1.1 200"):
                seen.errors.append(head.decode(errors="replace")[:200])
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        seen.errors.append(repr(error))
    finally:
        writer.close()


async def _watch(engine: BenchEngine, load: Load) -> list[Moment]:
    """What is seen until the load is over and nothing runs."""
    moments, begin = list[Moment](), time.monotonic()
    while not (load.over and moments and not moments[-1].instances):
        now = time.monotonic()
        phases = (await asyncio.to_thread(engine.phases)).get(SERVICE, [])
        took = load.seen.since(now - 2 * EVERY_S)
        moments.append(
            Moment(
                at_s=now - begin,
                callers=load.callers,
                need=need(load.callers),
                ready=phases.count("Ready"),
                instances=sum(phase in RUNNING for phase in phases),
                queued=await asyncio.to_thread(engine.queued),
                p50_ms=percentile(took, 0.5) if took else None,
                worst_ms=max(took) if took else None,
            )
        )
        await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - now)))
    return moments


def need(callers: int) -> int:
    """How many instances hold `callers` at the target: the steady state of Knative's formula."""
    return math.ceil(callers / (CONCURRENCY * UTILIZATION))


def summary(moments: Sequence[Moment], seen: Seen) -> dict[str, float]:
    """The figures of a run."""
    most, highest = max(moment.instances for moment in moments), max(moment.need for moment in moments)
    ended_s = max(moment.at_s for moment in moments if moment.callers)
    served = next((moment.at_s for moment in moments if moment.at_s > ended_s and not moment.instances), math.inf)
    took = [took_ms for _, took_ms in seen.answers]
    return {
        "steps.answers": len(took),
        "steps.errors": len(seen.errors),
        "steps.instances_most": most,
        "steps.instances_needed": highest,
        "steps.overshoot": round(most / highest, 2),
        "steps.queued_most": max(moment.queued for moment in moments),
        "steps.p50_ms": round(percentile(took, 0.5), 1),
        "steps.p99_ms": round(percentile(took, 0.99), 1),
        "steps.zero_after_s": round(served - ended_s, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
