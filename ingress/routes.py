"""Host or port → Split. A route's hosts change together, between two requests, so that one request sees one version of its route.

A route's own host (or port) belongs to the first route that claims it; when that lets go, the one that waits longest takes over. A
host of the world's (a domain) is owned by whom the registry says; it follows its route by name, so it has that route's shares at any
moment. An exact host comes before a wildcard, and the nearest wildcard before one further up.
"""

from collections.abc import Callable, Iterable

from ingress.detour import Detour
from ingress.guard import LOCAL, Guards, inner_only
from ingress.hosts import canonical
from ingress.limits import HOST_MEMO_MOST
from ingress.rules import Paths, split_of
from ingress.traffic import Choice, Split
from store import keys
from store.model import Domain, PathRule, RevisionKey, RouteEntry, decode, encode
from store.projects import Project


class Routes:
    """All routes of this front door."""

    def __init__(self) -> None:
        self.on_put: Callable[[], None] | None = None
        """Called after a route or domain was put."""
        self.on_ports: Callable[[], None] | None = None
        """Called after the keys of `ports` may have changed."""
        self.ports: dict[int, Split] = {}
        """Ports of services that speak raw TCP."""
        self.memo: dict[bytes, Split] = {}
        """Host as it was spelt → Split; emptied when any route changes."""
        self._hosts: dict[str, Split] = {}
        self._owners: dict[str, str] = {}
        self._stored: dict[str, bytes] = {}
        """Routes as they are stored: a third of the memory, and read where a host is not in `memo`."""
        self._contested: dict[str, list[str]] = {}
        self._domains: dict[str, Domain] = {}
        self._proofs: dict[str, dict[str, str]] = {}
        self.guards: Guards | None = None
        """Makes what stands before routes that not everybody may call."""
        self.https_port = 0
        """Where clients find TLS; 0: nowhere, and nobody is redirected."""
        self._named: dict[RevisionKey, int] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def names(self, revision: RevisionKey) -> bool:
        """Whether some route names `revision`, with a share or none."""
        return revision in self._named

    def _count(self, entry: RouteEntry | None, step: int) -> None:
        if entry is None:
            return
        for name in entry.limits:
            revision = f"{entry.project}/{name}"
            self._named[revision] = self._named.get(revision, 0) + step
            if not self._named[revision]:
                del self._named[revision]

    def find(self, host: bytes) -> Split | None:
        """The Split of a well-formed `host`; None: no route."""
        found = self.memo.get(host)
        if found is None:
            name = canonical(host)
            found = self._hosts.get(name)
            found = self._mapped(name) if found is None else self._with_paths(found, self._owners[name], name)
            found = self._detoured(name, found)
            if found is not None:
                if len(self.memo) >= HOST_MEMO_MOST:
                    self.memo.clear()
                self.memo[host] = found
        return found

    def prove(self, host: str, token: str, answer: str | None) -> None:
        """ACME asks `host` for `token`, and this is the answer; None: it asks no more."""
        self.memo.clear()
        if answer is not None:
            self._proofs.setdefault(host, {})[token] = answer
        else:
            self._proofs.get(host, {}).pop(token, None)
            if not self._proofs.get(host, True):
                del self._proofs[host]

    def _detoured(self, host: str, found: Split | None) -> Split | None:
        """`found`, or what stands before it: a proof that is asked for, a redirect to TLS."""
        port = self.https_port if self.https_port and self._redirects(host) else 0
        proofs = self._proofs.get(host, {})
        return Detour(found, proofs, port) if port or proofs else found

    def _redirects(self, host: str) -> bool:
        key, domain = self._owners.get(host, ""), self._domain(host)
        if not key and domain is not None:
            key = keys.route(domain.project, domain.route)
        entry = self._entry(key)
        return entry is not None and entry.redirects

    def _domain(self, host: str) -> Domain | None:
        """The domain of `host`, or the nearest wildcard above it."""
        domain = self._domains.get(host)
        while domain is None and host and self._domains:
            host = host.partition(".")[2]
            domain = self._domains.get(f"*.{host}")
        return domain

    def _mapped(self, host: str) -> Split | None:
        """What the domain of `host` leads to."""
        domain = self._domain(host)
        if domain is None:
            return self._local(host)
        entry = self._entry(keys.route(domain.project, domain.route))
        own, paths = self._own(domain.project, domain.route), domain.paths or (entry.paths if entry is not None else [])
        return self._by_path(domain.project, own, paths) if paths else own

    def _local(self, host: str) -> Split | None:
        """What instances reach as `<service>.<project>.svc.cluster.local`, by the inner door."""
        name, _, project = host.removesuffix(LOCAL).partition(".")
        if not host.endswith(LOCAL) or "." in project:
            return None
        entry, found = self._entry(keys.route(project, name)), self._own(project, name)
        if entry is None or found is None:
            return None
        return inner_only(self._with_paths(found, keys.route(project, name), entry.main))

    def _with_paths(self, split: Split, key: str, host: str) -> Split:
        entry = self._entry(key)
        if entry is None or not entry.paths or host != entry.main:
            return split
        return self._by_path(entry.project, split, entry.paths)

    def _by_path(self, project: str, rest: Split | None, rules: list[PathRule]) -> Split:
        return Paths(project, rest, {rule.prefix.encode(): (self._own(project, rule.route), rule.strip) for rule in rules})

    def _own(self, project: str, route: str) -> Split | None:
        """What answers at a route's own host, its paths aside."""
        key = keys.route(project, route)
        entry = self._entry(key)
        return self._hosts.get(entry.main) if entry is not None and self._owners.get(entry.main) == key else None

    def _entry(self, key: str) -> RouteEntry | None:
        stored = self._stored.get(key)
        return decode(RouteEntry, stored) if stored is not None else None

    def put_domain(self, host: str, domain: Domain | None) -> None:
        """`host` is owned as `domain` says from now on; None: by nobody."""
        self.memo.clear()
        if domain is None:
            self._domains.pop(host, None)
            return
        self._domains[host] = domain
        if self.on_put is not None:
            self.on_put()

    def project_of(self, host: str) -> str:
        """The project whose route answers to `host`; empty: no route does."""
        found = self.find(host.encode("ascii", "replace"))
        return found.project if found is not None else ""

    def put(self, key: str, entry: RouteEntry) -> None:
        """The route at `key` is `entry` from now on."""
        self.memo.clear()
        old = self._entry(key)
        self._stored[key] = encode(entry)
        addresses = entry.addresses
        freed = [host for host in old.addresses if host not in addresses] if old is not None else []
        self._count(entry, 1)
        self._count(old, -1)
        for host in freed:
            self._let_go(key, host)
        choices: dict[str, Choice] = {}
        for host, targets in addresses.items():
            owner = self._owners.setdefault(host, key)
            if owner == key:
                self._serve(host, self._guarded(key, entry, host, split_of(entry, host, targets, choices)))
            elif key not in self._contested.setdefault(host, []):
                self._contested[host].append(key)
        if self.on_put is not None:
            self.on_put()

    def delete(self, key: str) -> None:
        """There is no route at `key` any more."""
        self.memo.clear()
        entry = self._entry(key)
        self._stored.pop(key, None)
        self._count(entry, -1)
        if entry is not None and self.guards is not None:
            self.guards.forget(key, entry)
        for host in entry.addresses if entry is not None else ():
            self._let_go(key, host)

    def _guarded(self, key: str, entry: RouteEntry, host: str, split: Split) -> Split:
        return split if self.guards is None or host[0] == ":" else self.guards.over(key, entry, split)

    def project(self, name: str, project: Project | None) -> None:
        """What is said of a project: its routes keep to it from now on."""
        if self.guards is not None:
            self.guards.project(name, project)
            self._put_again(key for key in self._stored if key.startswith(keys.route(name, "")))

    def workers(self, count: int) -> None:
        """Limits are shared by so many workers from now on."""
        if self.guards is not None and count != self.guards.workers:
            self.guards.workers = count
            self._put_again(self.guards.limited())

    def _put_again(self, routes: Iterable[str]) -> None:
        for key in list(routes):
            self.put(key, decode(RouteEntry, self._stored[key]))

    def _serve(self, host: str, found: Split | None) -> None:
        """`host` (a port, when it begins with a colon) goes to `found`; None: to nobody."""
        if found is None:
            del self._hosts[host]
        else:
            self._hosts[host] = found
        if host[0] == ":":
            if found is None:
                del self.ports[int(host[1:])]
            else:
                self.ports[int(host[1:])] = found
            if self.on_ports is not None:
                self.on_ports()

    def _let_go(self, key: str, host: str) -> None:
        heirs = self._contested.get(host, [])
        if key in heirs:
            heirs.remove(key)
        if self._owners.get(host) == key:
            del self._owners[host]
            if heirs:
                heir = heirs.pop(0)
                entry = decode(RouteEntry, self._stored[heir])
                self._owners[host] = heir
                self._serve(host, self._guarded(heir, entry, host, split_of(entry, host, entry.addresses[host], {})))
            else:
                self._serve(host, None)
        if not heirs:
            self._contested.pop(host, None)
