"""What the registry watches: tables of everything that decides a plan, and the names whose plan may have changed."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from registry import objects, rules
from registry.conditions import Resolution
from registry.hosts import Hosts
from registry.instances import Instances
from registry.objects import CONFIGURATION, DOMAIN_MAPPING, REVISION, ROUTE, SERVICE
from registry.quotas import Counts
from registry.statuses import SERVING
from registry.view import Seen, View
from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.messages import PullProgress
from store.model import Instance, Member, Model, Node, Revision, RouteEntry, Scale
from store.projects import Quota
from store.watch import Table

Unit = tuple[str, str]
"""(project, name): a Service, Configuration and Route of one name, and the revisions of that Configuration. Or, when the name is a
host (only a host has a dot), the DomainMapping of that host."""


class _Labels(Model, frozen=True, kw_only=True, rename={"configuration": objects.LABEL_CONFIGURATION}):
    configuration: str = ""


class _Annotations(Model, frozen=True, kw_only=True, rename={"paths": rules.PATHS, "mirror": rules.MIRROR}):
    paths: str = ""
    mirror: str = ""


class _Meta(Model, frozen=True, kw_only=True):
    labels: _Labels = _Labels()
    annotations: _Annotations = _Annotations()


class _Target(Model, frozen=True, kw_only=True, rename="camel"):
    configuration_name: str = ""
    revision_name: str = ""


class _Ref(Model, frozen=True, kw_only=True):
    name: str = ""


class _Tls(Model, frozen=True, kw_only=True, rename="camel"):
    secret_name: str = ""


class _Spec(Model, frozen=True, kw_only=True):
    traffic: tuple[_Target, ...] = ()
    ref: _Ref = _Ref()
    tls: _Tls = _Tls()


class Stored(Model, frozen=True, kw_only=True):
    """An API object as far as the indexes need it, so that an idle one is small; the whole is read from the table's bytes."""

    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()


class Observed:
    """Tables, and indexes over them. `dirty(unit)` is called for each name that a change concerns, or `counted(unit)` when it
    changes only how many instances there are of what works. `echo(store_rev)`: that write of ours leaves nothing to plan."""

    def __init__(
        self,
        store: Store,
        dirty: Callable[[Unit], None],
        counted: Callable[[Unit], None] | None = None,
        echo: Callable[[int], bool] = lambda _: False,
        counts: Counts | None = None,
    ) -> None:
        self._dirty, self._counted, self._echo = dirty, counted or dirty, echo
        self._counts = counts or Counts(lambda _: Quota())
        self._revisions_of: dict[Unit, set[str]] = defaultdict(set)
        self._configuration_of: dict[tuple[str, str], str] = {}
        self._routed: Counter[tuple[str, str]] = Counter()
        self._hosts: dict[str, set[Unit]] = defaultdict(set)
        self._hopeful: dict[str, set[Unit]] = defaultdict(set)
        """Routes that wanted a host or port that was another's."""
        self._borrowers: dict[Unit, set[Unit]] = defaultdict(set)
        self.objects: Table[Stored] = Table(store, keys.OBJECTS, Stored, self._object_changed)
        self.revisions: Table[Revision] = Table(store, keys.REVISIONS, Revision, self._revision_changed)
        self.routes: Table[RouteEntry] = Table(store, keys.ROUTES, RouteEntry, self._route_changed)
        self.hosts = Hosts(
            store, dirty, self._wake_borrowers, self.object, self._counts.sized, lambda host: self._hosts.get(host, ())
        )
        self.scales: Table[Scale] = Table(store, keys.SCALE, Scale, self._scale_changed)
        self.instances = Instances(store, self._instance_changed)
        self.nodes: Table[Node] = Table(store, keys.NODES, Node, self._node_changed)
        self.members: Table[Member] = Table(store, keys.MEMBERS, Member, self._member_changed)

    def tables(self) -> dict[str, Table[Any]]:
        return {
            "objects": self.objects,
            "revisions": self.revisions,
            "routes": self.routes,
            "domains": self.hosts.domains,
            "secrets": self.hosts.secrets,
            "provisions": self.hosts.provisions,
            "scale": self.scales,
            **self.instances.tables(),
            "nodes": self.nodes,
            "members": self.members,
        }

    async def synced(self) -> None:
        for table in self.tables().values():
            await table.synced()

    # -- reading ----------------------------------------------------------------------------------------------------------

    def units(self) -> set[Unit]:
        """Every name there is something of."""
        found: set[Unit] = set(self._revisions_of)
        for key, _ in self.objects.items():
            plural, project, name = keys.tail(key, keys.OBJECTS)
            if plural != REVISION.plural:
                found.add((project, name))
        for key, entry in self.routes.items():
            found.add((entry.project, keys.tail(key, keys.ROUTES)[-1]))
        for _, revision in self.revisions.items():
            found.add((revision.project, revision.configuration))
        return found | self.hosts.owned()

    def projects(self) -> list[str]:
        return sorted({keys.tail(key, keys.OBJECTS)[1] for key, _ in self.objects.items()})

    def images_of(self, project: str) -> set[str]:
        """Every image that a revision of the project runs, by the name that was given and by digest."""
        return {name for _, r in self.revisions.items() if r.project == project for name in (r.image, r.image_name)}

    def served(self) -> dict[str, str]:
        """Every host that has a route, and no Secret that its mapping names: host → project."""
        found = {host: entry.project for _, entry in self.routes.items() for host in entry.hosts}
        mapped = {keys.tail(key, keys.DOMAINS)[0]: domain for key, domain in self.hosts.domains.items()}
        return found | {host: domain.project for host, domain in mapped.items() if not domain.secret}

    def live_nodes(self) -> list[Node]:
        """Those that speak of themselves: a node writes its own key, and could name another in it."""
        return [node for key, node in self.nodes.items() if key == keys.node(node.node)]

    def object(self, key: str) -> Seen | None:
        entry = self.objects.entry(key)
        return None if entry is None else Seen(msgspec.json.decode(entry.value), entry.store_rev)

    def unit_of_revision(self, project: str, name: str) -> Unit | None:
        configuration = self._configuration_of.get((project, name))
        return (project, configuration) if configuration is not None else None

    def view(self, unit: Unit, resolutions: Callable[[str], Resolution | None], progress: Callable[[str], str]) -> View:
        """Everything that the plan of `unit` needs. `resolutions` is asked by uid, `progress` by image."""
        project, name = unit
        seen: dict[str, Seen] = {}
        for kind in (SERVICE, CONFIGURATION, ROUTE):
            self._see(seen, keys.object_(kind.plural, project, name))
        revisions = set(self._revisions_of.get(unit, ()))
        route, configuration = (seen.get(keys.object_(k.plural, project, name)) for k in (ROUTE, CONFIGURATION))
        service = seen.get(keys.object_(SERVICE.plural, project, name))
        revisions |= self._referred(project, seen, service, route, configuration)
        for revision in revisions:
            self._see(seen, keys.object_(REVISION.plural, project, revision))
        compiled = {r: found for r in revisions if (found := self.revisions.get(keys.revision(project, r))) is not None}
        entry = self.routes.get(keys.route(project, name))
        here = set(entry.limits) if entry is not None else set()
        known: dict[str, Resolution] = {}
        for revision in revisions:
            obj = seen.get(keys.object_(REVISION.plural, project, revision))
            if obj is not None and (resolution := resolutions(objects.meta(obj.obj)["uid"])) is not None:
                known[revision] = resolution
        return View(
            project=project,
            name=name,
            seen=seen,
            compiled=compiled,
            entry=entry,
            scales={r: s for r in revisions if (s := self.scales.get(keys.scale(project, r))) is not None},
            instances={r: self.instances.of(f"{project}/{r}") for r in revisions},
            resolutions=known,
            progress={r: progress(found.image) for r, found in compiled.items()},
            routed_elsewhere=frozenset(r for r in revisions if self._routed[project, r] > (1 if r in here else 0)),
            nodes=len(self.nodes),
            host_owner=lambda host: self._other_owner(host, unit),
            port_told=self._port_told,
            provision=lambda host: self.hosts.provision(project, host),
        )

    def _other_owner(self, host: str, unit: Unit) -> str:
        """Who else has `host`; `unit` is told when it is free."""
        owner = next((each for each in sorted(self._hosts.get(host, ())) if each != unit), None)
        if owner is None:
            return ""
        self._hopeful[host].add(unit)
        return owner[1] if owner[0] == unit[0] else "/".join(owner)

    def _port_told(self, port: int) -> list[str | None]:
        return [member.ports.get(port) for _, member in self.members.items() if member.role == "ingress"]

    def _see(self, seen: dict[str, Seen], key: str) -> None:
        found = self.object(key)
        if found is not None:
            seen[key] = found

    def _referred(self, project: str, seen: dict[str, Seen], *found: Seen | None) -> set[str]:
        """Revisions of other names that the specs mention; Configurations mentioned are put into `seen` at once."""
        mentioned: set[str] = set()
        for item in found:
            if item is None:
                continue
            mirror = rules.mirror_of(objects.annotations_of(item.obj))
            mentioned |= {mirror.revision} if mirror is not None else set()
            spec = item.obj.get("spec", {})
            given = objects.meta(spec.get("template") or {}).get("name")
            mentioned |= {given} if given else set()
            for target in spec.get("traffic") or ():
                if "revisionName" in target:
                    mentioned.add(target["revisionName"])
                elif "configurationName" in target:
                    key = keys.object_(CONFIGURATION.plural, project, target["configurationName"])
                    self._see(seen, key)
                    latest = seen[key].obj.get("status", {}).get("latestReadyRevisionName") if key in seen else None
                    mentioned |= {latest} if latest else set()
        return mentioned

    # -- changes ----------------------------------------------------------------------------------------------------------

    def _object_changed(self, key: str, new: Stored | None, old: Stored | None) -> None:
        plural, project, name = keys.tail(key, keys.OBJECTS)
        self._counts.seen(key, int(new is not None), int(old is not None))
        seen = self.objects.entry(key)
        echo = seen is not None and old is not None and self._echo(seen.store_rev)
        if plural == REVISION.plural:
            self._index_revision(project, name, new, old, echo)
            return
        if not echo:
            self._dirty((project, name))
        if plural == DOMAIN_MAPPING.plural:
            for stored, change in ((old, set.discard), (new, set.add)):
                for borrowed in _mapped_to(stored) if stored is not None else ():
                    change(self._borrowers[project, borrowed], (project, name))
            entry = self.objects.entry(key)
            self.hosts.want(project, name, entry.created_rev if new is not None and entry is not None else None)
        if plural == ROUTE.plural:
            for stored, change in ((old, set.discard), (new, set.add)):
                for lender in _lenders(project, name, stored):
                    change(self._borrowers[lender], (project, name))
        self._wake_borrowers((project, name))

    def _index_revision(self, project: str, name: str, new: Stored | None, old: Stored | None, echo: bool) -> None:
        for stored in (old, new):
            if stored is None:
                continue
            label = stored.metadata.labels.configuration
            unit = (project, label)
            if stored is new:
                self._revisions_of[unit].add(name)
                self._configuration_of[project, name] = label
            elif new is None:
                self._revisions_of[unit].discard(name)
                self._configuration_of.pop((project, name), None)
                if not self._revisions_of[unit]:
                    del self._revisions_of[unit]
            if not echo:
                self._dirty(unit)
        self._wake_borrowers((project, f"revisions/{name}"))

    def _wake_borrowers(self, unit: Unit) -> None:
        """Routes of another name that send requests to what `unit` owns."""
        for borrower in self._borrowers.get(unit, ()):
            self._dirty(borrower)

    def _revision_changed(self, _: str, new: Revision | None, old: Revision | None) -> None:
        revision = new or old
        if revision is not None:
            self._dirty((revision.project, revision.configuration))

    def _route_changed(self, _: str, new: RouteEntry | None, old: RouteEntry | None) -> None:
        for entry, step in ((old, -1), (new, 1)):
            if entry is None:
                continue
            route = (entry.project, entry.route)
            self._dirty(route)
            for host in entry.addresses:
                self._host_changed(host, route, step > 0)
            for revision in entry.limits:
                self._routed[entry.project, revision] += step
                if not self._routed[entry.project, revision]:
                    del self._routed[entry.project, revision]
                unit = self.unit_of_revision(entry.project, revision)
                if unit is not None:
                    self._dirty(unit)

    def _host_changed(self, host: str, route: Unit, taken: bool) -> None:
        if taken:
            self._hosts[host].add(route)
            return
        self._hosts[host].discard(route)
        if not self._hosts[host]:
            del self._hosts[host]
            for unit in self._hopeful.pop(host, ()):
                self._dirty(unit)

    def _member_changed(self, _: str, new: Member | None, old: Member | None) -> None:
        """An ingress opened a port, or could not: the condition of its route."""
        before, after = old.ports if old is not None else {}, new.ports if new is not None else {}
        for port in {port for port, _ in before.items() ^ after.items()}:
            for unit in self._hosts.get(f":{port}", ()):
                self._dirty(unit)

    def _scale_changed(self, key: str, new: Scale | None, old: Scale | None) -> None:
        project, name = keys.tail(key, keys.SCALE)
        self._dirty_revision(project, name, only_counts=_works(new) and _works(old))

    def _dirty_revision(self, project: str, name: str, *, only_counts: bool = False) -> None:
        unit = self.unit_of_revision(project, name)
        if unit is not None:
            (self._counted if only_counts else self._dirty)(unit)

    def _instance_changed(self, new: Instance | None, old: Instance | None) -> None:
        instance = new or old
        assert instance is not None
        works = _works(self.scales.get(keys.scale(instance.project, instance.revision)))
        if works and not (_counts(new) or _counts(old)) and instance.phase != Phase.FAILED:
            return  # one is parked, or the last is cleared away of what was counted out before
        self._dirty_revision(instance.project, instance.revision, only_counts=works and instance.phase != Phase.FAILED)

    def _node_changed(self, _: str, new: Node | None, old: Node | None) -> None:
        """The first node and the last one change what a waiting revision says."""
        if (new is None) != (old is None) and len(self.nodes) <= 1:
            for project, name in list(self._configuration_of):
                if (
                    self.revisions.get(keys.revision(project, name)) is None
                    or self.scales.get(keys.scale(project, name)) is None
                ):
                    self._dirty_revision(project, name)

    def pulling(self, progress: PullProgress) -> None:
        """A pull went on: whoever waits for that image says so."""
        for key, scale in self.scales.items():
            revision = self.revisions.get(keys.REVISIONS + key[len(keys.SCALE) :])
            if revision is not None and not scale.verified and revision.image == progress.image:
                self._dirty((revision.project, revision.configuration))


def _counts(instance: Instance | None) -> bool:
    """Whether the status of a revision that works shows this instance."""
    return instance is not None and instance.phase in SERVING


def _works(scale: Scale | None) -> bool:
    """Whether all that the autoscaler says of a revision is how many instances it wants."""
    return scale is not None and scale.verified and scale.failure is None and not scale.unplaced


def _mapped_to(mapping: Stored) -> set[str]:
    """Names whose changes concern a mapping: of services, and of its Secret."""
    paths = rules.paths_of({rules.PATHS: mapping.metadata.annotations.paths})
    return {mapping.spec.ref.name, f"secrets/{mapping.spec.tls.secret_name}", *(rule.route for rule in paths)}


def _lenders(project: str, name: str, route: Stored | None) -> set[Unit]:
    """Configurations of other names, and revisions, that a Route sends requests to: their changes concern it."""
    found: set[Unit] = set()
    mirror = rules.mirror_of({rules.MIRROR: route.metadata.annotations.mirror}) if route is not None else None
    if mirror is not None:
        found.add((project, f"revisions/{mirror.revision}"))
    for target in route.spec.traffic if route is not None else ():
        if target.revision_name:
            found.add((project, f"revisions/{target.revision_name}"))
        elif target.configuration_name not in ("", name):
            found.add((project, target.configuration_name))
    return found
