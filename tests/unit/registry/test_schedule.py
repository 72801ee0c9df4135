"""Schedules as people write them."""

import pytest

from registry import schedule
from registry.annotations import SCHEDULE, scale_spec, scale_values
from registry.problem import Problems


def bits(mask: int) -> list[int]:
    return [n for n in range(64) if mask >> n & 1]


def test_a_schedule_is_five_fields_a_zone_a_minimum_and_a_length() -> None:
    (found,) = schedule.parse("0 8 * * 1-5 Europe/Berlin min=3 for=10h")
    assert (bits(found.minutes), bits(found.hours), bits(found.weekdays)) == ([0], [8], [1, 2, 3, 4, 5])
    assert (found.zone, found.min_scale, found.for_s) == ("Europe/Berlin", 3, 36_000)
    assert bits(found.days) == list(range(1, 32))
    assert not found.any_day


def test_lists_steps_and_both_sundays_are_understood() -> None:
    first, second = schedule.parse("*/20 0-12/6 1,15 * 7 min=1 for=1m; 5/25 0 * 2 0 min=2 for=2m")
    assert (bits(first.minutes), bits(first.hours), bits(first.days)) == ([0, 20, 40], [0, 6, 12], [1, 15])
    assert bits(first.weekdays) == bits(second.weekdays) == [0]
    assert first.any_day
    assert bits(second.minutes) == [5, 30, 55]
    assert first.zone == "UTC"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1 to 10 schedules"),
        ("0 8 * *", "five fields"),
        ("60 8 * * * min=1 for=1h", "minute: from 0 to 59"),
        ("0 8-5 * * * min=1 for=1h", "hour: from 0 to 23, the smaller first"),
        ("0 x * * * min=1 for=1h", "'x' is none of them"),
        ("0 8 * * */0 min=1 for=1h", "day of the week"),
        ("0 8 * * * Europe/Berlyn min=1 for=1h", "'Europe/Berlyn' is none"),
        ("0 8 * * * ../../etc/passwd min=1 for=1h", "is none"),
        ("0 8 * * * min=0 for=1h", "min= a whole number from 1"),
        ("0 8 * * * min=1 for=200h", "from 1m to 168h"),
        ("0 8 * * * min=1", "both min= and for="),
        ("0 8 * * * min=1 for=1h;" * 11, "1 to 10"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(text: str, said: str) -> None:
    problems = Problems()
    assert "schedules" not in scale_values({SCHEDULE: text}, problems, "metadata.annotations")
    assert said in str(problems[0])


def test_the_annotation_becomes_the_spec() -> None:
    assert scale_spec({SCHEDULE: "0 8 * * * min=2 for=1h"}).schedules[0].min_scale == 2
