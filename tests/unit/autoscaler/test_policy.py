"""The published examples of Knative's autoscaler hold, and where Ebb differs it differs as it says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.idle import Reach
from autoscaler.policy import Decision, Memory, Mode, Standing, decide, takeover, target_of
from autoscaler.signals import Signal
from store.model import Revision, ScaleSpec


def revision(cc: int = 0, **scale: object) -> Revision:
    return Revision(project="p", name="r", image="i@sha256:1", container_concurrency=cc, scale=ScaleSpec(**scale))  # type: ignore[arg-type]


def once(
    rev: Revision,
    stable: float,
    panic: float | None = None,
    *,
    ready: int = 0,
    starting: int = 0,
    memory: Memory | None = None,
    now: float = 1000,
    in_flight: int = 0,
    queued: int = 0,
    **mode: object,
) -> Decision:
    signal = Signal(stable, stable if panic is None else panic, in_flight, queued)
    idle = {} if not stable else {"idle_s": 0.0}
    return decide(rev, signal, Standing(ready, starting), Mode(**(idle | mode)), memory or Memory(), now)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rev", "target"),
    [
        (revision(), 70),
        (revision(cc=10), 7),
        (revision(cc=10, target=5), 3.5),
        (revision(cc=10, target=50), 7),
        (revision(target=50), 35),
        (revision(target=50, target_utilization=1.0), 50),
        (revision(metric="rps"), 140),
        (revision(metric="rps", target=10, cc=1), 7),
        (revision(target=0.001), 0.01),
    ],
)
def test_the_target_is_knatives(rev: Revision, target: float) -> None:
    assert target_of(rev.scale, rev.container_concurrency).target == pytest.approx(target)


def test_from_zero_one_request_asks_for_one_and_does_not_panic() -> None:
    decision = once(revision(), 1)
    assert decision.desired == 1
    assert decision.memory.panic_at is None


def test_from_zero_a_hundred_queued_with_one_each_ask_for_143_in_one_tick() -> None:
    decision = once(revision(cc=1), 100)
    assert decision.desired == 143
    assert decision.memory.panic_at == 1000


def test_one_instance_panics_on_anything_above_its_target() -> None:
    assert once(revision(), 1, 71, ready=1).memory.panic_at is not None
    assert once(revision(), 1, 70, ready=1).memory.panic_at is None


def test_ten_instances_panic_on_twice_their_target() -> None:
    assert once(revision(), 700, 1331, ready=10).memory.panic_at is not None
    assert once(revision(), 700, 1330, ready=10).memory.panic_at is None


def test_scale_up_is_bounded_by_its_rate_and_always_possible() -> None:
    assert once(revision(cc=1, max_scale_up_rate=10), 100, ready=2).desired == 20
    assert once(revision(target=1, target_utilization=1.0, max_scale_up_rate=1.1), 3, ready=2).desired == 3


def test_scale_down_halves_at_most_in_a_tick() -> None:
    assert once(revision(), 1, ready=10).desired == 5
    assert once(revision(max_scale_down_rate=10), 1, ready=10).desired == 1


def test_in_panic_it_never_goes_down_and_leaves_after_a_stable_window() -> None:
    rev = revision(cc=10)
    first = once(rev, 10, 100, ready=2)
    assert first.desired == 15
    later = once(rev, 20, 20, ready=15, memory=first.memory, now=1059)
    assert later.desired == 15
    calm = once(rev, 20, 20, ready=15, memory=later.memory, now=1061)
    assert calm.memory.panic_at is None
    assert calm.desired == 7, "half of 15 at most"


def test_panic_is_extended_while_it_is_over() -> None:
    rev = revision(cc=10)
    first = once(rev, 10, 100, ready=2)
    again = once(rev, 50, 400, ready=15, memory=first.memory, now=1050)
    assert again.memory.panic_at == 1050
    assert again.desired == 58


def test_in_panic_the_larger_of_stable_and_panic_counts() -> None:
    assert once(revision(cc=10), 100, 70, ready=1).desired == 15


def test_a_new_scaler_of_a_running_revision_starts_in_panic_and_holds() -> None:
    memory = takeover(5, 1000)
    assert once(revision(), 1, ready=5, memory=memory, now=1002).desired == 5
    assert takeover(1, 1000) == Memory()


def test_activation_scale_counts_when_there_is_any_need() -> None:
    rev = revision(activation_scale=5)
    assert once(rev, 1).desired == 5
    assert once(rev, 700, ready=5).desired == 10
    assert once(rev, 0).desired == 0


def test_scale_down_is_delayed_and_takes_the_most_of_the_delay() -> None:
    rev = revision(scale_down_delay_s=30)
    memory = Memory()
    for now, load in ((1000, 700), (1002, 350), (1004, 400)):
        decision = once(rev, load, 0, ready=10, memory=memory, now=now)
        memory = decision.memory
        assert decision.desired == 10
    assert once(rev, 350, 0, ready=10, memory=memory, now=1031).desired == 6
    assert once(rev, 350, 0, ready=10, memory=memory, now=1035).desired == 5


def test_bounds_are_kept_and_the_upper_one_wins() -> None:
    assert once(revision(cc=1, max_scale=10), 100).desired == 10
    assert once(revision(min_scale=3), 0).desired == 3
    assert once(revision(min_scale=3), 0).reason == "MinScale"
    assert once(revision(initial_scale=5, max_scale=2), 0, verified=False).desired == 2


def test_until_verified_there_are_initial_scale_instances() -> None:
    decision = once(revision(initial_scale=3), 0, verified=False, reach=Reach.PENDING)
    assert (decision.desired, decision.reason) == (3, "InitialScale")
    assert once(revision(initial_scale=3), 0, verified=False, reach=Reach.UNROUTED).desired == 0
    assert once(revision(initial_scale=0), 0, verified=False, reach=Reach.PENDING).desired == 0


def test_a_revision_that_missed_its_deadline_is_given_up_until_somebody_calls() -> None:
    gone = once(revision(), 0, verified=False, gave_up=True)
    assert (gone.desired, gone.reason) == (0, "TimedOut")
    assert once(revision(), 0, verified=False, gave_up=True, waking=1).desired == 1


def test_a_wake_asks_for_one_at_once_between_ticks() -> None:
    decision = decide(revision(), Signal(), Standing(), Mode(waking=1, tick=False), Memory(), 1000)
    assert (decision.desired, decision.reason) == (1, "Waking")


def test_a_wake_asks_for_what_waits_and_the_tick_adds_the_headroom() -> None:
    rev, waiting = revision(cc=1), Signal(100.0, 100.0, queued=100)
    at_once = decide(rev, waiting, Standing(), Mode(waking=100, tick=False), Memory(), 1000)
    assert at_once.desired == 100
    at_tick = decide(rev, waiting, Standing(), Mode(waking=100), at_once.memory, 1000)
    assert at_tick.desired == 143


def test_a_line_that_swells_is_answered_at_once_by_what_holds_it_and_the_tick_adds_the_headroom() -> None:
    rev, swelling = revision(cc=1), Signal(1.0, 1.0, in_flight=1, queued=99, swelling=True)
    at_once = decide(rev, swelling, Standing(1), Mode(tick=False), Memory(), 1000)
    assert at_once.desired == 100
    again = decide(rev, swelling, Standing(1, 99), Mode(tick=False), at_once.memory, 1000.1)
    assert again.desired == 100, "what is coming is not asked for again"
    assert decide(revision(cc=1, max_scale=10), swelling, Standing(1), Mode(tick=False), Memory(), 1000).desired == 10


def test_a_line_alone_is_no_reason_to_hurry() -> None:
    line = Signal(1.0, 1.0, in_flight=1, queued=99)
    assert decide(revision(cc=1), line, Standing(1), Mode(tick=False), Memory(), 1000).desired == 1


def test_a_repeated_wake_does_not_ask_again() -> None:
    rev, waiting = revision(cc=1), Signal(3.0, 3.0, queued=3)
    assert decide(rev, waiting, Standing(0, 3), Mode(waking=3, tick=False), Memory(), 1000).desired == 3


def test_a_wake_of_a_revision_with_activation_scale_asks_for_that_many() -> None:
    assert decide(revision(activation_scale=4), Signal(), Standing(), Mode(waking=1), Memory(), 1).desired == 4


def test_between_ticks_it_only_goes_up() -> None:
    assert once(revision(), 1, ready=10, tick=False).desired == 10
    assert once(revision(cc=1), 10, 20, ready=10, tick=False).desired == 29


def test_what_is_starting_is_not_asked_for_again() -> None:
    rev = revision(cc=1)
    first = once(rev, 100)
    again = once(rev, 110, 120, starting=143, memory=first.memory, queued=120, now=1002)
    assert again.desired == 143, "120 wait, and 143 are coming"
    more = once(rev, 150, 150, starting=143, memory=again.memory, queued=150, now=1004)
    assert more.desired == 215, "150 wait for 143"


def test_a_slow_starter_with_a_steady_number_of_callers_does_not_overshoot() -> None:
    """Ten callers, one at a time each, a start that takes 20 s: 15 at target utilisation, however long they wait."""
    rev, memory, asked = revision(cc=1), Memory(), 0
    for tick in range(10):
        decision = once(rev, 10, 10, starting=asked, memory=memory, queued=10, now=1000 + 2 * tick)
        memory, asked = decision.memory, decision.desired
    assert asked == 15


def test_it_never_goes_below_what_is_in_flight_now() -> None:
    assert once(revision(cc=1), 2, ready=10, in_flight=8).desired == 8


@pytest.mark.parametrize("mode", [{"blind": "NATS is away"}, {"settled": False}, {"tick": False}])
def test_it_never_goes_down_on_what_it_cannot_know(mode: dict[str, object]) -> None:
    assert once(revision(), 0, ready=7, **mode).desired == 7


def test_a_silent_sender_with_load_holds_the_scale() -> None:
    signal = Signal(0.0, 0.0, unreported=True)
    assert decide(revision(), signal, Standing(4), Mode(), Memory(), 1).desired == 4


def test_zero_waits_for_the_stable_window() -> None:
    rev = revision()
    assert once(rev, 0, ready=1, idle_s=59, active_s=500).desired == 1
    assert once(rev, 0, ready=1, idle_s=61, active_s=500).desired == 0
    assert once(rev, 0, ready=1, idle_s=61, active_s=30).desired == 1
    assert once(rev, 0, ready=1, idle_s=61, active_s=500).reason == "NoTraffic"


def test_with_scale_to_zero_off_one_stays_or_comes_back() -> None:
    rev = revision(scale_to_zero=False)
    assert once(rev, 0, ready=1).desired == 1
    assert once(rev, 0).desired == 1


def test_an_unreachable_revision_falls_to_zero_at_once_whatever_its_minimum() -> None:
    decision = once(revision(min_scale=2), 0, ready=8, reach=Reach.UNROUTED, tick=False, idle_s=1, active_s=1)
    assert (decision.desired, decision.reason) == (0, "Unreachable")


def test_an_unreachable_revision_does_not_wait_for_its_windows() -> None:
    assert once(revision(), 50, ready=3, reach=Reach.UNROUTED, idle_s=1).desired == 0


def test_activation_scale_counts_for_what_starts_too() -> None:
    assert once(revision(activation_scale=5), 1, starting=1).desired == 5


def test_between_ticks_headroom_alone_starts_nothing() -> None:
    assert once(revision(cc=1), 1, ready=1, tick=False).desired == 1
    assert once(revision(cc=1), 1, ready=1).desired == 2, "KPA's headroom, at the tick"


def test_an_unreachable_revision_finishes_what_is_queued() -> None:
    assert once(revision(), 5, ready=2, reach=Reach.UNROUTED, queued=3).desired == 1


def test_a_revision_nobody_spoke_of_goes_after_a_window_and_not_before() -> None:
    rev = revision()
    assert decide(rev, Signal(), Standing(1), Mode(idle_s=30, active_s=30), Memory(), 1).desired == 1
    assert decide(rev, Signal(), Standing(1), Mode(idle_s=61, active_s=61), Memory(), 1).desired == 0


def test_every_decision_says_its_steps() -> None:
    steps = once(revision(cc=1, max_scale=10), 100).steps
    assert [s.rule for s in steps] == ["stable", "panic window", "panic", "at most"]
    assert steps[-1].value == 10


def test_excess_burst_capacity_is_knatives() -> None:
    assert once(revision(cc=10, target_burst_capacity=200), 30, 30, ready=25).excess_burst_capacity == 20
    assert once(revision(target_burst_capacity=0), 30).excess_burst_capacity == 0
    assert once(revision(target_burst_capacity=-1), 30).excess_burst_capacity == -1


specs = st.builds(
    ScaleSpec,
    target=st.sampled_from([0.0, 1.0, 10.0, 200.0]),
    target_utilization=st.floats(0.1, 1.0),
    min_scale=st.integers(0, 5),
    max_scale=st.sampled_from([0, 5, 50]),
    initial_scale=st.integers(0, 5),
    activation_scale=st.sampled_from([0, 2, 4]),
    max_scale_up_rate=st.sampled_from([1.5, 10.0, 1000.0]),
    scale_down_delay_s=st.sampled_from([0.0, 30.0]),
    scale_to_zero=st.booleans(),
)
revisions = st.builds(
    Revision,
    project=st.just("p"),
    name=st.just("r"),
    image=st.just("i"),
    container_concurrency=st.sampled_from([0, 1, 10]),
    scale=specs,
)
loads = st.floats(0, 5000)
modes = st.builds(
    Mode,
    reach=st.sampled_from(Reach),
    verified=st.booleans(),
    waking=st.sampled_from([0, 1, 50]),
    tick=st.booleans(),
    settled=st.booleans(),
    blind=st.sampled_from(["", "NATS is away"]),
    idle_s=st.floats(0, 200),
    active_s=st.floats(0, 200),
)


@given(revisions, st.lists(st.tuples(loads, loads, st.integers(0, 40), st.integers(0, 40), modes), min_size=1, max_size=12))
def test_bounds_always_hold(rev: Revision, ticks: list[tuple[float, float, int, int, Mode]]) -> None:
    memory = Memory()
    for number, (stable, panic, ready, starting, mode) in enumerate(ticks):
        decision = decide(rev, Signal(stable, panic), Standing(ready, starting), mode, memory, 2.0 * number)
        memory = decision.memory
        assert decision.desired >= 0
        if rev.scale.max_scale:
            assert decision.desired <= rev.scale.max_scale
        least = min(rev.scale.min_scale, rev.scale.max_scale or rev.scale.min_scale)
        if mode.reach is not Reach.UNROUTED:
            assert decision.desired >= least
        if mode.waking and rev.scale.max_scale != 0:
            assert decision.desired >= 1


@given(revisions, loads, loads, st.integers(1, 40), modes)
def test_down_needs_a_tick_and_knowledge(rev: Revision, stable: float, panic: float, ready: int, mode: Mode) -> None:
    decision = decide(rev, Signal(stable, panic), Standing(ready), mode, Memory(), 0)
    cap = rev.scale.max_scale or ready
    if mode.reach is not Reach.UNROUTED and (mode.blind or not mode.tick or not mode.settled):
        assert decision.desired >= min(ready, cap)


@given(st.sampled_from([0, 1, 5, 50]), st.floats(0.5, 400), st.integers(1, 60))
def test_with_steady_load_it_converges_to_the_need_and_stays(cc: int, load: float, start: int) -> None:
    rev, memory, ready = revision(cc=cc), takeover(start, 0), start
    target = target_of(rev.scale, cc).target
    for tick in range(120):
        decision = once(rev, load, load, ready=ready, memory=memory, now=2.0 * tick)
        memory, ready = decision.memory, decision.desired
    assert ready == math.ceil(load / target)


@given(st.lists(st.floats(0, 300), min_size=5, max_size=40), st.sampled_from([1, 10]))
def test_in_panic_it_never_shrinks_and_is_never_below_the_panic_need(loads_: list[float], cc: int) -> None:
    rev, memory, ready = revision(cc=cc), Memory(), 1
    target = target_of(rev.scale, cc).target
    for tick, load in enumerate(loads_):
        before = memory
        decision = once(rev, load, load, ready=ready, memory=memory, now=2.0 * tick)
        memory = decision.memory
        if memory.panic_at is not None:
            assert decision.desired >= math.ceil(load / target)
            if before.panic_at is not None:
                assert decision.desired >= ready
        ready = max(1, decision.desired)


def test_the_last_instance_is_frozen_after_a_short_idle_although_the_window_still_remembers_load() -> None:
    quick = {"freeze_after_s": 6.0}
    assert once(revision(), 5, ready=1, **quick | {"idle_s": 5.0}).desired == 1
    frozen = once(revision(), 5, ready=1, **quick | {"idle_s": 6.0})
    assert (frozen.desired, frozen.steps[-1].rule) == (0, "freeze")
    assert once(revision(), 5, ready=0, **quick | {"idle_s": 7.0, "tick": False}).desired == 0, (
        "and is left alone between ticks"
    )
    assert once(revision(), 5, ready=1, **quick | {"idle_s": 7.0, "tick": False}).desired == 1
    assert once(revision(), 5, ready=1, in_flight=1, **quick | {"idle_s": 7.0}).desired == 1
    assert once(revision(min_scale=1), 5, ready=1, **quick | {"idle_s": 7.0}).desired == 1
    assert once(revision(scale_to_zero=False), 5, ready=1, **quick | {"idle_s": 99.0}).desired == 1


def test_more_than_the_last_instance_go_by_the_windows() -> None:
    assert once(revision(), 100, ready=2, freeze_after_s=6.0, idle_s=10.0).desired == 2
