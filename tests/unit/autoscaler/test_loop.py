"""The whole autoscaler on the store's and the bus's twins, on virtual time, with an agent that obeys at once."""

import asyncio

from autoscaler.measures import ERRORS
from store import keys
from store.lifecycle import Phase
from store.model import (
    Failure,
    Goal,
    Scale,
    encode,
)
from tests.unit.autoscaler.world import World, play


def test_an_idle_app_is_at_zero_a_stable_window_after_its_last_request() -> None:
    async def body(world: World) -> None:
        await world.deploy("r")
        await asyncio.sleep(1)
        assert (await world.scale("r")).verified
        await world.traffic("r", 1, 20)
        await asyncio.sleep(55)
        assert world.goals("r") == [Goal.RUN]
        await asyncio.sleep(8)
        assert world.goals("r") == [Goal.PARK]
        assert (await world.scale("r")).reason == "NoTraffic"

    play(body)


def test_an_operators_grace_and_window_are_taken() -> None:
    async def body(world: World) -> None:
        await world.deploy("r")
        await asyncio.sleep(35)
        assert world.goals("r") == [Goal.RUN]
        await asyncio.sleep(10)
        assert world.goals("r") == []

    play(body, stable_window_s=10, scale_to_zero_grace_s=30, park=False)


def test_an_assignment_says_whose_service_it_is_also_when_its_goal_has_changed() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0)
        await asyncio.sleep(10)
        world.wake("r")
        await asyncio.sleep(1)
        assert [(a.goal, a.service) for a in world.assigned("r")] == [(Goal.RUN, "s")]

    play(body)


def test_a_wake_needs_no_tick_and_one_transaction() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0)
        await asyncio.sleep(10)
        assert world.goals("r") == [Goal.PARK]
        before = (await world.store.list(keys.ROOT)).store_rev
        world.start_s = 100
        world.wake("r")
        await asyncio.sleep(0.001)
        assert world.goals("r") == [Goal.RUN]
        written = [
            e for e in (await world.store.list(keys.ROOT)).entries if e.store_rev > before and "/instances/" not in e.key
        ]
        assert len({e.store_rev for e in written}) == 1, "the assignment and the scale in one"
        assert len(written) == 2

    play(body)


def test_wakes_in_a_row_start_no_more_than_what_waits() -> None:
    async def body(world: World) -> None:
        world.start_s = 1.5
        await world.deploy("r", cc=1, initial_scale=0)
        await asyncio.sleep(2.5)
        for _ in range(5):
            world.wake("r", 3)
            await asyncio.sleep(0.25)
        assert world.goals("r") == [Goal.RUN] * 3

    play(body, tick_s=100)


def test_a_new_autoscaler_takes_nothing_down_for_one_stable_window() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", cc=1)
        await world.traffic("r", 7, 30)
        running = len(world.goals("r"))
        assert running == 10
        world.resign()
        await world.take_over()
        await world.traffic("r", 1, 55)
        assert len(world.goals("r")) == running
        await world.traffic("r", 1, 80)
        assert len(world.goals("r")) == 2

    play(body)


def test_while_nats_is_away_nothing_goes_down() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", cc=1)
        await world.traffic("r", 7, 30)
        world.hub.up = False
        await asyncio.sleep(300)
        assert len(world.goals("r")) == 10
        world.hub.up = True
        await asyncio.sleep(50)
        assert len(world.goals("r")) == 10, "it has not listened for a window yet"
        await asyncio.sleep(80)
        assert world.goals("r") == [Goal.PARK]

    play(body)


def test_a_new_autoscaler_starts_nothing_for_revisions_that_no_route_names() -> None:
    async def body(world: World) -> None:
        await world.deploy("old", min_scale=2)
        await asyncio.sleep(5)
        await world.deploy("new", min_scale=1)
        await asyncio.sleep(5)
        assert world.goals("old") == []
        world.resign()
        await world.take_over()
        await asyncio.sleep(100)
        assert world.goals("old") == []
        assert world.goals("new") == [Goal.RUN]

    play(body)


def test_a_deployed_revision_without_a_share_goes_down_after_a_while_and_not_at_once() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", min_scale=1, routed=False)
        await asyncio.sleep(50)
        assert world.goals("r") == [Goal.RUN]
        await asyncio.sleep(20)
        assert world.goals("r") == []

    play(body)


def test_a_restarting_agent_of_the_only_node_finds_its_assignments() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", min_scale=2)
        await asyncio.sleep(5)
        before = {a.instance for _, a in world.table.items()}
        await world.store.delete(keys.node("n1"))
        for name in before:
            await world.store.delete(keys.instance("n1", name))
        await asyncio.sleep(60)
        assert {a.instance for _, a in world.table.items()} == before
        await world.node()
        await asyncio.sleep(0.1)
        assert {a.instance for _, a in world.table.items()} == before

    play(body)


def test_a_refused_transaction_is_decided_anew() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0, max_scale=1)
        await asyncio.sleep(3)
        other = await world.scale("r")
        await world.store.put(keys.scale("p", "r"), encode(other))
        world.store.lose_events()  # Somebody wrote, and the watch does not tell.
        world.wake("r")
        await asyncio.sleep(0.5)
        assert world.goals("r") == [Goal.RUN]

    play(body)


def test_after_the_store_was_away_what_was_asked_is_done_once() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0)
        await asyncio.sleep(3)
        world.store.fail_next(5)
        world.wake("r")
        await asyncio.sleep(2)
        assert world.goals("r") == [Goal.RUN]

    play(body, park=False, tick_s=100)


def test_a_crash_loop_that_listens_first_backs_off_too() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", min_scale=1)
        starts = 0
        for _ in range(600):
            await asyncio.sleep(0.1)
            for _, a in list(world.table.items()):
                slot = world.scaler.mind.fleet.get(a.instance)
                if slot is not None and slot.ready:
                    starts += 1
                    world.say(a, Phase.FAILED, Failure(reason="ExitCode1", message="exited"))
        assert 5 <= starts <= 8, "after 0, 1, 3, 7, 15, 31 and 63 s"

    play(body)


def test_a_good_start_clears_the_failure_and_in_time_the_row() -> None:
    async def body(world: World) -> None:
        world.failing.add("r")
        await world.deploy("r", min_scale=1)
        await asyncio.sleep(5)
        failure = (await world.scale("r")).failure
        assert failure is not None
        assert failure.count >= 2
        world.failing.clear()
        await asyncio.sleep(10)
        assert (await world.scale("r")).failure is None
        await asyncio.sleep(15)
        assert world.scaler.mind.active["p/r"].row.count == 0

    play(body)


def test_a_parked_instance_that_could_not_be_made_is_tried_again_without_a_call() -> None:
    async def body(world: World) -> None:
        await world.deploy("r")
        await world.traffic("r", 1, 5)
        await asyncio.sleep(100)
        [parked] = world.assigned("r")
        world.say(parked, Phase.FAILED, Failure(reason="StartFailed", message="no room for its network"))
        await asyncio.sleep(0.5)
        assert (await world.scale("r")).failure is not None
        await asyncio.sleep(5)
        assert world.goals("r") == [Goal.PARK]
        assert [again.instance for again in world.assigned("r")] != [parked.instance]
        assert (await world.scale("r")).failure is None

    play(body)


def test_a_revision_that_never_starts_is_given_up_at_its_deadline() -> None:
    async def body(world: World) -> None:
        world.failing.add("r")
        await world.deploy("r", routed=False)
        await asyncio.sleep(700)
        scale = await world.scale("r")
        assert (scale.desired, scale.reason) == (0, "TimedOut")
        assert scale.failure is not None
        await asyncio.sleep(400)
        assert "p/r" not in world.scaler.mind.active, "and it costs nothing any more"

    play(body)


def test_a_wake_of_an_unknown_revision_is_refused_when_it_stays_unknown() -> None:
    async def body(world: World) -> None:
        for _ in range(10):
            world.wake("gone")
            await asyncio.sleep(0.25)
        assert [r.reason for r in world.refusals][:1] == ["RevisionMissing"]

    play(body)


def test_a_fault_with_one_revision_stops_no_other() -> None:
    async def body(world: World) -> None:
        await world.deploy("bad", max_scale_down_rate=0, initial_scale=0)  # No API lets that through.
        await asyncio.sleep(1)
        before = ERRORS._value.get()
        await world.traffic("bad", 1, 5)
        assert ERRORS._value.get() > before
        await world.deploy("good")
        await asyncio.sleep(1)
        assert (await world.scale("good")).verified

    play(body)


def test_a_thousand_idle_revisions_leave_nothing_active() -> None:
    async def body(world: World) -> None:
        for number in range(1000):
            await world.deploy(f"r-{number}", initial_scale=0, routed=False)
        await asyncio.sleep(130)
        assert not world.scaler.mind.active
        assert len(world.scaler.mind.signals) == 0

    play(body)


def test_the_number_follows_a_load_that_steps_up_and_down() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", cc=1, target_utilization=1.0, stable_window_s=10)
        seen = []
        for load in (1, 10, 50, 10, 1):
            await world.traffic("r", load, 40)
            seen.append(world.goals("r").count(Goal.RUN))
        assert all(load <= count <= 1.2 * load + 1 for load, count in zip((1, 10, 50, 10), seen, strict=False)), seen
        await asyncio.sleep(30)
        assert world.goals("r") == [Goal.PARK]

    play(body)


def test_a_new_leader_remembers_nothing_of_the_many_it_found_at_zero() -> None:
    async def body(world: World) -> None:
        for number in range(350):
            await world.deploy(f"r{number}", routed=False)
            at_zero = Scale(project="p", revision=f"r{number}", desired=0, verified=True, reason="NoTraffic")
            await world.store.put(keys.scale("p", f"r{number}"), encode(at_zero))
            await world.route(f"r{number}", f"route-{number}")
        world.resign()
        await asyncio.sleep(0.1)
        await world.take_over()
        await asyncio.sleep(0.1)
        assert not world.scaler.mind.active
        world.wake("r7")
        await asyncio.sleep(0.1)
        assert world.goals("r7") == [Goal.RUN]
        assert len(world.scaler.mind.active) == 1

    play(body, park=False)


def test_a_steady_revision_is_not_decided_anew_until_something_changes() -> None:
    async def body(world: World) -> None:
        await world.deploy("hello", cc=10)
        await asyncio.sleep(1)
        loaded = asyncio.create_task(world.traffic("hello", 4, 20))
        await asyncio.sleep(12)
        active = world.scaler.mind.active["p/hello"]
        assert active.steady is not None
        instance = next(a for _, a in world.table.items())
        world.say(instance, Phase.FAILED, Failure(reason="ExitCode1", message="exited"))
        await asyncio.sleep(0.1)
        assert active.steady is None
        await asyncio.sleep(3)
        assert world.goals("hello") == [Goal.RUN]
        assert next(a for _, a in world.table.items()).instance != instance.instance
        await loaded

    play(body)
