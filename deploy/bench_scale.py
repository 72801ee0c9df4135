"""`deploy/bench scale`: what an autoscaler of many services costs: a tick, a takeover, a placement, an idle revision.

The real autoscaler runs in this process, on the store's and the bus's twins and a clock that is moved by hand: 100,000 revisions
are registered and 1,000 of them have load, each from two ingresses. A tick is timed with the samples before it already heard;
the figure is the median of many. Nothing is parked here: what is measured is the mind, not the machine.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autoscaler.loop import Scaler
from autoscaler.mind import Limits
from autoscaler.need import Need
from autoscaler.placement import Placement
from process.run import Jobs
from store import keys, messages
from store.backend import Entry, Listing
from store.lifecycle import Phase
from store.memory import MemoryStore
from store.memory_bus import MemoryHub
from store.messages import Sample, SampleReport
from store.model import (
    Assignment,
    Goal,
    Instance,
    Model,
    Node,
    Probe,
    Revision,
    RouteEntry,
    Scale,
    TrafficTarget,
    encode,
)
from store.model import Limits as RouteLimits
from store.story import Story

NODES = 1_000
WARM_UP = 3
REV = 7
"""The store_rev of everything that is listed."""


class Clock:
    """Time that stands still until it is moved."""

    at = 1_000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1e9 + self.at


class Registered(MemoryStore):
    """A store that makes up what is registered when it is listed, and so holds none of it itself."""

    def __init__(self, registered: int, active: int) -> None:
        super().__init__()
        self.registered, self.active = registered, active

    async def list(self, prefix: str, *, at: int = 0, since: int = 0) -> Listing:
        """All that there is under `prefix`; nothing ever changes."""
        made = [] if since else [Entry(key, encode(value), REV, REV) for key, value in self._made(prefix)]
        return Listing(tuple(made), REV, len(made))

    def _made(self, prefix: str) -> Iterator[tuple[str, Model]]:
        if prefix == keys.REVISIONS:
            yield from ((keys.revision("default", name), revision(name)) for name in self._names(self.registered))
        elif prefix == keys.ROUTES:
            yield from ((keys.route("default", name), route(name)) for name in self._names(self.registered))
        elif prefix == keys.SCALE:
            for number, name in enumerate(self._names(self.registered)):
                busy = number < self.active
                why = "Traffic" if busy else "NoTraffic"
                scale = Scale(project="default", revision=name, desired=int(busy), verified=True, reason=why, at=1e9)
                yield keys.scale("default", name), scale
        elif prefix == keys.NODES:
            yield from ((keys.node(name), node(name)) for name in node_names())
        elif prefix == keys.ASSIGNMENTS:
            for number, name in enumerate(self._names(self.active)):
                on = f"node-{number % NODES:04}"
                made = Assignment(instance=f"{name}-abc", project="default", revision=name, node=on, goal=Goal.RUN, at=1e9)
                yield keys.assignment(on, made.instance), made
        elif prefix == keys.INSTANCES:
            for number, name in enumerate(self._names(self.active)):
                on = f"node-{number % NODES:04}"
                is_ready = Instance(instance=f"{name}-abc", project="default", revision=name, node=on, phase=Phase.READY, seq=5)
                yield keys.instance(on, is_ready.instance), is_ready

    def _names(self, count: int) -> Iterator[str]:
        return (f"service-{number:06}-00001" for number in range(count))


def revision(name: str) -> Revision:
    """A revision with what a usual one has."""
    service = name.removesuffix("-00001")
    return Revision(
        project="default",
        name=name,
        service=service,
        configuration=service,
        created_at=1e9,
        image=f"docker.io/library/{service}@sha256:{hash(name) & (1 << 63) - 1:064x}",
        image_name=f"{service}:v1",
        env=[("TARGET", "world"), ("LEVEL", "info")],
        memory_request_bytes=128 << 20,
        readiness_probe=Probe(kind="http", path="/healthz"),
        labels={"serving.knative.dev/service": service, "team": "one"},
    )


def route(name: str) -> RouteEntry:
    """The route of a service with that one revision."""
    service = name.removesuffix("-00001")
    return RouteEntry(
        project="default",
        route=service,
        hosts={f"{service}.default.localhost": [TrafficTarget(revision=name, percent=100)]},
        limits={name: RouteLimits(service=service, configuration=service)},
    )


def node_names() -> Iterator[str]:
    """The names of all nodes."""
    return (f"node-{number:04}" for number in range(NODES))


def node(name: str) -> Node:
    """A machine of 64 GB."""
    return Node(node=name, cpu_m=16_000, memory_bytes=64 << 30)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, write JSON. Exit code 0 when everything was measured."""
    options = _options(argv)
    figures = asyncio.run(ticks(options.registered, options.active, 7 if options.quick else 30))
    figures |= placements(20_000 if options.quick else 200_000)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    for name in sorted(figures):
        sys.stdout.write(f"{name:40} {figures[name]:>12}\n")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deploy/bench scale", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parser.add_argument("--registered", type=int, default=100_000, help="revisions there are (100000)")
    parser.add_argument("--active", type=int, default=1_000, help="revisions with load (1000)")
    return parser.parse_args(argv)


async def ticks(registered: int, active: int, rounds: int) -> dict[str, float]:
    """A tick of `active` of `registered` revisions, how long a takeover keeps the loop, and what an idle revision weighs."""
    store, hub, clock = Registered(registered, active), MemoryHub(), Clock()
    bus, ingress, jobs = hub.client(), hub.client(), Jobs("bench")
    gc.collect()
    before = resident()
    scaler = Scaler(store, bus, clock, Story(bus, "autoscaler", clock), Limits(park=False, tick_s=1e9), jobs)
    await scaler.start()
    gc.collect()
    gc.freeze()
    begin = time.perf_counter()
    leading = jobs.start(scaler.lead(), "lead")
    longest = await _settled(scaler)
    takeover_s = time.perf_counter() - begin
    gc.collect()
    weight = (resident() - before) / registered
    _say(f"{registered} revisions: taken over in {takeover_s:.1f} s, {longest * 1000:.0f} ms at a stretch")
    tick_s: list[float] = []
    hear_s: list[float] = []
    for _ in range(rounds + WARM_UP):
        for _ in range(2):
            clock.at += 1
            begin = time.perf_counter()
            await _report(ingress, active, clock)
            hear_s.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        scaler.tick()
        tick_s.append(time.perf_counter() - begin)
        await asyncio.sleep(0)
    assert len(scaler.mind.active) == active, f"{len(scaler.mind.active)} are active, {active} should be"
    leading.cancel()
    await jobs.cancel()
    tick_s, hear_s = sorted(tick_s[WARM_UP:]), sorted(hear_s[WARM_UP:])
    return {
        "scale.tick_ms_100k": round(statistics.median(tick_s) * 1000, 2),
        "scale.tick_max_ms_100k": round(tick_s[-1] * 1000, 2),
        "scale.hear_ms_1k": round(statistics.median(hear_s) * 1000, 2),
        "scale.takeover_s_100k": round(takeover_s, 2),
        "scale.takeover_stall_ms": round(longest * 1000, 1),
        "scale.idle_bytes": round(weight),
    }


async def _settled(scaler: Scaler) -> float:
    """Until everything was looked at; the longest time that the event loop was kept."""
    longest, quiet = 0.0, 0
    while quiet < 20:
        begin = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - begin)
        quiet = 0 if scaler.busy else quiet + 1
    return longest


async def _report(ingress: Any, active: int, clock: Clock) -> None:
    for sender in ("ingress-1", "ingress-2"):
        samples = []
        for number in range(active):
            name = f"service-{number:06}-00001"
            load = 5 + number % 20
            busy = {f"{name}-abc": load}
            samples.append(
                Sample(revision=f"default/{name}", concurrency=load, requests=load, in_flight=load, by_instance=busy)
            )
        report = SampleReport(sender=sender, at=clock.wall(), interval_s=1, samples=samples)
        ingress.publish(messages.SAMPLES, encode(report))
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def placements(count: int) -> dict[str, float]:
    """Instances placed a second on 1,000 nodes: 5,000 revisions, each image on a few nodes; the oldest tenth goes as new ones come."""
    chance, placement = random.Random(1), Placement()
    images = [f"sha256:{number:064x}" for number in range(500)]
    for name in node_names():
        has = [f"i@{image}" for image in chance.sample(images, 20)]
        placement.set_node(Node(node=name, cpu_m=16_000, memory_bytes=64 << 30, images=has))
    needs = [
        Need(
            f"default/r-{number}",
            images[number % len(images)],
            chance.choice((0, 100, 500)),
            chance.choice((64, 128, 512)) << 20,
        )
        for number in range(5_000)
    ]
    wanted = [chance.choice(needs) for _ in range(count)]
    standing: list[tuple[str, Need]] = []
    oldest = 0
    begin = time.perf_counter()
    for need in wanted:
        on = placement.choose(need)
        if on is not None:
            placement.take(on, need)
            standing.append((on, need))
        if len(standing) - oldest > 20_000:
            for where, gone in standing[oldest : oldest + 2_000]:
                placement.give(where, gone)
            oldest += 2_000
    took_s = time.perf_counter() - begin
    assert len(standing) == count, f"{count - len(standing)} were not placed"
    return {"scale.placements_per_s": round(count / took_s)}


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _say(text: str) -> None:
    sys.stderr.write(f"bench scale: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
