"""The annotation `ebb.dev/schedule`: at least so many instances, from times given as cron does, for so long.

    0 8 * * 1-5 Europe/Berlin min=3 for=10h
    30 6 1 * * min=1 for=2h; 0 12 * * * UTC min=5 for=30m

Five fields (minute, hour, day of the month, month, day of the week; `*`, `5`, `1-5`, `1,15`, `*/10`; Sunday is 0 or 7), a time zone
(UTC when there is none), `min=` and `for=`; several are separated by `;`. With both days given either of them matches, as in cron.
"""

from zoneinfo import ZoneInfo

from registry.quantity import duration_s
from store.scaling import Schedule

MOST = 10
"""Schedules of one revision."""
LONGEST_S = 7 * 86_400.0
LARGEST = 100_000
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_ALLOWED = (
    'like "0 8 * * 1-5 Europe/Berlin min=3 for=10h": five fields as in cron, a time zone, min= and for=; several with `;`'
)


def parse(text: str) -> list[Schedule]:
    """The schedules in `text`. Raises ValueError whose text says what is allowed."""
    parts = [part.strip() for part in text.replace("\n", ";").split(";") if part.strip()]
    if not 1 <= len(parts) <= MOST:
        raise ValueError(f"1 to {MOST} schedules, {_ALLOWED}")
    return [_one(part) for part in parts]


def _one(text: str) -> Schedule:
    words = text.split()
    if len(words) < 5:
        raise ValueError(_ALLOWED)
    masks = [_mask(word, *field) for word, field in zip(words[:5], _FIELDS, strict=True)]
    weekdays = masks[4] & 0x7F | masks[4] >> 7
    zone, least, for_s = "UTC", -1, 0.0
    for word in words[5:]:
        name, equals, value = word.partition("=")
        if not equals:
            zone = _zone(word)
        elif name == "min" and value.isdecimal() and 1 <= int(value) <= LARGEST:
            least = int(value)
        elif name == "for":
            for_s = _length(value)
        else:
            raise ValueError(f"min= a whole number from 1 to {LARGEST}, and for= a duration, {_ALLOWED}; {word!r} is neither")
    if least < 0 or not for_s:
        raise ValueError(f"both min= and for=, {_ALLOWED}")
    return Schedule(
        minutes=masks[0], hours=masks[1], days=masks[2], months=masks[3], weekdays=weekdays, zone=zone, min_scale=least,
        for_s=for_s, any_day=words[2] != "*" and words[4] != "*",
    )  # fmt: skip


def _mask(text: str, name: str, low: int, high: int) -> int:
    """The numbers of one field as bits."""
    found = 0
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = ("*", "", "") if span == "*" else span.partition("-")
        begin, end = (str(low), str(high)) if first == "*" else (first, last if dash else str(high) if slash else first)
        if not (begin.isdecimal() and end.isdecimal() and (step.isdecimal() or not slash)):
            raise ValueError(f"{name}: *, numbers, spans (1-5), lists (1,15) and steps (*/10); {part!r} is none of them")
        by = int(step) if slash else 1
        if not low <= int(begin) <= int(end) <= high or by < 1:
            raise ValueError(f"{name}: from {low} to {high}, the smaller first; {part!r} is not")
        for number in range(int(begin), int(end) + 1, by):
            found |= 1 << number
    return found


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"a time zone like Europe/Berlin or UTC; {name!r} is none that this machine knows") from None
    return name


def _length(text: str) -> float:
    try:
        for_s = duration_s(text)
    except ValueError:
        for_s = 0.0
    if not 60 <= for_s <= LONGEST_S:
        raise ValueError(f"for= a duration from 1m to {LONGEST_S / 3600:g}h, like 10h or 1h30m; {text!r} is not")
    return for_s
