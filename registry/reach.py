"""The annotations that say who reaches a service and whom its instances reach: names, what they allow, what they become. Pure."""

from collections.abc import Mapping
from typing import Any

from registry.problem import Problems
from store import egress

EGRESS = "ebb.dev/egress"
"""On a revision's template."""


def check_revision(problems: Problems, annotations: Mapping[str, Any], path: str) -> None:
    """What a revision's template says of where its instances may connect to."""
    if EGRESS not in annotations:
        return
    said = annotations[EGRESS]
    try:
        egress.parse(said if isinstance(said, str) else "")
    except ValueError as error:
        problems.bad(f"{path}[{EGRESS}]", said, str(error))


def egress_of(annotations: Mapping[str, str]) -> str:
    """`Revision.egress` of a valid template, in its own spelling."""
    try:
        return str(egress.parse(annotations[EGRESS])) if EGRESS in annotations else ""
    except ValueError:
        return str(egress.NONE)
