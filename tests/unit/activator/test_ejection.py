"""Instances that take requests and do not answer get nothing new for a moment, and one request lets them back."""

from hypothesis import given
from hypothesis import strategies as st

from activator.balance import Target
from activator.ejection import EJECT_MOST_S, UNANSWERED_MOST
from store.lifecycle import Phase
from tests.unit.activator.test_throttler import dispatched, news, take, throttler


def fail(made, target: Target, now: float, times: int = UNANSWERED_MOST) -> None:
    for _ in range(times):
        made.unanswered(target, now)


def test_so_many_unanswered_in_a_row_put_an_instance_out() -> None:
    made = throttler(10, "i1", "i2")
    target = made.targets["i1"]
    fail(made, target, 0.0, UNANSWERED_MOST - 1)
    assert not target.ejected_until
    fail(made, target, 0.0, 1)
    assert {take(made).instance for _ in range(5)} == {"i2"}


def test_an_answer_in_between_starts_the_count_anew() -> None:
    made = throttler(10, "i1", "i2")
    target = made.targets["i1"]
    for _ in range(10):
        fail(made, target, 0.0, UNANSWERED_MOST - 1)
        made.answered(target, 0.0)
    assert not target.ejected_until
    assert not target.doubted


def test_silence_puts_out_at_once() -> None:
    made = throttler(10, "i1", "i2")
    made.unanswered(made.targets["i1"], 0.0, silent=True)
    assert made.targets["i1"].ejected_until == 1.0


def test_it_is_back_with_one_request_and_whole_after_its_answer() -> None:
    made = throttler(0, "i1", "i2")
    target = made.targets["i1"]
    target_held = [take(made) for _ in range(4)]
    assert target_held.count(target) == 2
    fail(made, target, 0.0)
    made.tick(1.0)
    probes = [take(made, 1.0) for _ in range(6)]
    assert probes.count(target) == 1
    made.reached(target, 1.1)
    assert target.probing, "that its kernel accepts a connection is no answer"
    made.answered(target, 1.2)
    assert take(made, 1.2) is target


def test_a_probe_without_an_answer_doubles_the_time_up_to_a_bound() -> None:
    made = throttler(10, "i1", "i2")
    target = made.targets["i1"]
    fail(made, target, 0.0)
    waits = [target.ejected_until]
    now = 0.0
    for _ in range(6):
        now = target.ejected_until
        made.tick(now)
        made.unanswered(target, now)
        waits.append(target.ejected_until - now)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == EJECT_MOST_S


def test_the_only_instance_is_never_out_for_want_of_answers() -> None:
    made = throttler(10, "i1")
    fail(made, made.targets["i1"], 0.0, 50)
    made.unanswered(made.targets["i1"], 0.0, silent=True)
    assert take(made).instance == "i1"


def test_news_that_it_started_anew_forgives_everything() -> None:
    made = throttler(10, "i1", "i2")
    fail(made, made.targets["i1"], 0.0)
    made.heard(news("i1", Phase.READY, 2), 0.5, stored=True)
    assert not made.targets["i1"].ejected_until


def test_who_waits_is_served_when_an_ejected_instance_answers_after_all() -> None:
    made = throttler(1, "i1", "i2")
    first, _ = take(made), take(made)
    fail(made, first, 0.0)
    made.arrive("a", 0.0, 10.0)
    assert dispatched(made.release(first, 0.1)) == []
    assert dispatched(made.answered(first, 0.2)) == [("a", first.instance)]


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.floats(0, 2)), max_size=80))
def test_when_all_fail_at_least_half_serve_on(count: int, failures: list[tuple[int, float]]) -> None:
    names = [f"i{place}" for place in range(count)]
    made = throttler(0, *names)
    now = 0.0
    for place, later_s in failures:
        now += later_s
        made.tick(now)
        made.unanswered(made.targets[names[place % count]], now, silent=True)
        assert 2 * len(made.balance.open) >= count
