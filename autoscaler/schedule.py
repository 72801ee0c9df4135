"""How many instances a revision shall have at least at a time of the wall clock: a pure function of that time.

A schedule begins at minutes of its zone's local time and lasts for so many seconds, whatever the clocks do meanwhile. Where they are put
forward, a minute that does not exist begins when the gap is over; where they are put back, one that comes twice begins the first time.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from store.scaling import Schedule

LOOK_AGAIN_S = 3600.0
"""A word holds no longer: clocks may be set."""
_DAY_S = 86_400.0


class Least(NamedTuple):
    """At least so many instances, until that wall second, because `why`."""

    instances: int
    until: float
    why: str = ""


NEVER = Least(0, float("inf"))


def least(schedules: Sequence[Schedule], wall: float) -> Least:
    """What `schedules` ask for at `wall`: the most of those that are on."""
    if not schedules:
        return NEVER
    instances, until, why = 0, wall + LOOK_AGAIN_S, ""
    for each in schedules:
        for begin in _begins(each, wall - each.for_s - _DAY_S, wall + LOOK_AGAIN_S + _DAY_S):
            if begin <= wall < begin + each.for_s:
                until = min(until, begin + each.for_s)
                if each.min_scale > instances:
                    instances = each.min_scale
                    since = datetime.fromtimestamp(begin, _zone(each.zone))
                    why = f"scheduled since {since:%a %H:%M} {each.zone}, for {each.for_s / 3600:g} h"
            elif begin > wall:
                until = min(until, begin)
    return Least(instances, until, why)


def _begins(schedule: Schedule, after: float, before: float) -> list[float]:
    """The wall seconds at which `schedule` begins, of all days between the two."""
    zone = _zone(schedule.zone)
    day, last = datetime.fromtimestamp(after, zone).date(), datetime.fromtimestamp(before, zone).date()
    found: list[float] = []
    while day <= last:
        if _on(schedule, day):
            found += [_second(day, minute, zone) for minute in _minutes(schedule.hours, schedule.minutes)]
        day += timedelta(days=1)
    return found


def _on(schedule: Schedule, day: date) -> bool:
    if not schedule.months >> day.month & 1:
        return False
    of_month, of_week = schedule.days >> day.day & 1, schedule.weekdays >> day.isoweekday() % 7 & 1
    return bool(of_month or of_week) if schedule.any_day else bool(of_month and of_week)


def _second(day: date, minute: int, zone: ZoneInfo) -> float:
    """The first wall second of that local minute; of one that does not exist, the end of the gap."""
    local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
    second = local.timestamp()
    back = datetime.fromtimestamp(second, UTC).astimezone(zone)
    if (back.hour, back.minute) == (local.hour, local.minute):
        return second
    after = local.replace(fold=1).timestamp()
    return _gap_ends(min(second, after), max(second, after), zone)


def _gap_ends(low: float, high: float, zone: ZoneInfo) -> float:
    """The second between `low` and `high` at which the zone's offset changes."""
    start = datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == start:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=256)
def _minutes(hours: int, minutes: int) -> tuple[int, ...]:
    return tuple(60 * hour + minute for hour in range(24) if hours >> hour & 1 for minute in range(60) if minutes >> minute & 1)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
