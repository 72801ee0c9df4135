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

SECRET, ACME, LOCAL = "secret", "acme", "local"
RENEW_AT = 2 / 3
"""Of a certificate's lifetime."""
JITTER = 0.05
"""How much of its lifetime one certificate is renewed before or after another of the same age, at most."""
LOOK_AGAIN_MOST_S = 3600.0
FIRST_RETRY_S = 300.0
"""After an order failed; doubled for each failure in a row, up to LAST_RETRY_S. Public authorities take 5 failures an hour for a host."""
LAST_RETRY_S = 43_200.0
_NOT_PUBLIC = frozenset(("localhost", "local", "internal", "test", "example", "invalid", "lan", "home", "arpa", "onion"))
MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class View:
    """What decides. `secrets`: (project, name) of those of type kubernetes.io/tls → their store_rev."""

    certificates: Mapping[str, Certificate]
    """By key."""
    secrets: Mapping[tuple[str, str], int] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    """What ACME may be asked for: host → its project. Empty: there is no ACME."""
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
class Order:
    """Ask ACME for a certificate of `host`."""

    project: str
    host: str

    @property
    def name(self) -> str:
        return f"{ACME}:{self.host}"


@dataclass(frozen=True, slots=True)
class Reseal:
    """Seal the private key at `key` anew: the newest key of the key file is another."""

    key: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete what is at `key`: nothing asks for it any more."""

    key: str


Step = Copy | Issue | Order | Reseal | Drop


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
    for order in _orders(view, now):
        key = keys.certificate(order.project, order.name)
        wanted.add(key)
        due_s = _order_at(view.certificates.get(key)) - now
        if due_s <= 0:
            steps.append(order)
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


def retry_s(attempts: int, text: str) -> float:
    """How long after the `attempts`th failure in a row; `text` spreads those that failed together."""
    wait_s = min(FIRST_RETRY_S * 2.0 ** min(attempts - 1, 20), LAST_RETRY_S)
    return wait_s * (1 + 2 * JITTER * _spread(text))


def public(host: str) -> bool:
    """Whether an authority of the world can know `host`: a name of several labels, no wildcard, none of the reserved endings."""
    labels = host.split(".")
    return (
        len(labels) > 1 and labels[0] != "*" and labels[-1] not in _NOT_PUBLIC and not labels[-1].isdigit() and ":" not in host
    )


def _orders(view: View, now: float) -> list[Order]:
    brought = [c for c in view.certificates.values() if c.source == SECRET and c.chain and now < c.not_after]
    return [
        Order(project, host)
        for host, project in sorted(view.hosts.items())
        if public(host) and not any(c.project == project and c.covers(host) for c in brought)
    ]


def _order_at(known: Certificate | None) -> float:
    if known is None:
        return 0
    return known.retry_at if known.problem else renew_at(known)


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
