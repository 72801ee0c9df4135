"""Label and field selectors of lists and watches."""

import re
from collections.abc import Callable

from registry import objects
from registry.api.problems import bad_request
from registry.objects import Object

Matches = Callable[[Object], bool]

_SET = re.compile(r"\s*([^\s,!=()]+)\s+(in|notin)\s*\(([^()]*)\)\s*(?:,|$)")
_EQUAL = re.compile(r"\s*([^\s,!=()]+)\s*(==|=|!=)\s*([^\s,!=()]*)\s*(?:,|$)")
_EXISTS = re.compile(r"\s*(!?)\s*([^\s,!=()]+)\s*(?:,|$)")


def labels(selector: str) -> Matches:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k` as a test. Raises ApiError 400 where it cannot be read."""
    tests: list[Matches] = []
    position = 0
    while position < len(selector):
        if match := _SET.match(selector, position):
            values = {value.strip() for value in match[3].split(",")}
            tests.append(_one_of(match[1], values, match[2] == "in"))
        elif match := _EQUAL.match(selector, position):
            tests.append(_one_of(match[1], {match[3]}, match[2] != "!="))
        elif match := _EXISTS.match(selector, position):
            tests.append(_exists(match[2], not match[1]))
        else:
            raise bad_request(
                f"labelSelector {selector!r} cannot be read at {selector[position:]!r}; like a=b,c!=d,e in (f,g),!h"
            )
        position = match.end()
    return lambda obj: all(test(obj) for test in tests)


def _one_of(name: str, values: set[str], wanted: bool) -> Matches:
    """A label that is absent counts as different from every value."""
    return lambda obj: (objects.labels_of(obj).get(name) in values) == wanted


def _exists(name: str, wanted: bool) -> Matches:
    return lambda obj: (name in objects.labels_of(obj)) == wanted


def name_field(selector: str) -> tuple[str, str]:
    """(name, namespace) that a fieldSelector asks for, empty when any will do. Raises ApiError 400 for other fields."""
    found = {"metadata.name": "", "metadata.namespace": ""}
    for part in filter(None, selector.split(",")):
        field, equals, value = part.replace("==", "=").partition("=")
        if not equals or field.strip() not in found or field.endswith("!"):
            raise bad_request(f"fieldSelector {part!r} is not supported; allowed: metadata.name=… and metadata.namespace=…")
        found[field.strip()] = value.strip()
    return found["metadata.name"], found["metadata.namespace"]
