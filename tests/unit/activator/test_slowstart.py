"""A new instance without a hard limit takes its share over some seconds; all else is as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.balance import NO_LIMIT
from activator.slowstart import RAMP_S
from activator.throttler import Throttler
from store.lifecycle import Phase
from tests.unit.activator.test_throttler import news, take, throttler

LATER = 100.0


def busy(each: int, *names: str) -> Throttler[str]:
    """Instances that have served for long, with `each` requests at every one of them."""
    made = throttler(0, *names)
    for _ in range(each * len(names)):
        take(made, LATER)
    return made


def add(made: Throttler[str], name: str, now: float = LATER) -> None:
    made.heard(news(name, Phase.READY), now, stored=True)


def test_a_new_instance_gets_one_at_first_and_its_share_in_the_end() -> None:
    made = busy(20, "i1", "i2")
    add(made, "i3")
    had = []
    for step in range(6):
        now = LATER + step * RAMP_S / 5
        made.tick(now)
        for _ in range(40):
            take(made, now)
        had.append(made.targets["i3"].in_flight)
    assert had[0] == 1
    assert had == sorted(had)
    spread = [target.in_flight for target in made.targets.values()]
    assert max(spread) - min(spread) <= 1


def test_with_a_hard_limit_a_new_instance_takes_what_waits() -> None:
    made = throttler(4, "i1")
    for _ in range(4):
        take(made, LATER)
    for request in "abcd":
        made.arrive(request, LATER, LATER + 9)
    add(made, "i2")
    assert made.targets["i2"].in_flight == 4
    assert not made.line.waiting


def test_the_first_instances_take_everything_at_once() -> None:
    made = throttler(0)
    for place in range(5):
        add(made, f"i{place}", LATER + place / 10)
    assert all(target.cap == NO_LIMIT for target in made.targets.values())
    assert not made.restless


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.STOPPED, Phase.STARTING])
def test_when_the_others_leave_the_new_one_takes_everything_at_once(phase: Phase) -> None:
    made = busy(1, "i1")
    add(made, "i2")
    take(made, LATER)
    made.heard(news("i1", phase, 2), LATER + 0.01)
    assert take(made, LATER + 0.01).instance == "i2"


def test_when_the_others_cannot_be_reached_the_new_one_takes_everything_at_once() -> None:
    made = busy(0, "i1")
    add(made, "i2")
    take(made, LATER)
    take(made, LATER)
    made.unreachable(made.targets["i1"], LATER)
    assert take(made, LATER).instance == "i2"


def test_a_hard_limit_that_is_set_while_one_is_new_takes_its_place() -> None:
    made = busy(3, "i1")
    add(made, "i2")
    made.limited(5, LATER)
    assert made.targets["i2"].most == 5
    made.limited(0, LATER)
    assert made.targets["i2"].most == 1


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1)), max_size=40), st.integers(1, 5), st.integers(1, 3))
def test_nobody_waits_for_a_new_instance_to_warm_up(steps: list[tuple[int, float]], old: int, new: int) -> None:
    made = busy(2, *[f"i{place}" for place in range(old)])
    for place in range(new):
        add(made, f"i{old + place}")
    now = LATER
    for requests, later_s in steps:
        for _ in range(requests):
            take(made, now)
        now += later_s
        made.tick(now)
        flying = [target.in_flight for target in made.targets.values()]
        assert max(flying[old:]) <= 1 + max(flying[:old])
    made.tick(LATER + RAMP_S)
    assert all(target.cap == NO_LIMIT for target in made.targets.values())
    assert not made.restless
