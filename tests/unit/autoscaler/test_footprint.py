"""What a call takes is told from what instances use, shown, and counted where nodes are ordered by load."""

import asyncio
import random

import pytest

from autoscaler import explain
from autoscaler.footprint import Footprint, Line
from autoscaler.need import Need
from autoscaler.placement import Placement
from store import messages
from store.messages import UsageReport
from store.model import Node, encode
from tests.unit.autoscaler.world import World, play

MI = 1 << 20


def noted(line: Line, none: float, each: float, count: int, most: int = 8, noise: float = 0.0) -> Line:
    chance = random.Random(1)
    for _ in range(count):
        calls = chance.uniform(0, most)
        line.note(calls, none + each * calls + chance.uniform(-noise, noise))
    return line


def test_what_a_call_takes_is_told_apart_from_what_an_instance_takes_without_any() -> None:
    assert noted(Line(), 50.0, 20.0, 60, noise=20.0).each() == pytest.approx(20, rel=0.2)


def test_it_is_not_known_from_few_reports_or_where_there_are_always_as_many_calls() -> None:
    assert noted(Line(), 50.0, 20.0, 8).each() == 0
    always = Line()
    for number in range(100):
        always.note(3.0, 50 + number % 7)
    assert always.each() == 0


def test_calls_never_take_less_than_nothing() -> None:
    assert noted(Line(), 50.0, -4.0, 60).each() == 0


def test_a_changed_app_is_learned() -> None:
    assert noted(noted(Line(), 50.0, 20.0, 300), 50.0, 80.0, 500).each() == pytest.approx(80, rel=0.05)


def test_cpu_counts_as_it_is_used_and_no_less_than_a_quarter_of_what_is_asked_for() -> None:
    asks = Need("p/r", "", 1000, 64 * MI)
    assert asks.expecting(0, 430).expects_m == 450
    assert asks.expecting(0, 20).expects_m == 250
    assert asks.expecting(0, 430).cpu_m == 1000, "a quota goes by what is asked for"
    assert asks.expecting(900 * MI, 430).memory_bytes == 64 * MI, "memory that is asked for stands"
    assert asks.expecting(0, 430).parked().expects_m == asks.expecting(0, 430).frozen().expects_m == 0


def test_a_node_whose_instances_use_little_of_what_they_ask_for_is_the_less_loaded() -> None:
    nodes = Placement()
    for name in ("a", "b"):
        nodes.set_node(Node(node=name, cpu_m=4000, memory_bytes=1024 * MI))
    idle, busy = Need("p/idle", "", 2000).expecting(0, 10), Need("p/busy", "", 1000).expecting(0, 1500)
    nodes.take("a", busy)
    nodes.take("b", idle)
    assert nodes.choose(Need("p/r")) == "b"
    nodes.give("a", busy)
    nodes.give("b", idle)
    assert nodes.account() == {"a": (0, 0, 0), "b": (0, 0, 0)}


def test_ebb_why_is_told_what_a_call_takes_from_what_nodes_say() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", metric="cpu", target=100, max_scale=1)
        await asyncio.sleep(1)

        async def told(calls: int) -> None:
            for _ in range(18):
                used = {a.instance: (30.0 + 40 * calls, (100 + 2 * calls) * MI) for _, a in world.table.items()}
                world.bus.publish(messages.usage("n1"), encode(UsageReport(node="n1", at=0, used=used)))
                await asyncio.sleep(5)

        for calls in (1, 5):
            await asyncio.gather(world.traffic("r", calls, 90), told(calls))
        profile = explain.explain(world.scaler.mind, "p/r").profile
        assert profile["call_cpu_m"] == pytest.approx(40, rel=0.1)
        assert profile["call_memory_bytes"] == pytest.approx(2 * MI, rel=0.1)

    play(body)


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert Footprint().cpu_m.each() == 0
