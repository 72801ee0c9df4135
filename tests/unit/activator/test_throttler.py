"""One revision's admission, event by event, on virtual time: requests, their line, wakes and refusals."""

import pytest

from activator.balance import SCAN
from activator.effects import Refuse, Swelling, WakeUp
from store.lifecycle import Phase
from store.messages import Refusal
from tests.unit.activator.revision import dispatched, news, take, throttler

REFUSAL = Refusal(revision="p/r", reason="ImagePullFailed", message="no such image", retry_after_s=3)


def test_a_warm_request_gets_a_slot_at_once() -> None:
    made = throttler(2, "i1")
    assert take(made).instance == "i1"
    assert made.in_flight == 1


def test_the_limit_of_an_instance_is_never_exceeded() -> None:
    made = throttler(2, "i1", "i2")
    targets = [take(made) for _ in range(4)]
    assert sorted(each.instance for each in targets) == ["i1", "i1", "i2", "i2"]
    assert made.reserve(0.0) is None


def test_no_limit_is_no_limit() -> None:
    made = throttler(0, "i1")
    for _ in range(5000):
        take(made)
    assert made.in_flight == 5000


def test_the_least_loaded_instance_is_chosen() -> None:
    made = throttler(10, "i1", "i2", "i3")
    first = [take(made).instance for _ in range(3)]
    assert sorted(first) == ["i1", "i2", "i3"]


def test_of_many_the_lesser_of_two_is_chosen() -> None:
    made = throttler(0, *[f"i{place}" for place in range(SCAN + 2)])
    busy = made.balance.open[0]
    busy.in_flight = 5
    chosen = made.balance.choose(0.0)
    assert chosen is made.balance.open[1]


def test_a_queued_request_leaves_in_arrival_order() -> None:
    made = throttler(1, "i1")
    target = take(made)
    for request in "abc":
        made.arrive(request, 0.0, 10.0)
    served = []
    for at in (1.0, 2.0, 3.0):
        served += dispatched(made.release(target, at))
    assert served == [("a", "i1"), ("b", "i1"), ("c", "i1")]


def test_nobody_overtakes_the_line() -> None:
    made = throttler(1)
    made.arrive("a", 0.0, 10.0)
    made.heard(news("i1", Phase.READY), 1.0)
    made.arrive("b", 1.0, 10.0)
    made.limited(2, 1.0)
    assert made.in_flight == 2
    made = throttler(1, "i1")
    target = take(made)
    made.arrive("a", 0.0, 10.0)
    assert made.reserve(0.0) is None
    assert dispatched(made.release(target, 0.0)) == [("a", "i1")]


def test_who_lost_its_slot_through_no_fault_of_its_own_is_first_again() -> None:
    made = throttler(1)
    made.arrive("b", 0.0, 10.0)
    made.arrive("a", 0.0, 10.0, first=True)
    effects = made.heard(news("i1", Phase.READY), 0.0)
    assert dispatched(effects) == [("a", "i1")]


def test_the_first_who_waits_wakes_and_again_until_there_is_capacity() -> None:
    made = throttler()
    _, effects = made.arrive("a", 0.0, 10.0, "c-1")
    assert list(effects) == [WakeUp(1, "c-1")]
    _, effects = made.arrive("b", 0.1, 10.0, "c-2")
    assert list(effects) == []
    assert list(made.tick(0.2)) == []
    assert list(made.tick(0.26)) == [WakeUp(2, "c-1")]
    made.heard(news("i1", Phase.READY), 0.3)
    assert list(made.tick(0.9)) == []


def test_while_an_instance_is_known_to_come_wakes_are_rare() -> None:
    made = throttler()
    made.arrive("a", 0.0, 60.0)
    made.heard(news("i1", Phase.PENDING), 0.1)
    wakes = [each for tenth in range(1, 45) for each in made.tick(tenth * 0.1 + 0.05) if isinstance(each, WakeUp)]
    assert len(wakes) == 4
    assert not any(each.unheard for each in wakes)


def test_a_wake_that_nothing_comes_of_is_said_another_way_once_a_second() -> None:
    made = throttler()
    _, effects = made.arrive("a", 0.0, 60.0, "c-1")
    wakes = [*effects, *(each for tenth in range(1, 40) for each in made.tick(tenth * 0.1)), *made.tick(4.0)]
    assert [each.unheard for each in wakes if isinstance(each, WakeUp)][:8] == [False, False, False, True] * 2


def test_a_wake_that_an_instance_comes_of_is_believed() -> None:
    made = throttler()
    made.arrive("a", 0.0, 60.0, "c-1")
    made.heard(news("i1", Phase.STARTING), 0.1)
    assert not [each for tenth in range(1, 40) for each in made.tick(tenth * 0.1) if isinstance(each, WakeUp) and each.unheard]


def test_a_ready_instance_that_is_full_is_no_reason_to_wake() -> None:
    made = throttler(1, "i1")
    take(made)
    _, effects = made.arrive("a", 0.0, 10.0)
    assert list(effects) == []


def test_above_the_bound_a_request_is_refused_at_once() -> None:
    made = throttler(1, bound=2)
    for request in "ab":
        made.arrive(request, 0.0, 10.0)
    waiter, effects = made.arrive("c", 0.0, 10.0)
    assert waiter is None
    (refuse,) = effects
    assert isinstance(refuse, Refuse)
    assert (refuse.request, refuse.reason, refuse.retry_after_s) == ("c", "queue-full", 1)


def test_a_client_that_leaves_is_out_of_line_at_once_and_leaves_nothing() -> None:
    made = throttler()
    waiters = [made.arrive(f"{place}", 0.0, 10.0)[0] for place in range(10_000)]
    for waiter in waiters[1:]:
        assert waiter is not None
        assert made.leave(waiter, 0.5)
    assert len(made.line) == 1
    assert len(made.line._waiters) < 200
    assert made.load.present == 1
    assert dispatched(made.heard(news("i1", Phase.READY), 1.0)) == [("0", "i1")]


def test_leaving_twice_or_after_dispatch_changes_nothing() -> None:
    made = throttler()
    waiter, _ = made.arrive("a", 0.0, 10.0)
    assert waiter is not None
    made.heard(news("i1", Phase.READY), 0.0)
    assert not made.leave(waiter, 0.0)
    assert made.load.present == 1


def test_on_its_deadline_a_request_is_refused() -> None:
    made = throttler()
    made.arrive("a", 0.0, 1.0)
    made.arrive("b", 0.0, 2.0)
    refused = [each for each in made.tick(1.0) if isinstance(each, Refuse)]
    assert [(each.request, each.reason) for each in refused] == [("a", "timeout")]
    assert len(made.line) == 1


def test_a_refusal_fails_everybody_with_its_cause() -> None:
    made = throttler()
    for request in "ab":
        made.arrive(request, 0.0, 10.0)
    effects = made.refused(REFUSAL, 1.0)
    assert effects == [Refuse(each, "cannot-start", "ImagePullFailed: no such image", 3) for each in "ab"]
    assert len(made.line) == 0
    assert made.load.present == 0


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.PULLING, Phase.STARTING, Phase.READY])
def test_a_refusal_does_not_count_while_something_serves_or_comes(phase: Phase) -> None:
    made = throttler(1)
    made.heard(news("i1", phase), 0.0)
    if phase is Phase.READY:
        take(made)
    made.arrive("a", 0.0, 10.0)
    assert list(made.refused(REFUSAL, 1.0)) == []
    assert len(made.line) == 1


def test_a_refusal_that_did_not_count_counts_when_what_was_coming_fails() -> None:
    made = throttler()
    made.heard(news("i1", Phase.STARTING, 1), 0.0)
    made.arrive("a", 0.0, 10.0)
    made.refused(REFUSAL, 1.0)
    effects = made.heard(news("i1", Phase.FAILED, 2), 1.1)
    assert [each.request for each in effects if isinstance(each, Refuse)] == ["a"]


def test_releasing_more_than_reserved_is_an_error() -> None:
    made = throttler(1, "i1")
    target = take(made)
    made.release(target, 0.0)
    with pytest.raises(AssertionError, match="released more"):
        made.release(target, 0.0)


def test_a_line_that_outgrew_what_is_coming_wakes_again_soon() -> None:
    made = throttler(2)
    made.arrive("a", 0.0, 9.0)
    made.heard(news("i1", Phase.STARTING), 0.001)
    for name in "bcde":
        made.arrive(name, 0.002, 9.0)
    assert list(made.tick(0.02)) == [], "a moment is left for the burst to be whole"
    assert list(made.tick(0.06)) == [WakeUp(5, "")]
    made.arrive("f", 0.07, 9.0)
    made.heard(news("i2", Phase.STARTING), 0.08)
    made.heard(news("i3", Phase.STARTING), 0.08)
    assert list(made.tick(0.15)) == [], "six wait, and six fit into what is coming"


def test_a_line_that_will_not_be_served_in_a_second_is_told_at_once_and_again_when_it_doubled() -> None:
    made = throttler(1, "i1")
    take(made)
    for number in range(20):
        made.arrive(str(number), 0.0, 9.0)
    assert list(made.tick(0.05)) == [], "not told how fast it is served"
    assert list(made.tick(0.1)) == [Swelling()]
    assert list(made.tick(0.15)) == []
    for number in range(25):
        made.arrive(str(number), 0.2, 9.0)
    assert list(made.tick(0.25)) == [Swelling()]


def test_a_line_that_is_served_quickly_is_not_told() -> None:
    made = throttler(1, "i1")
    target = take(made)
    for number in range(40):
        made.arrive(str(number), 0.0, 9.0)
    for _ in range(10):
        made.release(target, 0.05)
    assert list(made.tick(0.1)) == [], "ten in a tenth of a second: thirty more in three tenths"
    assert not made.swelling(0.1)


def test_a_line_that_fits_into_what_is_coming_is_not_told() -> None:
    made = throttler(10, "i1")
    for _ in range(10):
        take(made)
    made.heard(news("i2", Phase.STARTING), 0.0)
    for number in range(10):
        made.arrive(str(number), 0.0, 9.0)
    assert list(made.tick(0.2)) == []
    made.arrive("one more", 0.3, 9.0)
    assert list(made.tick(0.3)) == [Swelling()]
