"""One name of one project: what is → what shall be written. Pure; computed from the whole view each time.

Service → Configuration + Route → Revision, its compiled form, the route's entry, and every status, in one transaction.
"""

from dataclasses import dataclass

from process.clock import rfc3339
from registry import conditions, gc, objects, revise, routing, statuses
from registry.bounds import Bounds, Naming
from registry.compile import compile_revision, progress_deadline_s, wall_s
from registry.conditions import RevisionFacts
from registry.issuing import public
from registry.objects import CONFIGURATION, REVISION, ROUTE, SERVICE, Object
from registry.provision import provisioned, worst
from registry.view import Draft, View
from store import keys
from store.lifecycle import ENDED, Phase
from store.model import Revision, RouteEntry, encode
from store.txn import Delete, Put, Txn

LEASTWAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image whose digest is needed to make `revision` run."""

    project: str
    revision: str
    uid: str
    image: str
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """`txns` are to be committed in order; when not `urgent` they may wait a little for more. `happened` is for the story."""

    txns: tuple[Txn, ...] = ()
    urgent: bool = False
    wanted: tuple[Wanted, ...] = ()
    look_again_s: float | None = None
    happened: tuple[tuple[str, str, str], ...] = ()
    """What, of which revision, and in which words."""


class _Planner:
    """One computation of a plan, step by step over a draft."""

    def __init__(self, view: View, naming: Naming, bounds: Bounds, retention: gc.Retention, now: float) -> None:
        self.view, self.naming, self.bounds, self.retention = view, naming, bounds, retention
        self.now, self.stamp = now, rfc3339(now)
        self.draft = Draft(view)
        self.compiled: dict[str, Revision] = dict(view.compiled)
        self.wanted: list[Wanted] = []
        self.waits: list[float] = []
        self.happened: list[tuple[str, str, str]] = []

    def run(self) -> Plan:
        service = self.draft.get(SERVICE)
        not_owned = self._children(service)
        self._orphans(service)
        configuration, route = self.draft.get(CONFIGURATION), self.draft.get(ROUTE)
        created = self._mint(configuration) if configuration is not None else None
        self._revisions(created.name if created is not None else "")
        if configuration is not None and created is not None:
            self.draft.put(statuses.configuration(configuration, created, self._own_revisions(), self.stamp))
        entry = self._route(route)
        self._routing_states(entry)
        if service is not None:
            self._service(service, not_owned)
        self._collect(entry)
        found, urgent = self.draft.changes()
        why = f"{self.view.project}/{self.view.name}"
        txns = tuple(Txn(guards, writes, why=why) for guards, writes in found)
        look_again = max(min(self.waits), LEASTWAIT_S) if self.waits else None
        return Plan(txns, urgent, tuple(self.wanted), look_again, tuple(self.happened))

    def _tell(self, what: str, revision: str, said: str = "") -> None:
        self.happened.append((what, revision, said))

    def _children(self, service: Object | None) -> str:
        """Keeps Configuration and Route in step with the Service; says which of them belongs to somebody else."""
        if service is None:
            return ""
        for kind, wanted in zip((CONFIGURATION, ROUTE), revise.children(service, self.stamp), strict=True):
            existing = self.draft.get(kind)
            if existing is not None:
                owner = objects.owner_of(existing)
                if owner is None:
                    return kind.kind
                if owner["uid"] != service["metadata"]["uid"]:
                    existing = None
            self.draft.put(revise.follow(existing, wanted))
        return ""

    def _orphans(self, service: Object | None) -> None:
        """Drops what belongs to a Service or Configuration that is gone."""
        uid = service["metadata"]["uid"] if service is not None else None
        for kind in (CONFIGURATION, ROUTE):
            child = self.draft.get(kind)
            owner = objects.owner_of(child) if child is not None else None
            if owner is not None and owner["uid"] != uid:
                self.draft.drop(kind)
        configuration = self.draft.get(CONFIGURATION)
        alive = configuration["metadata"]["uid"] if configuration is not None else None
        for name, revision in self._own_revisions().items():
            owner = objects.owner_of(revision)
            if owner is None or owner["uid"] != alive:
                self.draft.drop(REVISION, name)
        own = self.draft.all(REVISION)
        for name in self.view.compiled:
            if name not in own:
                self.draft.also(Delete(keys.revision(self.view.project, name)), REVISION, name)
                self.compiled.pop(name, None)

    def _own_revisions(self) -> dict[str, Object]:
        """Revisions of the Configuration of this name."""
        label = objects.LABEL_CONFIGURATION
        return {n: r for n, r in self.draft.all(REVISION).items() if objects.labels_of(r).get(label) == self.view.name}

    def _mint(self, configuration: Object) -> revise.Current:
        created = revise.current(configuration, self.draft.all(REVISION), self.stamp)
        if created.minted is not None:
            self.draft.put(created.minted)
            self._tell("revision minted", created.name)
        return created

    def _revisions(self, created: str) -> None:
        needed = self._named_in_traffic() | {created}
        for name, revision in self._own_revisions().items():
            resolution = self.view.resolutions.get(name)
            if name not in self.compiled and resolution is not None and resolution.image and not self._leftover(name):
                made = compile_revision(revision, resolution.image, self.bounds)
                self.compiled[name] = made
                self.draft.also(Put(keys.revision(made.project, name), encode(made)), REVISION, name, new=True)
                self._tell("image resolved", name, made.image)
            if name not in self.compiled and name in needed:
                secrets = tuple(item["name"] for item in revision["spec"].get("imagePullSecrets", ()))
                image = revision["spec"]["containers"][0]["image"]
                self.wanted.append(Wanted(self.view.project, name, revision["metadata"]["uid"], image, secrets))
            self._revision_status(name, revision)

    def _leftover(self, name: str) -> bool:
        """Whether an earlier revision of this name still runs: the new one must not be taken for it."""
        lives = any(i.phase not in (*ENDED, Phase.DRAINING) for i in self.view.instances.get(name, ()))
        return lives or name in self.view.scales

    def _revision_status(self, name: str, revision: Object) -> None:
        facts = self._facts(name, revision)
        wait = conditions.next_look_s(facts, self.now)
        if wait is not None:
            self.waits.append(wait)
        made = self.compiled.get(name)
        changed = statuses.revision(revision, facts, made.image if made is not None else "", self.now)
        if conditions.is_ready(changed) and not conditions.is_ready(revision):
            self._tell("revision ready", name)
        self.draft.put(changed)

    def _facts(self, name: str, revision: Object) -> RevisionFacts:
        return RevisionFacts(
            created_at=wall_s(objects.meta(revision)["creationTimestamp"]),
            deadline_s=progress_deadline_s(revision, self.bounds),
            image=revision["spec"]["containers"][0]["image"],
            resolution=self.view.resolutions.get(name),
            resolved=name in self.compiled,
            scale=self.view.scales.get(name),
            instances=self.view.instances.get(name, ()),
            progress=self.view.progress.get(name, ""),
            leftover=name not in self.compiled and self._leftover(name),
            nodes=self.view.nodes,
            was_ready=conditions.is_ready(revision),
        )

    def _named_in_traffic(self) -> set[str]:
        route = self.draft.get(ROUTE)
        targets = route["spec"]["traffic"] if route is not None else ()
        return {target["revisionName"] for target in targets if "revisionName" in target}

    def _route(self, route: Object | None) -> RouteEntry | None:
        """The entry the ingress has after this plan."""
        key = keys.route(self.view.project, self.view.name)
        before = self.view.entry
        if route is None:
            if before is not None:
                self.draft.also(Delete(key), ROUTE)
            return None
        every = self.draft.all(CONFIGURATION)
        view, tag_header = self.view, self.bounds.tag_header
        revisions = self.draft.all(REVISION)
        routed = routing.route(
            route, revisions, every, self.compiled, self.naming, view.host_owner, view.port_told, tag_header=tag_header
        )
        if routed.entry is not None and routed.entry != before:
            self.draft.also(Put(key, encode(routed.entry)), ROUTE)
            said = ", ".join(f"{t['revisionName']}={t['percent']}" for t in routed.traffic)
            for name in sorted(set(routed.entry.limits) - set(before.limits if before is not None else ())):
                self._tell("route moved", name, said)
        self.draft.put(statuses.route(route, routed, self.stamp, self._certificate(routed.entry)))
        return routed.entry if routed.entry is not None else before

    def _certificate(self, entry: RouteEntry | None) -> Object | None:
        """Of the certificates that ACME is asked for, the one that matters most; never part of Ready: without TLS the hosts answer."""
        if entry is None or not self.bounds.acme:
            return None
        asked = [host for host in entry.hosts if public(host)]
        return worst(provisioned(host, self.view.provision(host), self.now, severity="Warning") for host in asked)

    def _in_use(self, entry: RouteEntry | None) -> set[str]:
        here = set(entry.limits) if entry is not None else set()
        return here | self.view.routed_elsewhere

    def _routing_states(self, entry: RouteEntry | None) -> None:
        routed = self._in_use(entry)
        for name, revision in self._own_revisions().items():
            state = objects.labels_of(revision).get(objects.LABEL_ROUTING_STATE, "pending")
            wanted = "active" if name in routed else "pending" if state == "pending" else "reserve"
            if wanted != state:
                meta = {**revision["metadata"]}
                meta["labels"] = {**meta.get("labels", {}), objects.LABEL_ROUTING_STATE: wanted}
                meta["annotations"] = {**meta.get("annotations", {}), objects.ANNOTATION_ROUTING_SINCE: self.stamp}
                self.draft.put({**revision, "metadata": meta})

    def _service(self, service: Object, not_owned: str) -> None:
        configuration, route = self.draft.get(CONFIGURATION), self.draft.get(ROUTE)
        after = statuses.service(service, configuration, route, not_owned, self.stamp)
        if conditions.is_ready(after) and not conditions.is_ready(service):
            self._tell("service ready", after["status"].get("latestReadyRevisionName", ""))
        self.draft.put(after)

    def _collect(self, entry: RouteEntry | None) -> None:
        configuration = self.draft.get(CONFIGURATION)
        if configuration is None:
            return
        status = configuration.get("status", {})
        used = self._in_use(entry) | self._named_in_traffic()
        used |= {status.get("latestCreatedRevisionName", ""), status.get("latestReadyRevisionName", "")}
        for name in gc.disposable(self._own_revisions(), used, self.retention, self.now):
            self.draft.drop(REVISION, name)
            if name in self.compiled:
                self.draft.also(Delete(keys.revision(self.view.project, name)), REVISION, name)


def plan(view: View, naming: Naming, bounds: Bounds, now: float, retention: gc.Retention | None = None) -> Plan:
    """What to write so that `view` becomes what its Service (or Configuration, or Route) says. `now` is wall seconds."""
    return _Planner(view, naming, bounds, retention or gc.Retention(), now).run()


def pull_progress(layers: list[tuple[str, int, int]], state: str) -> str:
    """How far a pull is, for a condition's message."""
    done, total = sum(layer[1] for layer in layers), sum(layer[2] for layer in layers)
    if state in ("done", "failed"):
        return ""
    if state == "pulling" and total:
        return f"pulling image {100 * done // total} % ({done / 2**20:.1f} of {total / 2**20:.1f} MiB)"
    return f"{state} image"
