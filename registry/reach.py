"""The annotations that say who reaches a service and whom its instances reach: names, what they allow, what they become. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from registry import objects
from registry.objects import Object
from registry.problem import Problems
from store import egress
from store.model import Access

EGRESS = "ebb.dev/egress"
"""On a revision's template."""
INGRESS = ("ebb.dev/ingress", "run.googleapis.com/ingress")
"""On a Service or Route: Ebb's name and Cloud Run's. Knative says `internal` by its label for visibility."""
UNAUTHENTICATED = ("ebb.dev/allow-unauthenticated", "run.googleapis.com/invoker-iam-disabled")
INVOKERS = "ebb.dev/invokers"
RATE = "ebb.dev/requests-per-second"
ALL, INTERNAL, NONE = "all", "internal", "none"
RATE_MOST = 1_000_000.0
INVOKERS_MOST = 200
PRINCIPAL = re.compile(r"allUsers|(user|robot):[a-z0-9][a-z0-9._@+-]{0,126}|service:[a-z0-9-]{1,63}/[a-z0-9-]{1,63}")
_OF_SERVICES = (*INGRESS, *UNAUTHENTICATED, INVOKERS, RATE)


def check_revision(problems: Problems, annotations: Mapping[str, Any], path: str) -> None:
    """What a revision's template says of where its instances may connect to."""
    for name in _OF_SERVICES:
        if name in annotations and name.startswith("ebb.dev/"):
            problems.forbid(f"{path}[{name}]", "belongs to the service, not to a revision: put it under metadata.annotations")
    if EGRESS not in annotations:
        return
    said = annotations[EGRESS]
    try:
        egress.parse(said if isinstance(said, str) else "")
    except ValueError as error:
        problems.bad(f"{path}[{EGRESS}]", said, str(error))


def check_route(problems: Problems, obj: Object, path: str) -> None:
    """What a Service or Route says of who may call it."""
    notes = objects.annotations_of(obj)
    for name in INGRESS:
        if notes.get(name, ALL) not in (ALL, INTERNAL, NONE):
            problems.bad(f"{path}[{name}]", notes[name], "all, internal or none")
    for name in UNAUTHENTICATED:
        if notes.get(name, "true") not in ("true", "false"):
            problems.bad(f"{path}[{name}]", notes[name], '"true" or "false"')
    if INVOKERS in notes and _invokers(notes[INVOKERS]) is None:
        want = f"principals such as user:ana, robot:ci, service:PROJECT/SERVICE, with commas, at most {INVOKERS_MOST}"
        problems.bad(f"{path}[{INVOKERS}]", notes[INVOKERS], want)
    if RATE in notes and _rate(notes[RATE]) is None:
        problems.bad(f"{path}[{RATE}]", notes[RATE], f"a number above 0, at most {RATE_MOST:g}")
    if EGRESS in notes:
        problems.forbid(f"{path}[{EGRESS}]", "is set per revision: put it under spec.template.metadata.annotations")
    if objects.ANNOTATION_TCP_PORT in notes and (ingress_of(obj) != ALL or _private(notes)):
        what = "raw TCP has no host and no tokens: such a service is reached by everybody, or has no port"
        problems.forbid(f"{path}[{objects.ANNOTATION_TCP_PORT}]", what)


def egress_of(annotations: Mapping[str, str]) -> str:
    """`Revision.egress` of a valid template, in its own spelling."""
    try:
        return str(egress.parse(annotations[EGRESS])) if EGRESS in annotations else ""
    except ValueError:
        return str(egress.NONE)


def ingress_of(obj: Object) -> str:
    """By which door a Service or Route is reached: the narrowest of what is said."""
    said = {objects.annotations_of(obj).get(name, ALL) for name in INGRESS}
    if objects.labels_of(obj).get(objects.LABEL_VISIBILITY) == "cluster-local":
        said.add(INTERNAL)
    return NONE if NONE in said else INTERNAL if said != {ALL} else ALL


def access_of(obj: Object) -> Access | None:
    """What the front door must ask of who calls; None: nothing is said."""
    notes = objects.annotations_of(obj)
    made = Access(
        ingress=ingress_of(obj),
        private=_private(notes),
        invokers=_invokers(notes.get(INVOKERS, "")) or [],
        requests_per_s=_rate(notes[RATE]) or 0 if RATE in notes else 0,
    )
    return made if made != Access() else None


def _private(notes: Mapping[str, str]) -> bool | None:
    said = [notes[name] for name in UNAUTHENTICATED if name in notes]
    return "false" in said if said else None


def _invokers(text: str) -> list[str] | None:
    words = [word.strip() for word in text.split(",") if word.strip()]
    fits = len(words) <= INVOKERS_MOST and all(PRINCIPAL.fullmatch(word) for word in words)
    return sorted(set(words)) if fits else None


def _rate(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 < found <= RATE_MOST else None
