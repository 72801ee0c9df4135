"""What the store holds, in memory, and what of it was just written and has not come back through the watch yet."""

from typing import Any, Protocol

import msgspec

from autoscaler import lean
from autoscaler.fleet import Fleet
from autoscaler.reach import Reachability
from process import logs
from process.run import Jobs
from store import keys
from store.backend import Entry, Store
from store.messages import Wake
from store.model import Assignment, Instance, Node, Revision, RevisionKey, RouteEntry, Scale, decode, encode
from store.projects import Project
from store.watch import Table

log = logs.get("autoscaler")

KNATIVE_WINDOW_S = 60.0


class Hearer(Protocol):
    """Who is told what changed."""

    @property
    def fleet(self) -> Fleet: ...
    @property
    def reach(self) -> Reachability: ...

    def mark(self, revision: RevisionKey) -> None: ...
    def mark_active(self) -> None: ...
    def on_instance(self, status: Instance) -> None: ...
    def on_node_left(self, node: str) -> None: ...
    def wake(self, wake: Wake) -> None: ...


class World:
    """The tables. `default_window_s` is taken by revisions that have Knative's default of 60 s."""

    def __init__(self, store: Store, hearer: Hearer, default_window_s: float = KNATIVE_WINDOW_S) -> None:
        self._hearer = hearer
        self._window_s = default_window_s
        self._effective: dict[RevisionKey, Revision] = {}
        self._wrote: dict[RevisionKey, Entry] = {}
        self.revisions = Table(store, keys.REVISIONS, Revision, self._on_revision, slim=lean.revision)
        self.routes = Table(store, keys.ROUTES, RouteEntry, self._on_route, slim=lean.route)
        self.scales = Table(store, keys.SCALE, Scale, self._on_scale)
        self.nodes = Table(store, keys.NODES, Node, self._on_node)
        self.assignments = Table(store, keys.ASSIGNMENTS, Assignment, self._on_assignment)
        self.instances = Table(store, keys.INSTANCES, Instance, self._on_instance)
        self.projects = Table(store, keys.PROJECTS, Project, self._on_project)
        self.wakes = Table(store, keys.WAKES, Wake, self._on_wake)
        self._tables: tuple[Table[Any], ...] = (
            self.revisions,
            self.routes,
            self.scales,
            self.nodes,
            self.assignments,
            self.instances,
            self.projects,
            self.wakes,
        )

    def start(self, jobs: Jobs) -> None:
        """Keep all tables in step from now on."""
        for table, name in zip(self._tables, _NAMES, strict=True):
            jobs.start(table.run(), f"table {name}", fatal=True)

    async def synced(self) -> None:
        """Until every table has its first list."""
        for table in self._tables:
            await table.synced()

    def problem(self) -> str | None:
        """Why the tables cannot be trusted now, or None."""
        return next((problem for table in self._tables if (problem := table.problem()) is not None), None)

    # -- what there is --------------------------------------------------------------------------------------------------------

    def revision(self, key: RevisionKey) -> Revision | None:
        """The revision, with the operator's window where it has Knative's default."""
        found = self.revisions.get(keys.REVISIONS + key)
        if found is None or self._window_s == KNATIVE_WINDOW_S or found.scale.stable_window_s != KNATIVE_WINDOW_S:
            return found
        known = self._effective.get(key)
        if known is None:
            scale = msgspec.structs.replace(found.scale, stable_window_s=self._window_s)
            known = self._effective[key] = msgspec.structs.replace(found, scale=scale)
        return known

    def revision_rev(self, key: RevisionKey) -> int:
        """The store_rev of the revision's key; 0 when it is gone."""
        entry = self.revisions.entry(keys.REVISIONS + key)
        return entry.store_rev if entry is not None else 0

    def scale_entry(self, key: RevisionKey) -> Entry | None:
        """The newest that is known of the revision's scale: what the watch said, or what was written since."""
        seen, wrote = self.scales.entry(keys.SCALE + key), self._wrote.get(key)
        if wrote is None or (seen is not None and seen.store_rev > wrote.store_rev):
            return seen
        return wrote if wrote.value else None

    def scale(self, key: RevisionKey) -> Scale | None:
        entry = self.scale_entry(key)
        if entry is None:
            return None
        seen = self.scales.entry(entry.key)
        if seen is not None and seen.store_rev == entry.store_rev:
            return self.scales.get(entry.key)
        return decode(Scale, entry.value)

    def all_keys(self) -> set[RevisionKey]:
        """Every revision that exists or has left something behind."""
        named = {key[len(keys.REVISIONS) :] for key, _ in self.revisions.items()}
        scaled = {key[len(keys.SCALE) :] for key, _ in self.scales.items()}
        return named | scaled | set(self._hearer.fleet.revisions())

    # -- what was written or read outside of the watch --------------------------------------------------------------------------

    def wrote_scale(self, key: RevisionKey, scale: Scale | None, store_rev: int) -> None:
        """`scale` was written (None: deleted) at `store_rev`."""
        full = keys.SCALE + key
        seen = self.scales.entry(full)
        if seen is None or seen.store_rev < store_rev:
            self._wrote[key] = Entry(full, encode(scale) if scale is not None else b"", store_rev)

    def read_scale(self, key: RevisionKey, entry: Entry | None) -> None:
        """The scale was read from the store, after a guard did not hold."""
        if entry is not None:
            self._wrote[key] = entry
            return
        seen = self.scales.entry(keys.SCALE + key)
        self._wrote[key] = Entry(keys.SCALE + key, b"", seen.store_rev if seen is not None else 0)

    def read_assignment(self, assignment: Assignment, entry: Entry | None) -> None:
        """An assignment was read from the store, after a guard did not hold."""
        if entry is None:
            self._hearer.fleet.remove(assignment.instance)
        else:
            self._hearer.fleet.put(decode(Assignment, entry.value), entry.store_rev)

    # -- what changes -----------------------------------------------------------------------------------------------------------

    def _on_revision(self, key: str, new: Revision | None, _: Revision | None) -> None:
        name = key[len(keys.REVISIONS) :]
        self._effective.pop(name, None)
        if new is not None:
            self._hearer.fleet.refresh(name)
        self._hearer.mark(name)

    def _on_route(self, key: str, new: RouteEntry | None, _: RouteEntry | None) -> None:
        for name in self._hearer.reach.change(key, new):
            self._hearer.mark(name)

    def _on_scale(self, key: str, _new: Scale | None, _old: Scale | None) -> None:
        name = key[len(keys.SCALE) :]
        wrote, seen = self._wrote.get(name), self.scales.entry(key)
        if wrote is None:
            return
        if (seen is None and not wrote.value) or (seen is not None and seen.store_rev >= wrote.store_rev):
            del self._wrote[name]

    def _on_node(self, key: str, new: Node | None, old: Node | None) -> None:
        name = key[len(keys.NODES) :]
        if new is not None and new.node != name:
            log.warning("a node speaks for another", key=key, node=new.node)
        elif new is not None:
            self._hearer.fleet.set_node(new)
            if old is None:
                self._hearer.mark_active()
        else:
            self._hearer.on_node_left(name)

    def _on_assignment(self, key: str, new: Assignment | None, old: Assignment | None) -> None:
        if new is not None:
            entry, known = self.assignments.entry(key), self._hearer.fleet.get(new.instance)
            store_rev = entry.store_rev if entry is not None else 0
            own = known is not None and store_rev and known.store_rev == store_rev
            self._hearer.fleet.put(new, store_rev)
            if not own:  # else it was decided here, and nothing is to be decided anew for its having been written
                self._hearer.mark(new.revision_key)
        elif old is not None:
            self._hearer.fleet.remove(old.instance)
            self._hearer.mark(old.revision_key)

    def _on_instance(self, key: str, new: Instance | None, old: Instance | None) -> None:
        said = new or old
        if said is None or key != keys.instance(said.node, said.instance):
            return  # Its writer may speak of what the key names, and of nothing else.
        if new is not None:
            self._hearer.on_instance(new)
        elif old is not None:
            self._hearer.fleet.unreport(old)
            self._hearer.mark(old.revision_key)

    def _on_project(self, key: str, new: Project | None, _: Project | None) -> None:
        project = new or Project(name=key[len(keys.PROJECTS) :])
        self._hearer.fleet.shares.know(key[len(keys.PROJECTS) :], project.quota, project.weight)
        self._hearer.mark_active()

    def _on_wake(self, _: str, new: Wake | None, _old: Wake | None) -> None:
        if new is not None:
            self._hearer.wake(new)


_NAMES = ("revisions", "routes", "scale", "nodes", "assignments", "instances", "projects", "wakes")
