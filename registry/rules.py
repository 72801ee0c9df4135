"""The annotations that say more than shares: paths, tags by header, a mirror, sessions. Their names, what they allow, what they become."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from registry.problem import DNS_1035, Problems
from store.model import Mirror, PathRule

PATHS = "ebb.dev/paths"
TAG_HEADER = "ebb.dev/tag-header"
MIRROR = "ebb.dev/mirror"
AFFINITY = ("ebb.dev/session-affinity", "run.googleapis.com/sessionAffinity")
"""On a revision's template: Ebb's name and Cloud Run's."""
T = TypeVar("T")
MAX_PATHS, MAX_PREFIX = 50, 200
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+;:@%-]+)+")


def paths(text: str) -> list[PathRule]:
    """`/api=api /img=assets:strip`, by spaces, commas or lines, longest prefix first. Raises ValueError: what is allowed."""
    rules: dict[str, PathRule] = {}
    for word in text.replace(",", " ").split():
        prefix, equals, target = word.partition("=")
        prefix = prefix.rstrip("/")
        route, _, option = target.partition(":")
        if not equals or not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_PREFIX or "/../" in f"{prefix}/":
            raise ValueError(
                f"PREFIX=SERVICE with a prefix of whole segments such as /api, at most {MAX_PREFIX} characters; not {word!r}"
            )
        if not DNS_1035.fullmatch(route) or option not in ("", "strip"):
            raise ValueError(f"PREFIX=SERVICE, or PREFIX=SERVICE:strip to take the prefix off; not {word!r}")
        if prefix in rules:
            raise ValueError(f"each prefix once; {prefix!r} is given twice")
        rules[prefix] = PathRule(prefix=prefix, route=route, strip=option == "strip")
    if not 1 <= len(rules) <= MAX_PATHS:
        raise ValueError(f"1 to {MAX_PATHS} words like /api=SERVICE; the text has {len(rules)}")
    return sorted(rules.values(), key=lambda rule: (-len(rule.prefix), rule.prefix))


def mirror(text: str) -> Mirror:
    """`hello-00002=10`. Raises ValueError: what is allowed."""
    revision, _, percent = text.strip().partition("=")
    if not DNS_1035.fullmatch(revision) or not percent.isascii() or not percent.isdigit() or not 1 <= int(percent) <= 100:
        raise ValueError("REVISION=PERCENT, with a whole percent from 1 to 100")
    return Mirror(revision=revision, percent=int(percent))


def flag(text: str) -> bool:
    """Raises ValueError: what is allowed."""
    if text not in ("true", "false"):
        raise ValueError("true or false, in quotes")
    return text == "true"


_OF_ROUTES: dict[str, Callable[[str], Any]] = {PATHS: paths, TAG_HEADER: flag, MIRROR: mirror}
_OF_DOMAINS: dict[str, Callable[[str], Any]] = {PATHS: paths}
_OF_REVISIONS: dict[str, Callable[[str], Any]] = dict.fromkeys(AFFINITY, flag)


def check(problems: Problems, annotations: Any, path: str, *, of: str) -> None:
    """`of`: route, domain or revision. A rule in a place where it would do nothing is a fault too."""
    known = {"route": _OF_ROUTES, "domain": _OF_DOMAINS, "revision": _OF_REVISIONS}[of]
    for name, raw in annotations.items() if isinstance(annotations, Mapping) else ():
        where = f"{path}[{name}]"
        if name in known:
            try:
                known[name](raw if isinstance(raw, str) else "")
            except ValueError as error:
                problems.bad(where, raw, str(error))
        elif name in _OF_ROUTES:
            problems.forbid(
                where, f"is an annotation of {'a Service or Route' if name != PATHS else 'a Service, Route or DomainMapping'}"
            )
        elif name in AFFINITY[:1]:
            problems.forbid(where, "sessions are kept per revision: put it under spec.template.metadata.annotations")


def paths_of(annotations: Mapping[str, str]) -> list[PathRule]:
    """Of valid annotations; of others none."""
    return _read(annotations, PATHS, paths, [])


def mirror_of(annotations: Mapping[str, str]) -> Mirror | None:
    parse: Callable[[str], Mirror | None] = mirror
    return _read(annotations, MIRROR, parse, None)


def tag_header(annotations: Mapping[str, str], *, default: bool) -> bool:
    """Whether a header may name a tag: what the route says, else what the operator does."""
    return _read(annotations, TAG_HEADER, flag, default)


def session_affinity(annotations: Mapping[str, str]) -> bool:
    return any(_read(annotations, name, flag, False) for name in AFFINITY)


def _read(annotations: Mapping[str, str], name: str, parse: Callable[[str], T], otherwise: T) -> T:
    try:
        return parse(annotations[name]) if name in annotations else otherwise
    except ValueError:
        return otherwise
