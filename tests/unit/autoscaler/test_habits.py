"""What was learned outlives the autoscaler, in few bytes and few writes."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler import habits, keepalive
from autoscaler.budget import PRICE_MB_S
from autoscaler.profile import Profile
from store import keys
from store.model import Goal, decode, encode
from store.scaling import Habits
from tests.unit.autoscaler.world import World, play


@given(st.lists(st.floats(3, 90_000), max_size=200), st.floats(0, 30), st.integers(1, 80))
def test_what_is_read_again_decides_as_what_was_written(idle_s: list[float], start_s: float, waiting: int) -> None:
    made = Profile()
    for each in idle_s:
        made.was_idle(each)
    made.started(start_s, {"create": 30.0})
    made.met(waiting)
    made.busy_at = 500.0
    written = encode(habits.of(made, now=600.0, wall=1e9))
    assert len(written) < 2048
    again = habits.profile(decode(Habits, written), now=50.0, wall=1e9 + 40)
    assert again.busy_at == pytest.approx(50.0 - 140.0)
    assert again.count == made.count
    assert again.steady_beat == made.steady_beat
    before, after = (keepalive.plan(p, 128 << 20, PRICE_MB_S) for p in (made, again))
    assert after.keep_s == before.keep_s
    assert after.from_s == pytest.approx(before.from_s, abs=0.2)


def test_bins_of_a_later_version_count_as_the_longest() -> None:
    again = habits.profile(Habits(idle=[(3, 2.0), (10_000, 1.0)]), 0.0, 0.0)
    assert again.seen == 3
    assert again.idle[-1] == 1


def test_a_new_leader_starts_ahead_of_a_beat_that_another_learned_and_few_writes_tell_it() -> None:
    async def body(world: World) -> None:
        await world.deploy("beat", policy="learned")
        await world.deploy("usual", routed=False)
        await world.route("usual", "other")
        for _ in range(6):
            world.wake("beat")
            world.wake("usual")
            await asyncio.gather(world.traffic("beat", 1, 2), world.traffic("usual", 1, 2))
            await asyncio.sleep(597)
        stored = (await world.store.list(keys.HABITS)).entries
        assert [entry.key for entry in stored] == [keys.habits("p/beat")], "none of who does not ask for it"
        world.wake("beat")
        await world.traffic("beat", 1, 2)
        await asyncio.sleep(400)
        world.resign()
        await world.take_over()
        await asyncio.sleep(100)
        assert world.goals("beat") == [Goal.PARK]
        await asyncio.sleep(99)
        assert world.goals("beat") == [Goal.RUN], "a new leader knows when the next call is due"

    play(body)
