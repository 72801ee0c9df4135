"""Habits are learned and followed: what returns soon is kept, what comes on a beat is started ahead, what is rare is let go."""

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
    keep = keepalive.plan(profile(*[100.0] * 40), 128 * MB)
    assert 100 < keep.keep_s < 300
    assert keep.warm(99)


def test_what_comes_on_a_beat_is_let_go_and_started_ahead() -> None:
    keep = keepalive.plan(profile(*[1800.0] * 40), 128 * MB)
    assert keep.keep_s < 200
    assert not keep.warm(1000)
    assert keep.warm(1790)
    assert 1500 < keep.next_s(keep.keep_s) < 1800
    assert keep.until_s < 2000


def test_a_large_app_is_kept_shorter_than_a_small_one() -> None:
    habits = profile(*[float(20 * n) for n in range(1, 60)])
    assert keepalive.plan(habits, 1024 * MB).keep_s < keepalive.plan(habits, 32 * MB).keep_s


@given(st.lists(st.floats(0, 2 * RANGE_S), max_size=60), st.integers(0, 8192))
def test_spans_are_in_order_and_within_the_range(idle_s: list[float], memory_mb: int) -> None:
    keep = keepalive.plan(profile(*idle_s), memory_mb * MB)
    assert keepalive.SHORTEST_S <= keep.keep_s <= lower_s(BINS)
    assert keep.from_s == keep.until_s == 0 or keep.keep_s <= keep.from_s < keep.until_s <= lower_s(BINS)
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
