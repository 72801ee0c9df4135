"""Who wants which host and who has it: what the controller knows for the plans of DomainMappings."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from registry import domains
from registry.issuing import ACME, SECRET
from registry.mapping import Claim, MappingView, covered
from registry.objects import BY_KIND, DOMAIN_MAPPING
from registry.provision import Provision
from registry.view import Seen
from store import keys
from store.backend import Store
from store.model import Domain, Model
from store.watch import Table

Unit = tuple[str, str]
"""(project, host)."""


class Held(Model, frozen=True, kw_only=True):
    """A Secret as far as a mapping needs it: the names of its keys."""

    names: tuple[str, ...] = ()


class Hosts:
    """`dirty(unit)` is called for each mapping that a change concerns, `wake((project, name))` for whatever borrows from that name;
    `see` reads an API object by its key; `sized` is told how many bytes a Secret has, 0 when it is gone; `routes` are those that
    have a host."""

    def __init__(
        self, store: Store, dirty: Callable[[Unit], None], wake: Callable[[Unit], None], see: Callable[[str], Seen | None],
        sized: Callable[[str, int], None] = lambda key, size_bytes: None, routes: Callable[[str], Iterable[Unit]] = lambda host: (),
    ) -> None:  # fmt: skip
        self._dirty, self._wake, self._see, self._sized, self._routes = dirty, wake, see, sized, routes
        self._brought: dict[str, set[str]] = defaultdict(set)
        """By project, the keys of certificates that came from Secrets."""
        self._wanting: dict[str, dict[str, int]] = defaultdict(dict)
        """By host, the projects with a mapping of it and when each was made."""
        self.domains: Table[Domain] = Table(store, keys.DOMAINS, Domain, self._domain_changed)
        self.secrets: Table[Held] = Table(store, keys.SECRETS, Held, self._secret_changed)
        self.provisions: Table[Provision] = Table(
            store, keys.CERTIFICATES, Provision, self._provision_changed, slim=lambda whole: whole
        )

    def owned(self) -> set[Unit]:
        """Every host that has an owner."""
        return {(domain.project, keys.tail(key, keys.DOMAINS)[0]) for key, domain in self.domains.items()}

    def want(self, project: str, host: str, made_rev: int | None) -> None:
        """`project` has a mapping of `host`, made at this store_rev; None: it has none any more."""
        if made_rev is not None:
            self._wanting[host][project] = made_rev
        else:
            self._wanting[host].pop(project, None)
            self._dirty_host(host)

    def view(self, unit: Unit) -> MappingView:
        """Everything that the plan of a host's mapping needs."""
        project, host = unit
        mapping = self._see(keys.object_(DOMAIN_MAPPING.plural, project, host))
        over = {wildcard: self._claim(wildcard) for wildcard in domains.above(host)}
        may = {made: wanting for wanting, made in self._wanting.get(host, {}).items() if not covered(wanting, over)}
        view = MappingView(project, host, mapping, self._claim(host), over, may[min(may)] if may else "")
        if mapping is None:
            return view
        services = {}
        for kind, name in domains.references(mapping.obj):
            named = self._see(keys.object_(BY_KIND[kind].plural, project, name))
            if named is not None:
                services[kind, name] = named.obj
        secret = domains.secret_of(mapping.obj)
        held = self.secrets.get(keys.secret(project, secret)) if secret else None
        of_secret = frozenset(held.names) if held is not None else None
        return replace(view, services=services, secret_keys=of_secret, certificate=self.provision(project, host))

    def provision(self, project: str, host: str) -> Provision | None:
        """What is known of the certificate that `host` of `project` has or is to have: its own, else one of the project's Secrets."""
        brought = [self.provisions.get(key) for key in self._brought.get(project, ())]
        of_secret = next((each for each in brought if each is not None and each.not_after and each.covers(host)), None)
        return of_secret or self.provisions.get(keys.certificate(project, f"{ACME}:{host}"))

    def _provision_changed(self, key: str, new: Provision | None, old: Provision | None) -> None:
        project, name = keys.tail(key, keys.CERTIFICATES)
        source, _, host = name.partition(":")
        if source == SECRET:
            (self._brought[project].add if new is not None else self._brought[project].discard)(key)
            for each in [host for host in self._wanting if any(one and one.covers(host) for one in (new, old))]:
                self._tell_of(project, each)
        elif source == ACME:
            self._tell_of(project, host)

    def _tell_of(self, project: str, host: str) -> None:
        """Something is new about the certificate of `host`."""
        if project in self._wanting.get(host, ()):
            self._dirty((project, host))
        for unit in self._routes(host):
            self._dirty(unit)

    def _claim(self, host: str) -> Claim:
        entry = self.domains.entry(keys.domain(host))
        return Claim(self.domains.get(keys.domain(host)), entry.store_rev) if entry is not None else Claim()

    def _domain_changed(self, key: str, new: Domain | None, old: Domain | None) -> None:
        host = keys.tail(key, keys.DOMAINS)[0]
        for domain in (old, new):
            if domain is not None:
                self._dirty((domain.project, host))
        self._dirty_host(host)
        if host.startswith("*."):
            for below in [each for each in self._wanting if each.endswith(host[1:])]:
                self._dirty_host(below)

    def _dirty_host(self, host: str) -> None:
        """Whoever wants `host`."""
        for project in self._wanting.get(host, ()):
            self._dirty((project, host))
        if not self._wanting.get(host, True):
            del self._wanting[host]

    def _secret_changed(self, key: str, new: Held | None, old: Held | None) -> None:
        project, name = keys.tail(key, keys.SECRETS)
        entry = self.secrets.entry(key)
        self._sized(key, len(entry.value) if new is not None and entry is not None else 0)
        self._wake((project, f"secrets/{name}"))
