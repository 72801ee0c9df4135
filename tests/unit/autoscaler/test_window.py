import math

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.window import Window, panic_length_s


def filled(length_s: int, values: dict[int, float], **kind: bool) -> Window:
    window = Window(length_s, **kind)
    for second, value in values.items():
        window.add(second, value)
    return window


def test_a_window_nobody_wrote_to_has_no_average() -> None:
    assert Window(60).average(100) is None


def test_a_young_window_is_divided_by_its_age() -> None:
    assert filled(60, {10: 4, 11: 6}).average(11) == 5


def test_a_full_window_is_divided_by_its_length() -> None:
    assert filled(6, dict.fromkeys(range(100, 110), 3.0)).average(109) == 3


def test_a_trailing_gap_is_dropped_from_the_divisor() -> None:
    window = filled(6, dict.fromkeys(range(100, 106), 6.0))
    assert window.average(108) == 6, "three seconds of silence: the three that are left still say 6"


def test_an_inner_gap_counts_as_zero() -> None:
    assert filled(60, {10: 4, 13: 4}).average(13) == 2


def test_silence_for_a_whole_window_is_zero() -> None:
    window = filled(6, {100: 50})
    assert window.average(105) == 50
    assert window.average(106) == 0


def test_after_a_whole_window_of_silence_age_counts_anew() -> None:
    window = filled(6, {100: 50, 200: 10})
    assert window.average(200) == 10


def test_two_reports_in_one_second_add_up() -> None:
    assert filled(6, {10: 1}).average(10) == 1
    window = filled(6, {10: 1})
    window.add(10.9, 2)
    assert window.average(10.95) == 3


def test_averages_are_rounded_to_six_digits() -> None:
    assert filled(3, {1: 0.1, 2: 0.2, 3: 0.0}).average(3) == 0.1


def test_recent_seconds_weigh_most_in_an_exponential_window() -> None:
    rising = filled(6, {s: float(s) for s in range(1, 7)}, exponential=True).average(6)
    assert rising is not None
    assert rising > 5, "close to the latest, 6, far from the mean, 3.5"


def test_exponential_weights_are_knatives() -> None:
    c = max(1 - math.pow(1 - 0.9999, 1 / 6), 0.2)
    want = sum(v * c * (1 - c) ** i for i, v in enumerate([3.0, 2.0, 1.0]))
    assert filled(6, {1: 1, 2: 2, 3: 3}, exponential=True).average(3) == round(want, 6)


def test_the_panic_window_is_a_tenth_by_default_and_never_nothing() -> None:
    assert panic_length_s(60, 10) == 6
    assert panic_length_s(6, 10) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1000)), min_size=1, max_size=80), st.integers(1, 20), st.booleans())
def test_an_average_never_exceeds_the_largest_second(steps: list[tuple[int, float]], length: int, exponential: bool) -> None:
    window, now, seconds = Window(length, exponential=exponential), 0, dict[int, float]()
    for gap, value in steps:
        now += gap
        window.add(now, value)
        seconds[now] = seconds.get(now, 0) + value
        average = window.average(now)
        recent = [v for s, v in seconds.items() if s > now - length]
        assert average is not None
        assert -1e-6 <= average <= max(recent) + 1e-5


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100)), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 15)
)
def test_a_linear_average_is_what_its_definition_says(steps: list[tuple[int, float]], length: int, later: int) -> None:
    window, now, first, seconds = Window(length), 0, 0, dict[int, float]()
    for number, (gap, value) in enumerate(steps):
        if number == 0 or gap >= length:
            first, seconds = now + gap, {}
        now += gap
        window.add(now, value)
        seconds[now] = seconds.get(now, 0) + value
    at = now + later
    inside = sum(v for s, v in seconds.items() if s > at - length)
    span = min(now - first + 1, length - later)
    want = inside / span if later < length else 0.0
    average = window.average(at)
    assert average is not None
    assert abs(average - want) < 1e-5


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.2, 1.0, 4.0])), min_size=1, max_size=30),
    st.sampled_from([1, 6, 20]),
    st.integers(-1, 25),
    st.sampled_from([(-1.0, 0.5), (0.0, 1.0), (0.3, 2.0), (-1.0, 0.0)]),
    st.booleans(),
)
def test_when_an_average_leaves_its_bounds_is_the_first_second_in_which_it_is_outside(
    said: list[tuple[int, float]], length_s: int, later: int, bounds: tuple[float, float], exponential: bool
) -> None:
    window, at = Window(length_s, exponential=exponential), 10
    for gap, value in said:
        at += gap
        window.add(at, value)
    begin, (above, up_to) = at + later, bounds
    outside = (t for t in range(begin, at + length_s + later + 2) if not above < (window.average(t) or 0.0) <= up_to)
    assert window.leaves(begin + 0.5, above, up_to) == next(outside, math.inf)


def test_a_window_in_which_nothing_was_written_is_outside_its_bounds_now() -> None:
    assert Window(6).leaves(5.5, -1.0, 1.0) == 5
