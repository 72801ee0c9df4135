"""What is kept warm costs no more than fixed windows would: the price of a cold start follows from that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.budget import FRUGAL, HIGHEST_MB_S, LOWEST_MB_S, PRICE_MB_S, SHARE, Budget


def test_the_price_falls_while_more_is_kept_than_windows_would_keep_and_rises_while_less() -> None:
    over, under = Budget(0), Budget(0)
    for minute in range(1, 600):
        over.settle(120, 60, 128, 61.0 * minute)
        under.settle(30, 60, 128, 61.0 * minute)
    assert over.price_mb_s < PRICE_MB_S / 5
    assert under.price_mb_s > 10 * PRICE_MB_S


def test_what_is_saved_by_letting_others_go_at_once_may_be_spent_on_keeping_one() -> None:
    alone, crowd = Budget(0), Budget(0)
    for minute in range(1, 60):
        alone.settle(90, 60, 128, 61.0 * minute)
        crowd.settle(90, 60, 128, 61.0 * minute, others=4)
    assert alone.price_mb_s < PRICE_MB_S < crowd.price_mb_s
    assert crowd.kept < crowd.allowed


def test_it_is_corrected_once_a_minute_at_most() -> None:
    budget = Budget(0)
    for _ in range(1000):
        budget.settle(120, 60, 128, 59)
    assert budget.price_mb_s == PRICE_MB_S


def test_how_long_others_stood_counts_as_kept() -> None:
    gone, stayed = Budget(0), Budget(0)
    gone.settle(20, 60, 128, 1, others=3)
    stayed.settle(20, 60, 128, 1, others=3, others_s=40)
    assert stayed.kept - gone.kept == 3 * (40 - 7) * 128
    assert stayed.allowed == gone.allowed


@pytest.mark.parametrize("share", [SHARE, FRUGAL])
def test_it_finds_the_price_at_which_the_budget_is_spent(share: float) -> None:
    """Kept time grows with the price here: it settles where what is kept is the share of what is allowed."""
    budget, now, kept_s = Budget(0, share), 0.0, 0.0
    for _ in range(3000):
        now += 61
        kept_s = 0.004 * budget.price_mb_s
        budget.settle(kept_s, 60, 128, now)
    assert kept_s == pytest.approx(share * 60, rel=0.05)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 3600), st.floats(0, 1e5), st.floats(0, 1e5)), max_size=50))
def test_the_price_stays_within_its_bounds(ended: list[tuple[float, float, float, float]]) -> None:
    budget, now = Budget(0), 0.0
    for kept_s, window_s, memory_mb, past_s in ended:
        now += past_s
        budget.settle(kept_s, window_s, memory_mb, now)
        assert LOWEST_MB_S <= budget.price_mb_s <= HIGHEST_MB_S
