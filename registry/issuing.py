"""Which certificates there shall be, and what is to be done about it now. Pure; computed from the whole view each time.

a Secret of type kubernetes.io/tls  →  secret:<its name>     as it is, for the hosts that it names
a project                           →  local:<project>       `*.<project>.<domain>`, by the local authority
this engine                         →  local:engine          for who asks for no name, or for this machine
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from store import keys
from store.certificates import ENGINE, Certificate
from store.seal import key_of

SECRET, LOCAL = "secret", "local"
RENEW_AT = 2 / 3
"""Of a certificate's lifetime."""
JITTER = 0.05
"""How much of its lifetime one certificate is renewed before or after another of the same age, at most."""
LOOK_AGAIN_MOST_S = 3600.0
MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class View:
    """What decides. `secrets`: (project, name) of those of type kubernetes.io/tls → their store_rev."""

    certificates: Mapping[str, Certificate]
    """By key."""
    secrets: Mapping[tuple[str, str], int] = field(default_factory=dict)
    projects: frozenset[str] = frozenset()
    """All that have something."""
    domain: str = "localhost"
    authority: str = ""
    """Which local authority there is; empty: none."""
    sealed_with: str = ""
    """The id of the key that seals."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Take over the certificate of a Secret as it was at `store_rev`."""

    project: str
    secret: str
    store_rev: int


@dataclass(frozen=True, slots=True)
class Issue:
    """Let the local authority sign for `hosts`."""

    project: str
    name: str
    hosts: tuple[str, ...]
    made_from: str


@dataclass(frozen=True, slots=True)
class Reseal:
    """Seal the private key at `key` anew: the newest key of the key file is another."""

    key: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete what is at `key`: nothing asks for it any more."""

    key: str


Step = Copy | Issue | Reseal | Drop


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[Step, ...] = ()
    look_again_s: float = LOOK_AGAIN_MOST_S


def plan(view: View, now: float) -> Plan:
    """`now` is wall seconds."""
    steps: list[Step] = []
    wanted: set[str] = set()
    next_s = LOOK_AGAIN_MOST_S
    for (project, secret), store_rev in view.secrets.items():
        key = keys.certificate(project, f"{SECRET}:{secret}")
        wanted.add(key)
        known = view.certificates.get(key)
        if known is None or known.made_from != str(store_rev):
            steps.append(Copy(project, secret, store_rev))
    for issue in _issues(view):
        key = keys.certificate(issue.project, issue.name)
        wanted.add(key)
        known = view.certificates.get(key)
        due_s = renew_at(known) - now if known is not None and known.made_from == issue.made_from else 0
        if due_s <= 0:
            steps.append(issue)
        else:
            next_s = min(next_s, due_s)
    for key, known in view.certificates.items():
        if key not in wanted:
            steps.append(Drop(key))
        elif known.key and view.sealed_with and key_of(known.key) != view.sealed_with:
            steps.append(Reseal(key))
    return Plan(tuple(steps), next_s)


def renew_at(certificate: Certificate) -> float:
    """When it should be replaced, wall seconds: at two thirds of its life, and not all of one age at once."""
    life_s = certificate.not_after - certificate.not_before
    return certificate.not_before + life_s * (RENEW_AT + JITTER * _spread(certificate.bound_to))


def _issues(view: View) -> list[Issue]:
    if not view.authority:
        return []
    own = MACHINE if view.domain == "localhost" else (*MACHINE, view.domain)
    found = [_issue(view, ENGINE, "engine", own)]
    return found + [_issue(view, each, each, (f"*.{each}.{view.domain}",)) for each in sorted(view.projects)]


def _issue(view: View, project: str, name: str, hosts: tuple[str, ...]) -> Issue:
    return Issue(project, f"{LOCAL}:{name}", hosts, f"{view.authority} {' '.join(hosts)}")


def _spread(text: str) -> float:
    """The same number in [-1, 1) for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**31 - 1
