"""What the whole autoscaler does of its own accord: idle times learned, schedules kept, use of CPU followed. On virtual time."""

import asyncio
from datetime import UTC, datetime

import pytest

from autoscaler import explain
from registry.schedule import parse
from store import messages
from store.messages import AskWhy, UsageReport, Why
from store.model import (
    Goal,
    decode,
    encode,
)
from tests.unit.autoscaler.world import World, play


def test_whoever_leads_says_why_and_what_it_learned() -> None:
    async def body(world: World) -> None:
        world.start_s = 0.2
        await world.deploy("hello", stable_window_s=10)
        for _ in range(3):
            await world.traffic("hello", 4, 3)
            await asyncio.sleep(40)
        world.wake("hello")
        await asyncio.sleep(0.5)
        asked = encode(AskWhy(revisions=["p/hello", "p/unknown"]))
        told = decode(Why, await world.hub.client().request(messages.WHY, asked, timeout_s=1)).revisions
        assert [each.revision for each in told] == ["p/hello", "p/unknown"]
        assert told[0].ready == 1
        assert told[0].decisions[-1].steps
        assert told[0].profile["idle_seen"] == 3
        assert 38 < told[0].profile["idle_p50_s"] < 50
        assert "start_s" in told[0].profile
        assert told[1].decisions == []

    play(body)


def test_a_revision_that_asks_for_it_is_started_ahead_of_its_beat_and_let_go_soon() -> None:
    async def body(world: World) -> None:
        await world.deploy("beat", policy="learned")
        await world.deploy("usual", routed=False)
        await world.route("usual", "other")
        for _ in range(8):
            for name in ("beat", "usual"):
                world.wake(name)
            await asyncio.gather(world.traffic("beat", 1, 2), world.traffic("usual", 1, 2))
            await asyncio.sleep(1797)
        assert world.goals("beat") == [Goal.RUN], "expected by now"
        assert world.goals("usual") == [Goal.PARK]
        await asyncio.sleep(2000)
        assert world.goals("beat") == [Goal.PARK], "it did not come"

    play(body)


@pytest.mark.parametrize(
    ("boot_ms", "idle", "rests"), [(3000.0, "", Goal.FREEZE), (300.0, "", Goal.PARK), (3000.0, "park", Goal.PARK)]
)
def test_what_follows_its_habits_and_boots_slowly_is_frozen_when_they_let_it_go(boot_ms: float, idle: str, rests: str) -> None:
    async def body(world: World) -> None:
        await world.deploy("slow", policy="learned", idle=idle)
        world.wake("slow")
        await world.traffic("slow", 1, 2)
        world.scaler.mind.profile_of("p/slow").started(boot_ms / 1000, {"probe": boot_ms})
        for _ in range(4):
            await asyncio.sleep(1797)
            world.wake("slow")
            await world.traffic("slow", 1, 2)
        await asyncio.sleep(400)
        assert world.goals("slow") == [rests]
        last = explain.explain(world.scaler.mind, "p/slow").decisions[-1]
        said = [step.why for step in last.steps if step.rule == "freeze"]
        assert [why[:25] for why in said] == (["its own boot takes 3.0 s:"] if rests == Goal.FREEZE else [])

    play(body)


def test_a_schedule_starts_instances_of_what_is_at_rest_and_lets_them_go() -> None:
    async def body(world: World) -> None:
        at = datetime.fromtimestamp(world.clock.wall() + 300, UTC)
        words = f"{at.minute} {at.hour} * * * min=2 for=5m"
        await world.deploy("r", stable_window_s=10, schedules=parse(words))
        begins_s = at.replace(second=0).timestamp() - world.clock.wall()
        await asyncio.sleep(begins_s - 3)
        assert world.goals("r") == [Goal.PARK]
        assert "p/r" not in world.scaler.mind.active, "until then it costs nothing"
        await asyncio.sleep(6)
        assert world.goals("r") == [Goal.RUN] * 2
        assert (await world.scale("r")).reason == "Schedule"
        await asyncio.sleep(290)
        assert world.goals("r") == [Goal.RUN] * 2
        await asyncio.sleep(25)
        assert world.goals("r") == [Goal.PARK]

    play(body)


def test_what_instances_use_scales_a_revision_that_asks_for_it() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", metric="cpu", target=50, max_scale=5)
        await asyncio.sleep(1)

        async def busy(cpu_m: float, for_s: int) -> None:
            for _ in range(for_s // 5):
                used = {a.instance: (cpu_m, 1 << 20) for _, a in world.table.items()}
                world.bus.publish(messages.usage("n1"), encode(UsageReport(node="n1", at=0, used=used)))
                await asyncio.sleep(5)

        await asyncio.gather(world.traffic("r", 1, 60), busy(1000, 60))
        assert world.goals("r") == [Goal.RUN] * 5, "a core each, half a core is the target, and five the most"

    play(body)
