"""Where a revision's latency bends is found from what is reported anyway, and taken for its target where it follows its habits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.mind import Limits, Mind
from autoscaler.pace import SEEN, Pace
from autoscaler.policy import Memory, Mode, Standing, decide, target_of
from autoscaler.signals import Signal
from store.model import Revision, ScaleSpec


def an_app_with_four_cores(pace: Pace, at_once: float, seconds: int = 60, instances: int = 1) -> None:
    """A call takes 100 ms of one core: beyond four at once they wait for each other."""
    took_s = 0.1 * max(1.0, at_once / instances / 4)
    for _ in range(seconds):
        pace.note(at_once, round(at_once / took_s), 1.0, instances)


def test_the_bend_is_where_calls_take_twice_as_long() -> None:
    pace = Pace()
    an_app_with_four_cores(pace, 1)
    an_app_with_four_cores(pace, 4)
    assert pace.bend() == 0
    an_app_with_four_cores(pace, 8)
    assert pace.bend() == 8
    assert pace.service_s() == pytest.approx(0.1, rel=0.05)


def test_concurrency_is_counted_in_one_instance() -> None:
    pace = Pace()
    an_app_with_four_cores(pace, 3, instances=3)
    an_app_with_four_cores(pace, 24, instances=3)
    assert pace.bend() == 8


def test_a_moment_is_not_enough_and_a_changed_app_is_learned() -> None:
    pace = Pace()
    an_app_with_four_cores(pace, 1)
    an_app_with_four_cores(pace, 16, seconds=SEEN - 1)
    assert pace.bend() == 0
    an_app_with_four_cores(pace, 16, seconds=1)
    assert pace.bend() == 16
    for _ in range(100):
        pace.note(16, 160, 1.0, 1)  # It has sixteen cores now.
    assert pace.bend() == 0


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 10**6), st.floats(0, 10), st.integers(0, 100)), max_size=50))
def test_nothing_that_is_reported_breaks_it(notes: list[tuple[float, int, float, int]]) -> None:
    pace = Pace()
    for concurrency, requests, interval_s, instances in notes:
        pace.note(concurrency, requests, interval_s, instances)
    assert pace.bend() in (0, 2, 4, 8, 16, 32, 64, 128)
    assert pace.service_s() >= 0


def test_it_is_the_target_of_who_sets_none() -> None:
    assert target_of(ScaleSpec(), 0, 8).target == pytest.approx(5.6)
    assert target_of(ScaleSpec(target=50), 0, 8).total == 50
    assert target_of(ScaleSpec(), 10, 8).total == 10
    app = Revision(project="p", name="r", image="i")
    bent = decide(app, Signal(40.0, 40.0, in_flight=40), Standing(1), Mode(idle_s=0, bend=8.0), Memory(), 0)
    assert bent.desired == 8
    assert any("8 calls in an instance" in step.why for step in bent.steps)


@pytest.mark.parametrize(
    ("operator", "service", "follows"),
    [
        ("service", "", False),
        ("service", "learned", True),
        ("service", "knative", False),
        ("learned", "", True),
        ("learned", "knative", False),
        ("service", "frugal", True),
        ("frugal", "", True),
        ("knative", "frugal", False),
        ("knative", "learned", False),
        ("knative", "", False),
    ],
)
def test_a_service_says_whether_it_follows_its_habits_and_the_operator_for_who_says_nothing_or_for_all(
    operator: str, service: str, follows: bool
) -> None:
    mind = Mind(Limits(policy=operator), 0.0)
    app = Revision(project="p", name="r", image="i", scale=ScaleSpec(policy=service))
    assert mind.follows_habits(app) is follows
