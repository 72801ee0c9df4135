"""What the front door's controls cost a warm request, each on and off: part of `deploy/bench security`.

The real protocol objects without sockets, in this process, by CPU time (`deploy/bench_profile.py`). A control that is off gets the same
bytes as the one that is on, so that the difference is the control alone; all take turns, and the best of several rounds counts, since
what the machine does besides only adds.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from deploy.bench_profile import ANSWER, Bench
from deploy.bench_warm_rivals import HOST
from ingress.listener import Listener
from store import identity, keys
from store.identity import Claims
from store.model import Access, Limits, RouteEntry, TrafficTarget
from store.projects import Project, Quota

GOAL = 0.05
CALLER = "service:default/caller"
KID = "bench"
MANY = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Control:
    """`access` and `quota`: what is on; nothing is when it is off. `fresh_tokens`: no two requests show the same one."""

    name: str
    access: Access | None = None
    quota: Quota | None = None
    fresh_tokens: bool = False


PRIVATE = Access(private=True, invokers=[CALLER])
LIMITED = Access(requests_per_s=MANY)
QUOTA = Quota(requests_per_s=MANY, in_flight=1 << 30, queued=1 << 30)
CONTROLS = (
    Control("identity token, seen before", PRIVATE),
    Control("identity token, new each time", PRIVATE, fresh_tokens=True),
    Control("rate limit of the service", LIMITED),
    Control("rates and caps of the project", quota=QUOTA),
    Control("all of them", Access(private=True, invokers=[CALLER], requests_per_s=MANY), QUOTA),
)


@dataclass(frozen=True)
class Cost:
    """µs of CPU that the front door's own part of one request takes."""

    on_us: float
    off_us: float


def measure(rounds: int, count: int) -> dict[Control, Cost]:
    """All controls, on and off in turn."""
    return asyncio.run(_measure(rounds, count))


async def _measure(rounds: int, count: int) -> dict[Control, Cost]:
    public, pem = identity.new_key(KID, 0.0)
    key, now = identity.private_key(pem), int(time.time())

    def heads(control: Control) -> list[bytes]:
        """Requests with tokens; other times make another token."""
        wanted = rounds * count if control.fresh_tokens else 1
        claims = (
            Claims(sub=CALLER, aud=f"http://{HOST}", iat=now - at % 600, exp=now + 2400 + at // 600) for at in range(wanted)
        )
        return [_head(identity.sign(key, KID, each)) for each in claims]

    best: dict[tuple[Control, bool], float] = {}
    sides = []
    for control in CONTROLS:
        asked = heads(control)
        for on in (True, False):
            bench = Bench()
            bench.gate.identities.key(KID, public)
            guarded(bench, control if on else Control("off"))
            sides.append((control, on, bench, asked))
    gc.collect()
    gc.freeze()
    for turn in range(rounds):
        for control, on, bench, asked in sides:
            took = _timed(bench, [asked[at % len(asked)] for at in range(turn * count, (turn + 1) * count)])
            best[control, on] = min(best.get((control, on), took), took)
    gc.unfreeze()
    return {control: Cost(best[control, True], best[control, False]) for control in CONTROLS}


def guarded(bench: Bench, control: Control) -> None:
    """The route that is asked for, anew, with what `control` says; and its project's record."""
    routes, name = bench.gate.routes, HOST.partition(".")[0]
    if control.quota is not None:
        routes.project("default", Project(name="default", quota=control.quota))
    hosts = {HOST: [TrafficTarget(revision="r1", percent=100)]}
    limits = {"r1": Limits(container_concurrency=100)}
    routes.put(
        keys.route("default", name),
        RouteEntry(project="default", route=name, hosts=hosts, limits=limits, access=control.access),
    )


def _head(token: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def _timed(bench: Bench, heads: Sequence[bytes]) -> float:
    answer, stats = ANSWER % (0, 0), bench.gate.metrics.stats(bench.throttler.revision)
    before = stats.by_class[2]
    begun = time.process_time()
    for head in heads:
        bench.whole(head, answer)
    took = (time.process_time() - begun) / len(heads) * 1e6
    if (answered := stats.by_class[2] - before) != len(heads):
        raise RuntimeError(f"{len(heads) - answered} of {len(heads)} requests were refused")
    return took


def connection_us(rounds: int, count: int) -> float:
    """What counting a connection in and out costs, by which its address and the front door are capped; it has no switch."""

    async def counted() -> float:
        bench = Bench()
        listener, best = Listener(bench.gate), float("inf")
        for _ in range(rounds):
            begun = time.process_time()
            for _ in range(count):
                listener.welcome(bench.client)
                listener.farewell(bench.client)
            best = min(best, time.process_time() - begun)
        return best / count * 1e6

    return asyncio.run(counted())


def show(costs: dict[Control, Cost], connection: float) -> None:
    """A table."""
    table = Table(title=f"what controls cost a warm request, µs of CPU (goal: within {GOAL:.0%} of without)", box=None)
    for column in ("control", "on", "off", "costs", "of our part"):
        table.add_column(column, justify="left" if column == "control" else "right")
    for control, cost in costs.items():
        more = cost.on_us - cost.off_us
        table.add_row(control.name, f"{cost.on_us:.1f}", f"{cost.off_us:.1f}", f"{more:+.1f}", f"{more / cost.off_us:+.0%}")
    table.add_row("counting a connection in and out", "", "", f"{connection:+.1f}", "")
    Console(width=100).print(table)
