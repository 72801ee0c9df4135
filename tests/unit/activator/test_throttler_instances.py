"""One revision's admission, event by event, on virtual time: what is heard of its instances."""

import pytest

from activator.effects import Dispatch, DrainedNow, WakeUp
from store.lifecycle import Phase
from tests.unit.activator.revision import dispatched, news, take, throttler


def test_a_draining_instance_gets_nothing_new_and_says_so_when_empty() -> None:
    made = throttler(2, "i1")
    target = take(made)
    assert list(made.heard(news("i1", Phase.DRAINING, 2), 1.0)) == []
    assert made.reserve(1.0) is None
    assert list(made.release(target, 2.0)) == [DrainedNow("i1", "n", 2)]
    made.heard(news("i1", Phase.STOPPED, 3), 3.0)
    assert made.targets == {}


def test_an_empty_or_unknown_draining_instance_is_drained_at_once() -> None:
    made = throttler(1, "i1")
    assert list(made.heard(news("i1", Phase.DRAINING, 2), 1.0)) == [DrainedNow("i1", "n", 2)]
    assert list(made.heard(news("i9", Phase.DRAINING, 2), 1.0)) == [DrainedNow("i9", "n", 2)]


def test_a_frozen_instance_is_out_of_use_until_it_is_ready_again() -> None:
    made = throttler(2, "i1")
    target = take(made)
    assert list(made.heard(news("i1", Phase.FROZEN, 2), 1.0)) == []
    assert made.reserve(1.0) is None
    assert list(made.release(target, 1.0)) == [DrainedNow("i1", "n", 2)]
    _, effects = made.arrive("a", 2.0, 10.0)
    assert [type(each) for each in effects] == [WakeUp]
    effects = made.heard(news("i1", Phase.READY, 3), 2.1)
    assert list(effects) == [Dispatch("a", target, pytest.approx(0.1))]


def test_who_waits_when_the_last_instance_is_frozen_wakes_it() -> None:
    made = throttler(1, "i1")
    target = take(made)
    made.arrive("a", 0.0, 10.0)
    effects = made.heard(news("i1", Phase.FROZEN, 2), 1.0)
    assert [type(each) for each in effects] == [WakeUp]
    assert target.in_flight == 1


def test_an_instance_that_is_not_ready_for_a_moment_gets_nothing_and_is_not_called_drained() -> None:
    made = throttler(2, "i1")
    target = take(made)
    made.heard(news("i1", Phase.STARTING, 2), 1.0)
    assert made.reserve(1.0) is None
    assert list(made.release(target, 1.0)) == []
    made.heard(news("i1", Phase.READY, 3), 2.0)
    assert take(made) is target


def test_old_news_is_ignored() -> None:
    made = throttler(1, "i1")
    made.heard(news("i1", Phase.DRAINING, 5), 1.0)
    made.heard(news("i1", Phase.READY, 4), 1.1)
    assert made.reserve(1.2) is None


def test_a_vanished_key_keeps_serving_until_it_cannot_be_reached() -> None:
    made = throttler(1, "i1")
    made.forgotten("i1", 1.0)
    target = take(made)
    assert target.unconfirmed
    made.unreachable(target, 2.0)
    made.release(target, 2.0)
    assert made.targets == {}
    _, effects = made.arrive("a", 2.0, 10.0)
    assert list(effects) == [WakeUp(1, "")]


@pytest.mark.parametrize("phase", [Phase.READY, Phase.DRAINING, Phase.STARTING, Phase.PARKED])
def test_one_that_is_to_be_no_more_gets_nothing_new_and_is_forgotten_with_its_last_request(phase: Phase) -> None:
    made = throttler(1, "i1")
    target = take(made)
    made.heard(news("i1", phase, 2), 1.0)
    made.withdrawn("i1", 2.0)
    assert made.reserve(2.0) is None
    made.release(target, 3.0)
    assert made.idle


def test_fresh_news_confirms_a_vanished_instance() -> None:
    made = throttler(1, "i1")
    made.forgotten("i1", 1.0)
    made.heard(news("i1", Phase.READY, 1), 2.0, stored=True)
    assert not made.targets["i1"].unconfirmed


def test_a_vanished_key_of_one_that_did_not_serve_is_forgotten() -> None:
    made = throttler(1)
    made.heard(news("i1", Phase.STARTING), 0.0)
    made.forgotten("i1", 1.0)
    assert made.idle
    made = throttler(1, "i1")
    made.heard(news("i1", Phase.DRAINING, 2), 0.0)
    made.forgotten("i1", 1.0)
    assert made.idle


def test_an_unreachable_instance_is_out_for_a_moment_and_back_with_one_request() -> None:
    made = throttler(5, "i1")
    target = take(made)
    made.unreachable(target, 0.0)
    made.release(target, 0.0)
    assert made.reserve(0.05) is None
    made.tick(0.11)
    assert take(made, 0.11) is target
    assert made.reserve(0.11) is None
    made.reached(target, 0.12)
    assert take(made, 0.12) is target


def test_who_waits_is_served_by_the_probed_one_only_once_it_answers() -> None:
    made = throttler(5, "i1")
    target = take(made)
    made.unreachable(target, 0.0)
    made.release(target, 0.0)
    for request in "abc":
        made.arrive(request, 0.0, 10.0)
    assert dispatched(made.tick(0.2)) == [("a", "i1")]
    assert dispatched(made.reached(target, 0.21)) == [("b", "i1"), ("c", "i1")]


def test_ejection_grows_and_is_bounded() -> None:
    made = throttler(1, "i1")
    target = made.targets["i1"]
    waits = []
    now = 0.0
    for _ in range(12):
        made.unreachable(target, now)
        made.unreachable(target, now)  # Another request that found the same at the same moment.
        waits.append(round(target.ejected_until - now, 6))
        now = target.ejected_until
        made.tick(now)
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert waits[-1] == 10.0


def test_the_bus_alone_is_not_believed_against_a_failure_to_connect() -> None:
    made = throttler(1)
    made.heard(news("i1", Phase.READY), 0.0)
    target = take(made)
    made.unreachable(target, 0.0)
    made.release(target, 0.0)
    assert made.targets == {}


def test_an_instance_with_a_new_address_is_another_one() -> None:
    made = throttler(1, "i1")
    old = take(made)
    made.heard(news("i1", Phase.READY, 2, "10.9.9.9:80"), 1.0)
    assert take(made).address == "10.9.9.9:80"
    assert list(made.release(old, 2.0)) == []
    assert made.targets["i1"].address == "10.9.9.9:80"


def test_a_lower_limit_lets_the_surplus_run_out() -> None:
    made = throttler(3, "i1")
    targets = [take(made) for _ in range(3)]
    made.limited(1, 0.0)
    made.arrive("a", 0.0, 10.0)
    assert dispatched(made.release(targets[0], 1.0)) == []
    assert dispatched(made.release(targets[1], 1.0)) == []
    assert dispatched(made.release(targets[2], 1.0)) == [("a", "i1")]
