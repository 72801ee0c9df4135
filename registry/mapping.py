"""One host and one project's wish to have it → who owns it and where it leads. Pure; computed from the whole view each time.

The claim is the key `domains/<host>`, which the ingress follows: written under the guard that nobody has it, so of two who want it at
once one gets it. It is let go when the owner's DomainMapping is gone, and then goes to who has waited longest. Below a wildcard only
its owner's project can claim; who was there before the wildcard stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from process.clock import rfc3339
from registry import conditions, domains, objects, rules, statuses
from registry.bounds import Bounds, Naming
from registry.conditions import FALSE, TRUE, UNKNOWN, condition
from registry.issuing import public
from registry.objects import DOMAIN_MAPPING, Object
from registry.plan import Plan
from registry.provision import Provision, provisioned
from registry.view import Seen
from store import keys
from store.model import Domain, encode
from store.txn import Delete, Guard, Put, Txn

TLS_KEYS = frozenset(("tls.crt", "tls.key"))


@dataclass(frozen=True, slots=True)
class Claim:
    """What is at `domains/<host>`; `store_rev` 0 and no domain: nothing."""

    domain: Domain | None = None
    store_rev: int = 0

    @property
    def owner(self) -> str:
        return self.domain.project if self.domain is not None else ""


@dataclass(frozen=True, slots=True)
class MappingView:
    """A DomainMapping (or what is left of one) with all that decides on it."""

    project: str
    host: str
    mapping: Seen | None = None
    claim: Claim = Claim()
    over: Mapping[str, Claim] = field(default_factory=dict)
    """Every wildcard that would stand for the host too."""
    heir: str = ""
    """The project that has waited longest of those that may have the host."""
    services: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    """The Services and Routes of the project that it refers to, by kind and name."""
    secret_keys: frozenset[str] | None = None
    """Names of the keys of the Secret that it names; None: there is none."""
    certificate: Provision | None = None
    """The host's, where no Secret is named; None: there is none."""

    @property
    def mine(self) -> bool:
        return self.claim.owner == self.project


def covered(project: str, over: Mapping[str, Claim]) -> str:
    """The wildcard of another project that stands in the way, or an empty string."""
    return next((host for host, claim in over.items() if claim.owner not in ("", project)), "")


def plan_mapping(view: MappingView, naming: Naming, bounds: Bounds, now: float) -> Plan:
    """What to write so that the host belongs to whom it should and the mapping says so. `now` is wall seconds."""
    key, why = keys.domain(view.host), f"domain {view.host} of {view.project}"
    object_key = keys.object_(DOMAIN_MAPPING.plural, view.project, view.host)
    if view.mapping is None:
        gone = (Guard(object_key, 0), Guard(key, view.claim.store_rev))
        return Plan((Txn(gone, (Delete(key),), why=why),), urgent=True) if view.mine else Plan()
    obj = view.mapping.obj
    claimed, wanted = _claim(view, bounds)
    found = [claimed, _reference(view), _certificate(view, bounds, now)]
    certified = view.certificate is not None and view.certificate.not_after > now
    url = naming.url(view.host, secure=bool(domains.secret_of(obj)) or certified)
    after = statuses.domain_mapping(obj, url, [*found, conditions.ready(found)], rfc3339(now))
    guards, writes = [Guard(object_key, view.mapping.store_rev)], list[Put | Delete]()
    if after != obj:
        writes.append(Put(object_key, msgspec.json.encode(after)))
    if wanted is None and view.mine:
        writes.append(Delete(key))
    elif wanted is not None and wanted != view.claim.domain:
        writes.append(Put(key, encode(wanted)))
    if not writes:
        return Plan()
    guards.append(Guard(key, view.claim.store_rev))
    if not view.mine:
        guards += [Guard(keys.domain(host), claim.store_rev) for host, claim in view.over.items()]
    return Plan((Txn(tuple(guards), tuple(writes), why=why),), urgent=True)


def _claim(view: MappingView, bounds: Bounds) -> tuple[Object, Domain | None]:
    """The DomainClaimed condition, and what shall be at the host's key when it is ours."""
    assert view.mapping is not None
    spec = view.mapping.obj["spec"]
    if problem := domains.host_problem(view.host, bounds.own_domains):
        said = f"{view.host!r} cannot be mapped; allowed: {problem}"
        return condition("DomainClaimed", FALSE, "DomainNotAllowed", said), None
    if not view.mine:
        said = ""
        if view.claim.owner or view.heir != view.project:
            said = f"the domain {view.host!r} belongs to another project; it comes here by itself once that lets go of it"
        if wildcard := covered(view.project, view.over):
            said = f"the domain {view.host!r} is below {wildcard!r}, which belongs to another project"
        if said:
            return condition("DomainClaimed", FALSE, "DomainAlreadyClaimed", said), None
    obj = view.mapping.obj
    paths = rules.paths_of(objects.annotations_of(obj))
    wanted = Domain(project=view.project, route=spec["ref"]["name"], secret=domains.secret_of(obj), paths=paths)
    return condition("DomainClaimed", TRUE), wanted


def _reference(view: MappingView) -> Object:
    """Whether what the mapping leads to is there."""
    assert view.mapping is not None
    for kind, name in domains.references(view.mapping.obj):
        found = view.services.get((kind, name))
        if found is None:
            said = f"{kind} {name!r} does not exist in project {view.project!r}; deploy it, or name another"
            return condition("ReferenceResolved", FALSE, "ReferenceNotFound", said)
        if not found.get("status", {}).get("url"):
            return condition("ReferenceResolved", UNKNOWN, "ReferenceNotReady", f"{kind} {name!r} has no URL yet")
    return condition("ReferenceResolved", TRUE)


def _certificate(view: MappingView, bounds: Bounds, now: float) -> Object:
    """Whether there is the certificate that was asked for."""
    assert view.mapping is not None
    secret = domains.secret_of(view.mapping.obj)
    if not secret and view.certificate is not None:
        return provisioned(view.host, view.certificate, now)
    if not secret and bounds.acme and public(view.host):
        return provisioned(view.host, None, now)
    if not secret:
        return condition("CertificateProvisioned", TRUE, "TLSNotEnabled", "no certificate was asked for: spec.tls is not set")
    if view.secret_keys is None:
        said = f"Secret {secret!r} does not exist in project {view.project!r}; make it of type kubernetes.io/tls"
        return condition("CertificateProvisioned", FALSE, "SecretNotFound", said)
    if missing := sorted(TLS_KEYS - view.secret_keys):
        said = f"Secret {secret!r} has no {' and no '.join(missing)}; a certificate has tls.crt and tls.key"
        return condition("CertificateProvisioned", FALSE, "SecretNotTLS", said)
    return condition("CertificateProvisioned", TRUE)
