"""When a child that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from process.restarts import FIRST_S, HEALTHY_S, MOST_S, Restarts


def test_the_first_restart_comes_after_200_ms() -> None:
    assert Restarts().died(0) == 0.2


def test_each_death_in_a_row_doubles_the_wait_up_to_10_s() -> None:
    restarts = Restarts()
    assert [restarts.died(0) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_thirty_healthy_seconds_forget_the_deaths_before() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.died(1)
    assert restarts.died(HEALTHY_S) == FIRST_S
    assert restarts.total == 6


def test_twenty_nine_seconds_do_not() -> None:
    restarts = Restarts()
    restarts.died(0)
    assert restarts.died(HEALTHY_S - 1) == 0.4


@given(st.lists(st.floats(0, 100)))
def test_the_wait_is_always_within_its_bounds_and_every_death_counts(lives: list[float]) -> None:
    restarts = Restarts()
    for ran_s in lives:
        assert FIRST_S <= restarts.died(ran_s) <= MOST_S
    assert restarts.total == len(lives)
