"""What the front door hears: routes, domains and instances from etcd, readiness and refusals from the bus. All of it is kept in memory."""

from typing import Any

import msgspec

from activator.admitter import Admitter
from ingress.certificates import Certificates
from ingress.held import Held
from ingress.identity import Identities
from ingress.routes import Routes
from process import logs
from process.clock import Clock
from process.run import Jobs
from store import assigned, keys, messages
from store.access import Binding
from store.backend import Store
from store.bus import Bus
from store.certificates import Certificate, Challenge
from store.identity import IdentityKey
from store.messages import Refusal
from store.model import Assignment, Domain, Instance, RouteEntry, decode
from store.projects import Project
from store.watch import Table

log = logs.get("ingress")


_ROUTE = RouteEntry(project="", route="", hosts={})


def _known(_: RouteEntry) -> RouteEntry:
    """What the table keeps of a route: that it is there. `Routes` has the rest."""
    return _ROUTE


class Watcher:
    """Keeps `routes`, `admitter` and, where TLS is spoken, `certificates` in step with the cluster."""

    def __init__(
        self, store: Store, bus: Bus, clock: Clock, routes: Routes, admitter: Admitter, identities: Identities,
        certificates: Certificates | None = None, *, assigned_only: bool = False,
    ) -> None:  # fmt: skip
        """`assigned_only`: an instance counts when the autoscaler gave it to the node that speaks of it, and not before."""
        self._bus = bus
        self._clock = clock
        self._routes = routes
        self._admitter = admitter
        self._certificates = certificates
        self._identities = identities
        self._held = Held()
        self._instances = Table(store, keys.INSTANCES, Instance, self._instance)
        self._assignments: Table[Assignment] | None = None
        self._tables: list[Table[Any]] = [
            Table(store, keys.ROUTES, RouteEntry, self._route, slim=_known),
            Table(store, keys.DOMAINS, Domain, self._domain),
            self._instances,
            Table(store, keys.PROJECTS, Project, self._project),
            Table(store, keys.IDENTITY, IdentityKey, self._identity),
            Table(store, keys.BINDINGS, Binding, self._binding),
        ]
        if assigned_only:
            self._assignments = Table(store, keys.ASSIGNMENTS, Assignment, self._assignment, slim=assigned.kept)
            self._tables.append(self._assignments)
        if certificates is not None:
            self._tables.append(Table(store, keys.CERTIFICATES, Certificate, self._certificate))
            self._tables.append(Table(store, keys.CHALLENGES, Challenge, self._challenge))

    async def start(self, jobs: Jobs) -> None:
        """Begin to listen; returns when the first listing of all tables is in."""
        await self._bus.handle(messages.INSTANCES, self._heard)
        await self._bus.handle(messages.REFUSAL, self._refusal)
        for table in self._tables:
            jobs.start(table.run(), "watch", fatal=True)
        for table in self._tables:
            await table.synced()

    def problem(self) -> str | None:
        """For /readyz."""
        return next((problem for table in self._tables if (problem := table.problem())), None)

    def _route(self, key: str, new: RouteEntry | None, old: RouteEntry | None) -> None:
        if new is None:
            self._routes.delete(key)
        else:
            self._routes.put(key, new)

    def _domain(self, key: str, new: Domain | None, old: Domain | None) -> None:
        self._routes.put_domain(keys.tail(key, keys.DOMAINS)[0], new)

    def _certificate(self, key: str, new: Certificate | None, old: Certificate | None) -> None:
        assert self._certificates is not None
        if new is None:
            self._certificates.delete(key)
        else:
            self._certificates.put(key, new)

    def _challenge(self, key: str, new: Challenge | None, old: Challenge | None) -> None:
        if new is not None:
            self._routes.prove(new.host, new.token, new.answer)
        elif old is not None:
            self._routes.prove(old.host, old.token, None)

    def _project(self, key: str, new: Project | None, old: Project | None) -> None:
        self._routes.project(keys.tail(key, keys.PROJECTS)[0], new)

    def _identity(self, key: str, new: IdentityKey | None, old: IdentityKey | None) -> None:
        self._identities.key(keys.tail(key, keys.IDENTITY)[0], new)

    def _binding(self, key: str, new: Binding | None, old: Binding | None) -> None:
        said = new or old
        if said is not None:
            self._identities.bound(said.project, said.principal, new.roles if new is not None else ())

    def _instance(self, key: str, new: Instance | None, old: Instance | None) -> None:
        self._believe(self._true(key, new), self._true(key, old))

    def _true(self, key: str, said: Instance | None) -> Instance | None:
        """What stands at the key of an instance, if it is to be believed."""
        said = assigned.about(key, said)
        return said if said is not None and self._vouched(said) else None

    def _vouched(self, news: Instance) -> bool:
        if self._assignments is None:
            return True
        return assigned.vouches(self._assignments.get(keys.assignment(news.node, news.instance)), news)

    def _believe(self, new: Instance | None, old: Instance | None) -> None:
        self._reside(new, old)
        if new is not None:
            self._admitter.heard(new, stored=True)
        elif old is not None:
            self._admitter.forgotten(old.revision_key, old.instance)

    def _reside(self, new: Instance | None, old: Instance | None) -> None:
        if new is not None and self._assignments is not None:
            # Whose service it is, is not for its node to say.
            given = self._assignments.get(keys.assignment(new.node, new.instance))
            new = msgspec.structs.replace(new, service=given.service if given is not None else "")
        self._identities.instance(new, old)

    def _assignment(self, key: str, new: Assignment | None, old: Assignment | None) -> None:
        """`old` is what was kept of it. On the way of every start: when only the goal is another, there is nothing to do."""
        if new is not None and old is not None and old.revision_key == new.revision_key:
            return
        node, name = keys.tail(key, keys.ASSIGNMENTS)
        stored = assigned.about(own := keys.instance(node, name), self._instances.get(own))
        if old is not None:
            # Whatever its node goes on saying. What is in flight there may end.
            self._identities.instance(None, stored)
            self._admitter.withdrawn(old.revision_key, name)
        if new is None:
            return
        if stored is not None and assigned.vouches(new, stored):
            self._believe(stored, None)
        held = self._held.release(node, name, self._clock.now())
        if held is not None and assigned.vouches(new, held):
            self._admitter.heard(held, stored=False)

    def _heard(self, subject: str, data: bytes) -> None:
        try:
            news = decode(Instance, data)
        except msgspec.DecodeError as error:
            log.warning("not an instance", subject=subject, error=str(error))
            return
        if not messages.said_by(news.node, subject):
            log.warning("a node speaks for another", subject=subject, node=news.node, instance=news.instance)
            return
        if self._vouched(news):
            self._admitter.heard(news, stored=False)
        else:
            self._held.hold(news, self._clock.now())

    def _refusal(self, subject: str, data: bytes) -> None:
        try:
            refusal = decode(Refusal, data)
        except msgspec.DecodeError as error:
            log.warning("not a refusal", subject=subject, error=str(error))
            return
        self._admitter.refused(refusal)
