"""What is wrong with an object: one `Problem` a fault, and the checkers that find them all at once.

A checker is called as `checker(problems, value, path)`; it adds to `problems` and never raises, whatever JSON it is given.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INVALID = "FieldValueInvalid"
REQUIRED = "FieldValueRequired"
DUPLICATE = "FieldValueDuplicate"
NOT_SUPPORTED = "FieldValueNotSupported"
FORBIDDEN = "FieldValueForbidden"

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
"""Keys of Secrets and ConfigMaps."""
_QUALIFIED = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. `path` is the field, `message` says what was got and what is allowed."""

    path: str
    message: str
    reason: str = INVALID

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Problems(list[Problem]):
    """All that is wrong with one object."""

    def bad(self, path: str, got: object, allowed: str, reason: str = INVALID) -> None:
        """`path` holds `got`, but only `allowed` is."""
        self.append(Problem(path, f"got {show(got)}; allowed: {allowed}", reason))

    def missing(self, path: str, allowed: str) -> None:
        self.append(Problem(path, f"is required; allowed: {allowed}", REQUIRED))

    def forbid(self, path: str, why: str) -> None:
        self.append(Problem(path, why, FORBIDDEN))

    def twice(self, path: str, got: object) -> None:
        self.append(Problem(path, f"{show(got)} is given twice; allowed: once", DUPLICATE))


Checker = Callable[[Problems, Any, str], None]


def show(value: object) -> str:
    """A value for a message: quoted, and cut when it is long."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {_json_name(value)}"
    return text if len(text) <= 80 else text[:77] + "…"


def _json_name(value: object) -> str:
    return {dict: "mapping", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}.get(
        type(value), type(value).__name__
    )


def closest(word: str, known: Iterable[str]) -> str:
    """` (did you mean x?)` when something known is near, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if not near:
        near = [k for k in known if k.lower() == word.lower()][:1]
    return f" (did you mean {near[0]!r}?)" if near else ""


def integer(low: int, high: int | None = None) -> Checker:
    allowed = f"a whole number from {low} to {high}" if high is not None else f"a whole number of at least {low}"

    def check(problems: Problems, value: Any, path: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            problems.bad(path, value, allowed)

    return check


def boolean(problems: Problems, value: Any, path: str) -> None:
    if not isinstance(value, bool):
        problems.bad(path, value, "true or false")


def text(problems: Problems, value: Any, path: str) -> None:
    if not isinstance(value, str):
        problems.bad(path, value, "a string")
    elif "\0" in value:
        problems.bad(path, value, "a string without NUL bytes")


def matching(pattern: re.Pattern[str], allowed: str, max_length: int = 63) -> Checker:
    def check(problems: Problems, value: Any, path: str) -> None:
        if not isinstance(value, str) or len(value) > max_length or not pattern.fullmatch(value):
            problems.bad(path, value, f"{allowed}, at most {max_length} characters")

    return check


def one_of(*values: str) -> Checker:
    def check(problems: Problems, value: Any, path: str) -> None:
        if value not in values:
            hint = closest(value, values) if isinstance(value, str) else ""
            problems.bad(path, value, " or ".join(values) + hint, NOT_SUPPORTED)

    return check


def list_of(item: Checker, most: int = 1000) -> Checker:
    def check(problems: Problems, value: Any, path: str) -> None:
        if not isinstance(value, list):
            problems.bad(path, value, "a list")
            return
        if len(value) > most:
            problems.bad(path, f"{len(value)} items", f"at most {most}")
        for index, element in enumerate(value[:most]):
            item(problems, element, f"{path}[{index}]")

    return check


def mapping(
    known: Mapping[str, Checker], unsupported: Mapping[str, str] | None = None, required: tuple[str, ...] = ()
) -> Checker:
    """An object with exactly these fields. `unsupported` are fields of Kubernetes that do not exist here, with the reason."""
    refused = unsupported or {}

    def check(problems: Problems, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            problems.bad(path, value, f"a mapping with {', '.join(known)}")
            return
        for name, field in value.items():
            where = f"{path}.{name}" if path else str(name)
            if name in known:
                known[name](problems, field, where)
            elif name in refused:
                problems.forbid(where, f"is not supported: {refused[name]}")
            else:
                problems.append(Problem(where, f"unknown field{closest(str(name), known)}; known: {', '.join(known)}"))
        for name in required:
            if name not in value:
                problems.missing(f"{path}.{name}" if path else name, "see the API reference")

    return check


def string_map(problems: Problems, value: Any, path: str) -> None:
    """Annotations: qualified keys, any strings; 256 KiB in all."""
    if not isinstance(value, dict):
        problems.bad(path, value, "a mapping of strings")
        return
    total = 0
    for name, item in value.items():
        _qualified(problems, name, path)
        if not isinstance(item, str):
            problems.bad(f"{path}[{name}]", item, "a string (put numbers and true/false in quotes)")
        else:
            total += len(name) + len(item)
    if total > 262_144:
        problems.bad(path, f"{total} bytes", "at most 262144 bytes in all")


def label_map(problems: Problems, value: Any, path: str) -> None:
    if not isinstance(value, dict):
        problems.bad(path, value, "a mapping of strings")
        return
    for name, item in value.items():
        _qualified(problems, name, path)
        if not isinstance(item, str) or not _LABEL_VALUE.fullmatch(item):
            problems.bad(f"{path}[{name}]", item, "letters, digits, '-', '_', '.', at most 63 characters")


def _qualified(problems: Problems, name: Any, path: str) -> None:
    prefix, slash, tail = str(name).rpartition("/")
    if not _QUALIFIED.fullmatch(tail) or (slash and not DNS_SUBDOMAIN.fullmatch(prefix)) or len(prefix) > 253:
        problems.bad(path, name, "keys like `name` or `example.org/name`, name at most 63 of letters, digits, '-', '_', '.'")
