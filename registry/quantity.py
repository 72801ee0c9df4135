"""Quantities and durations as people write them: `250m`, `512Mi`, `1m30s`."""

import math
import re
from decimal import Decimal, InvalidOperation

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,2})|(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?")
_FACTORS: dict[str, Decimal] = {
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(["k", "M", "G", "T", "P", "E"], start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], start=1)},
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity as a number. Raises ValueError when it is none."""
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= 32 else None
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, exponent, suffix = match.groups()
    try:
        value = Decimal(number)
    except InvalidOperation as error:
        raise ValueError(f"not a quantity: {text!r}") from error
    if exponent:
        return value.scaleb(int(exponent))
    return value * _FACTORS[suffix] if suffix else value


def milli_cores(text: str) -> int:
    """CPU in milli-cores, rounded up. Raises ValueError."""
    return math.ceil(quantity(text) * 1000)


def byte_count(text: str) -> int:
    """Memory in bytes, rounded up. Raises ValueError."""
    return math.ceil(quantity(text))


def duration_s(text: str) -> float:
    """A Go duration (`90s`, `1m30s`, `500ms`, `0`) in seconds. Raises ValueError when it is none or negative."""
    if text == "0":
        return 0.0
    total, position = 0.0, 0
    for match in _DURATION.finditer(text):
        if match.start() != position:
            break
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if position != len(text) or not text:
        raise ValueError(f"not a duration: {text!r}")
    return total
