"""Habits are learned and followed: what returns soon is kept, what comes on a beat is started ahead, what is rare is let go."""

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler import keepalive
from autoscaler.idle import Reach
from autoscaler.keepalive import Keep
from autoscaler.policy import Memory, Mode, Standing, decide
from autoscaler.profile import BINS, RANGE_S, Profile, bin_of, lower_s
from autoscaler.signals import Signal
from store.model import Revision, ScaleSpec

MB = 1 << 20
PRICE_MB_S = 30_000.0


def profile(*idle_s: float) -> Profile:
    made = Profile()
    for each in idle_s:
        made.was_idle(each)
    return made


@given(st.floats(0, 10 * RANGE_S))
def test_every_idle_time_has_its_bin(idle_s: float) -> None:
    index = bin_of(idle_s)
    assert 0 <= index <= BINS
    if index < BINS:
        assert lower_s(index) <= idle_s * 1.0001 + 1e-9
        assert idle_s <= lower_s(index + 1) * 1.0001


@given(st.lists(st.floats(0, RANGE_S), max_size=60), st.floats(1, 1e5))
def test_the_span_that_wins_most_is_found_without_looking_at_all_bins(idle_s: list[float], price_s: float) -> None:
    learned = profile(*idle_s)
    sums = list(itertools.accumulate(keepalive._gains(learned, price_s), initial=0.0))
    bins, best = keepalive._best_start(learned, price_s)
    assert best == max(sums) == sums[bins]


def test_a_profile_is_less_than_a_kilobyte_however_much_it_saw() -> None:
    made = profile(*[float(n) for n in range(5000)])
    made.started(0.2, {f"phase-{n}": 3.0 for n in range(50)})
    assert sys.getsizeof(made) + sys.getsizeof(made.idle) < 1024
    assert len(made.phases_s) == 8
    assert made.start_s == pytest.approx(0.2)


def test_shares_of_idle_times_are_told_within_a_tenth() -> None:
    made = profile(*[10.0] * 50, *[1000.0] * 50)
    assert made.within(0.5) == pytest.approx(10, rel=0.11)
    assert made.within(0.95) == pytest.approx(1000, rel=0.11)


def test_a_changed_habit_is_learned() -> None:
    made = profile(*[10.0] * 2000, *[1000.0] * 2000)
    assert made.within(0.3) == pytest.approx(1000, rel=0.11)


def test_what_returns_within_two_minutes_is_kept_that_long() -> None:
    keep = keepalive.plan(profile(*[50.0, 100.0] * 20), 128 * MB, PRICE_MB_S)
    assert 100 < keep.keep_s < 300
    assert keep.warm(99)
    assert keep.ends_s(99) == keep.keep_s


def test_an_even_beat_is_met_by_a_narrow_span_and_nothing_is_kept_until_then() -> None:
    keep = keepalive.plan(profile(*[598.0, 602.0] * 20), 128 * MB, PRICE_MB_S)
    assert keep.keep_s == keepalive.SHORTEST_S
    assert 580 < keep.from_s < 596
    assert 604 < keep.until_s < 620
    assert keep.held_s(600) < 30
    assert keep.held_s(3) == 3
    assert keep.ends_s(10) == keep.from_s
    assert keep.ends_s(keep.from_s) == keep.until_s


def test_a_beat_is_told_from_a_few_idle_times_and_lost_when_they_scatter() -> None:
    assert profile(600, 601, 599, 600).steady_beat
    assert not profile(600, 601).steady_beat
    assert not profile(600, 601, 599, 600, 100, 900, 20, 1500).steady_beat


def test_an_app_that_starts_slowly_is_started_earlier() -> None:
    slow, quick = profile(*[600.0] * 9), profile(*[600.0] * 9)
    slow.started(20, {})
    assert keepalive.plan(slow, MB, PRICE_MB_S).from_s == keepalive.plan(quick, MB, PRICE_MB_S).from_s - 20


def test_the_dearer_a_cold_start_the_longer_it_is_kept() -> None:
    habits = profile(*[float(20 * n) for n in range(1, 60)])
    kept = [keepalive.plan(habits, 128 * MB, price).keep_s for price in (2e3, 3e4, 1e6)]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_what_comes_on_a_beat_is_let_go_and_started_ahead() -> None:
    keep = keepalive.plan(profile(*[1800.0] * 40), 128 * MB, PRICE_MB_S)
    assert keep.keep_s < 200
    assert not keep.warm(1000)
    assert keep.warm(1797)
    assert 1780 < keep.next_s(keep.keep_s) < 1800
    assert keep.until_s < 2000


def test_a_large_app_is_kept_shorter_than_a_small_one() -> None:
    habits = profile(*[float(20 * n) for n in range(1, 60)])
    assert keepalive.plan(habits, 1024 * MB, PRICE_MB_S).keep_s < keepalive.plan(habits, 32 * MB, PRICE_MB_S).keep_s


def test_a_beat_shorter_than_the_shortest_keep_needs_no_start_ahead() -> None:
    keep = keepalive.plan(profile(1.0, 1.0, 1.0, 1.0), 0, 2000.0)
    assert keep.keep_s >= keepalive.SHORTEST_S
    assert keep.from_s == keep.until_s == 0


@given(st.lists(st.floats(0, 2 * RANGE_S), max_size=60), st.integers(0, 8192), st.floats(2e3, 1e6))
def test_spans_are_in_order_and_within_the_range(idle_s: list[float], memory_mb: int, price: float) -> None:
    keep = keepalive.plan(profile(*idle_s), memory_mb * MB, price)
    assert keepalive.SHORTEST_S <= keep.keep_s <= lower_s(BINS)
    assert keep.from_s == keep.until_s == 0 or keep.keep_s <= keep.from_s < keep.until_s
    assert keep.why


def decided(keep: Keep | None, idle_s: float, ready: int = 1, *, load: int = 0, **mode: object) -> tuple[int, list[str]]:
    revision = Revision(project="p", name="r", image="i@sha256:1", scale=ScaleSpec())
    told = Mode(idle_s=idle_s, active_s=30, keep=keep, **mode)  # type: ignore[arg-type]
    made = decide(revision, Signal(0.0, 0.0, load), Standing(ready), told, Memory(), 1000)
    return made.desired, [step.rule for step in made.steps]


def test_a_learned_span_ends_before_the_window_or_after_it_and_says_so() -> None:
    assert decided(Keep(20), 25) == (0, ["stable", "panic window", "learned"])
    assert decided(Keep(500), 400)[0] == 1
    assert decided(Keep(20, 900, 1100), 950, ready=0)[0] == 1
    assert decided(Keep(20, 900, 1100), 1200, ready=1)[0] == 0


def test_what_is_learned_never_overrides_load_silence_or_a_missing_route() -> None:
    assert decided(Keep(20), 25, load=1)[0] == 1
    assert decided(Keep(20), 25, blind="NATS is away")[0] == 1
    assert decided(Keep(20), 25, settled=False)[0] == 1
    assert decided(Keep(900), 25, reach=Reach.UNROUTED)[0] == 0


def test_without_it_knatives_windows_decide() -> None:
    assert decided(None, 25)[0] == 1
    assert "learned" not in decided(None, 25)[1]


def test_what_went_by_its_habit_stays_away_between_ticks_although_the_window_still_remembers_load() -> None:
    revision = Revision(project="p", name="r", image="i", scale=ScaleSpec(policy="learned"))
    mode = Mode(keep=Keep(6.0), idle_s=8.0, tick=False)
    assert decide(revision, Signal(0.3, 0.0), Standing(0), mode, Memory(), 100).desired == 0


def test_what_many_calls_wait_for_is_kept_longer() -> None:
    alone, crowded = (profile(*[float(20 * n) for n in range(1, 60)]) for _ in range(2))
    for _ in range(20):
        crowded.met(12)
    assert crowded.crowd == pytest.approx(12, rel=0.05)
    assert keepalive.plan(crowded, 512 * MB, PRICE_MB_S).keep_s > keepalive.plan(alone, 512 * MB, PRICE_MB_S).keep_s


def test_a_slow_start_is_worth_more_to_avoid_than_a_quick_one_within_bounds() -> None:
    keeps = []
    for start_s in (0.02, 0.5, 1.0, 30.0, 300.0):
        habits = profile(*[8 * 1.3**n for n in range(20)] * 3)
        habits.started(start_s, {})
        keeps.append(keepalive.plan(habits, 128 * MB, PRICE_MB_S).keep_s)
    assert keeps == sorted(keeps)
    assert keeps[0] < keeps[1] < keeps[3] == keeps[4]


def test_those_beside_the_first_stay_through_the_gaps_of_a_burst_and_no_longer_than_it() -> None:
    waves, lone = profile(*[8.0] * 30, *[400.0] * 30), profile(*[400.0] * 60)
    kept = keepalive.plan(waves, 128 * MB, PRICE_MB_S)
    assert 8 < kept.others_s <= kept.keep_s
    assert keepalive.plan(lone, 128 * MB, PRICE_MB_S).others_s == keepalive.SHORTEST_S
    keep = Keep(100.0, others_s=20.0)
    assert (keep.ends_s(7), keep.ends_s(20)) == (20.0, 100.0)
    wish = dict.fromkeys((10.0, 25.0), 0)
    for idle_s in wish:
        mode = Mode(idle_s=idle_s, active_s=90, keep=keep)
        memory = Memory(panic_at=990, panic_peak=4)
        wish[idle_s] = decide(
            Revision(project="p", name="r", image="i"), Signal(0.0, 0.0), Standing(4), mode, memory, 1000
        ).desired
    assert wish == {10.0: 4, 25.0: 1}
