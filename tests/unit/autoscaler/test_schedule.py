"""Scheduled minimums hold from their minute for their length, by the clocks on the wall, whatever those do."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler import schedule
from autoscaler.policy import Memory, Mode, Standing, decide
from autoscaler.signals import Signal
from registry.schedule import parse
from store.model import Revision, ScaleSpec

BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = parse("0 8 * * 1-5 Europe/Berlin min=3 for=10h")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("when", "instances"),
    [
        ("2026-11-25T07:59:59", 0),
        ("2026-11-25T08:00:00", 3),
        ("2026-11-25T17:59:59", 3),
        ("2026-11-25T18:00:00", 0),
        ("2026-11-28T12:00:00", 0),
    ],
)
def test_it_is_on_from_its_minute_for_its_length_on_its_days(when: str, instances: int) -> None:
    assert schedule.least(WORKDAYS, at(when)).instances == instances


def test_it_says_until_when_that_holds_and_why() -> None:
    assert schedule.least(WORKDAYS, at("2026-11-25T07:50:00")).until == at("2026-11-25T08:00:00")
    on = schedule.least(WORKDAYS, at("2026-11-25T17:50:00"))
    assert on.until == at("2026-11-25T18:00:00")
    assert "Wed 08:00 Europe/Berlin" in on.why
    assert schedule.least(WORKDAYS, at("2026-11-25T12:00:00")).until == at("2026-11-25T13:00:00"), "looked at again in an hour"
    assert schedule.least([], 0.0) == schedule.NEVER


def test_one_that_lasts_over_midnight_is_on_the_next_day() -> None:
    night = parse("0 22 * * 5 Europe/Berlin min=1 for=12h")
    assert schedule.least(night, at("2026-11-28T09:59:00")).instances == 1
    assert schedule.least(night, at("2026-11-28T10:00:00")).instances == 0


def test_eight_is_eight_in_summer_and_in_winter() -> None:
    for day in ("2026-03-27", "2026-03-30", "2026-10-23", "2026-10-26"):
        assert schedule.least(WORKDAYS, at(f"{day}T07:59:00")).instances == 0
        assert schedule.least(WORKDAYS, at(f"{day}T08:00:00")).instances == 3


def test_a_minute_that_the_clocks_skip_begins_when_the_gap_is_over() -> None:
    early = parse("30 2 * * * Europe/Berlin min=1 for=1h")
    assert schedule.least(early, at("2026-03-29T01:59:59")).instances == 0
    assert schedule.least(early, at("2026-03-29T03:00:00")).instances == 1
    assert schedule.least(early, at("2026-03-29T03:59:59")).instances == 1
    assert schedule.least(early, at("2026-03-29T04:00:00")).instances == 0


def test_a_minute_that_comes_twice_begins_once_and_lasts_as_long_as_ever() -> None:
    early = parse("30 2 * * * Europe/Berlin min=1 for=90m")
    assert schedule.least(early, at("2026-10-25T02:30:00")).instances == 1
    assert schedule.least(early, at("2026-10-25T02:59:00", fold=1)).instances == 1
    assert schedule.least(early, at("2026-10-25T03:00:00")).instances == 0


@given(st.integers(0, 20 * 365 * 86_400), st.floats(0, 0.999))
def test_a_word_holds_until_it_says(second: int, part: float) -> None:
    wall = 1.7e9 + second
    both = [*WORKDAYS, *parse("*/45 2-3 1,15 * * America/New_York min=5 for=20m")]
    word = schedule.least(both, wall)
    assert wall < word.until <= wall + schedule.LOOK_AGAIN_S
    assert schedule.least(both, wall + part * (word.until - wall)).instances == word.instances


def test_the_policy_takes_it_for_a_minimum() -> None:
    revision = Revision(project="p", name="r", image="i@sha256:1", scale=ScaleSpec(max_scale=2))
    on = Mode(scheduled=schedule.Least(3, 0.0, "scheduled"))
    decision = decide(revision, Signal(), Standing(), on, Memory(), 0)
    assert (decision.desired, decision.reason) == (2, "Schedule"), "max-scale always wins"
