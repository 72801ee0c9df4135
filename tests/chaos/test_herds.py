"""A cold service is fallen upon: who may wait is served, who may not is told at once, and what is started is what is needed."""

import asyncio
import itertools
import math
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.backend import Store
from store.bus import Bus
from tests import real
from tests.chaos.cold_world import Cold, Herd, autoscaler
from tests.chaos.workers_world import Score, Workers, clients_of, fetch
from tests.eventually import eventually

BOOT_S = 1.0
SLOW_BOOT_S = 5.0
"""Long enough for a busy machine to have heard the whole herd before anything is Ready."""
LIMIT = 100
UTILISATION = 0.7
"""Of a limit, what the autoscaler means to have in use."""


def say(what: str) -> None:
    sys.stderr.write(f"\n    {what}\n")


@pytest.fixture
async def cold(etcd: real.Server, nats: real.Server, store: Store, bus: Bus) -> AsyncIterator[Cold]:
    made = Cold(store, bus, "cold", LIMIT, boot_s=BOOT_S, most=200)
    try:
        async with autoscaler(etcd, nats):
            await made.exist()
            yield made
    finally:
        await made.close()


async def two_workers(etcd: real.Server, nats: real.Server, where: Path, *flags: str) -> Workers:
    made = Workers(etcd, nats, where / "peers", *flags)
    await asyncio.gather(made.start(), made.start())
    return made


def score(herd: Herd) -> Score:
    made = Score()
    for request, answer in herd.answers.items():
        made.note(request, answer)
    return made


async def test_five_thousand_at_once_on_a_cold_service_are_all_served_by_what_they_need(
    etcd: real.Server, nats: real.Server, cold: Cold, tmp_path: Path
) -> None:
    workers = await two_workers(etcd, nats, tmp_path)
    try:
        herd = await asyncio.to_thread(Herd, workers.port, cold.host, 5000)
        await asyncio.to_thread(herd.run, 20)
    finally:
        await workers.close()
    most, ran = await cold.record()
    need = math.ceil(5000 / (LIMIT * UTILISATION))
    longest = max(herd.took_s.values())
    say(f"5000 sent in {herd.sent_s * 1000:.0f} ms; {dict(herd.counts)}; the last after {longest:.2f} s; "
        f"{len(cold.started)} instances, needed {need}; most inside one: {most}")  # fmt: skip
    assert herd.counts == {"200": 5000}
    score(herd).agree(ran)
    assert most <= LIMIT
    assert len(cold.started) <= 1.25 * need
    assert longest < BOOT_S + 10  # On a quiet machine half of it.


async def test_above_the_bound_of_the_line_everybody_is_told_at_once_and_the_others_are_served(
    etcd: real.Server, nats: real.Server, cold: Cold, tmp_path: Path
) -> None:
    cold.boot_s = SLOW_BOOT_S
    workers = await two_workers(etcd, nats, tmp_path, "--queue-bound", "500")
    try:
        herd = await asyncio.to_thread(Herd, workers.port, cold.host, 2000)
        await asyncio.to_thread(herd.run, 20)
    finally:
        await workers.close()
    most, ran = await cold.record()
    refused = {request: answer for request, answer in herd.answers.items() if answer[9:12] == b"503"}
    latest = max(herd.took_s[request] for request in refused)
    reasons = Counter(answer.partition(b"x-ebb-reason: ")[2].partition(b"\r\n")[0].decode() for answer in refused.values())
    say(f"{dict(herd.counts)}; refused after at most {latest:.2f} s: {dict(reasons)}")
    assert herd.counts == {"200": 1000, "503": 1000}
    assert all(b"Retry-After: " in answer and b"x-ebb-reason: queue-full" in answer for answer in refused.values())
    assert all(herd.sent_at + herd.took_s[request] < cold.ready_at for request in refused), "long before anything was Ready"
    score(herd).agree(ran)
    assert most <= LIMIT


async def test_a_worker_killed_with_a_thousand_in_line_costs_those_in_it_alone_and_the_start_it_ordered_is_used(
    etcd: real.Server, nats: real.Server, cold: Cold, tmp_path: Path
) -> None:
    cold.boot_s = SLOW_BOOT_S
    workers = await two_workers(etcd, nats, tmp_path)
    try:
        herd = await asyncio.to_thread(Herd, workers.port, cold.host, 1000)
        running = asyncio.create_task(asyncio.to_thread(herd.run, 20))
        await eventually(lambda: cold.started, "a start is ordered", timeout_s=10)
        await asyncio.sleep(cold.boot_s / 4)  # Whoever is slow has come by then, and nothing is Ready yet.
        assert cold.ready_at == float("inf")
        victim = await cold.owner(workers)
        victim.send_signal(signal.SIGSTOP)  # From now on it accepts nobody.
        inside = clients_of(victim.pid, workers.port)
        workers.kill(victim)
        killed_at = time.monotonic()
        fresh, tries = b"", itertools.count()
        while not fresh and not cold.faults:  # The dead worker's socket takes connections for a moment longer, and resets them.
            fresh = await fetch(workers.port, cold.host, f"/work?id=fresh-{next(tries)}&ms=1")
        fresh_s = time.monotonic() - max(killed_at, cold.ready_at)
        await running
        ordered = len(cold.started)
        await workers.start()
        after = [await fetch(workers.port, cold.host, f"/work?id=after-{n}&ms=1") for n in range(50)]
    finally:
        await workers.close()
    most, ran = await cold.record()
    outcomes = score(herd)
    need = math.ceil(1000 / (LIMIT * UTILISATION))
    say(f"{dict(herd.counts)}; a new request {fresh_s:.2f} s after the first was Ready; {ordered} instances, needed {need}")
    # Each has one outcome: served, or its connection to the dead worker ended, once. None waits for ever and none runs twice.
    assert len(herd.answers) == 1000
    assert set(herd.counts) <= {"200", "lost"}
    assert 300 < herd.counts["lost"] < 700, "the kernel gave the two workers about half each"
    good = {request: answer[9:12] == b"200" for request, answer in herd.answers.items() if herd.ports[request] not in inside}
    share = statistics.mean(good.values())
    say(f"of {len(good)} that the dead worker had not accepted {share:.2%} are good")
    assert share >= 0.995
    assert herd.counts["lost"] >= 1000 - len(good), "what it had accepted died with it"
    outcomes.agree(ran)
    assert most <= LIMIT
    assert fresh[9:12] == b"200"
    assert fresh_s < 3, "it waited for no lease"
    assert all(answer[9:12] == b"200" for answer in after)
    assert ordered <= 1.25 * need
    assert len(cold.started) == ordered == await cold.assigned(), "nothing was started twice, and nothing is left over"
