"""The exact mean of requests present."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.concurrency import Concurrency


def test_one_request_half_of_the_time_is_half_a_request() -> None:
    load = Concurrency(10.0)
    load.enter(10.25)
    load.leave(10.75)
    assert load.take(11.0) == (pytest.approx(0.5), 1)
    assert load.take(12.0) == (0.0, 0)


def test_what_was_here_before_counts_for_the_whole_interval() -> None:
    load = Concurrency(0.0)
    load.enter(0.0)
    load.take(1.0)
    assert load.take(2.0) == (pytest.approx(1.0), 0)


def test_an_interval_of_no_length_is_what_is_present() -> None:
    load = Concurrency(0.0)
    load.enter(0.0)
    assert load.take(0.0) == (1.0, 1)


def test_more_leaving_than_coming_is_an_error() -> None:
    with pytest.raises(AssertionError, match="more left"):
        Concurrency(0.0).leave(1.0)


@given(st.lists(st.tuples(st.floats(0.001, 5), st.booleans()), max_size=60), st.lists(st.integers(0, 59), max_size=5))
def test_it_is_the_area_under_the_count(steps: list[tuple[float, bool]], takes: list[int]) -> None:
    """Against a plain step-by-step integral, across any number of intervals."""
    load, now, begun = Concurrency(0.0), 0.0, 0.0
    present, area = 0, 0.0
    for place, (length, arrives) in enumerate(steps):
        area += present * length
        now += length
        if place in takes:
            mean, _ = load.take(now)
            assert mean == pytest.approx(area / (now - begun), abs=1e-9)
            area, begun = 0.0, now
        if arrives:
            load.enter(now)
            present += 1
        elif present:
            load.leave(now)
            present -= 1
    assert load.present == present
