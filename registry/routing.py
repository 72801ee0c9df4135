"""A Route's traffic → the hosts and shares of its `RouteEntry`. Shares move only when every target can be reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry import objects
from registry.bounds import LOCAL_DOMAIN, Naming
from registry.conditions import FALSE, UNKNOWN, condition, find
from registry.objects import Object
from store.model import Limits, Revision, RouteEntry, TrafficTarget


@dataclass(frozen=True, slots=True)
class Routing:
    """`entry` is what the ingress shall do; None: what it does now stays, because of `problem` (a condition)."""

    url: str
    entry: RouteEntry | None = None
    traffic: list[Object] = field(default_factory=list)
    problem: Object | None = None


def route(
    obj: Object,
    revisions: Mapping[str, Object],
    configurations: Mapping[str, Object],
    compiled: Mapping[str, Revision],
    naming: Naming,
    host_owner: Callable[[str], str],
) -> Routing:
    """`revisions` and `configurations` have their present status; `compiled` are the revisions that run; `host_owner` names
    another route that answers to a host already."""
    project, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    local = objects.labels_of(obj).get(objects.LABEL_VISIBILITY) == "cluster-local"
    domain = LOCAL_DOMAIN if local else ""
    main = naming.host(name, project, domain)
    shares: dict[str, int] = {}
    hosts: dict[str, list[TrafficTarget]] = {}
    traffic: list[Object] = []
    for target in obj["spec"]["traffic"]:
        revision, problem = _aim(target, revisions, configurations, compiled)
        if problem is not None:
            return Routing(naming.url(main), problem=problem)
        percent = target.get("percent", 0)
        if percent:
            shares[revision] = shares.get(revision, 0) + percent
        shown: dict[str, Any] = {"revisionName": revision, "latestRevision": "revisionName" not in target, "percent": percent}
        if tag := target.get("tag"):
            host = naming.host(f"{tag}-{name}", project, domain)
            hosts[host] = [TrafficTarget(revision=revision, percent=100)]
            shown |= {"tag": tag, "url": naming.url(host)}
        traffic.append(shown)
    hosts[main] = [TrafficTarget(revision=revision, percent=share) for revision, share in shares.items()]
    for host in hosts:
        if owner := host_owner(host):
            said = f"host {host!r} belongs to route {owner!r} already; use another tag or name"
            return Routing(naming.url(main), problem=_problem(FALSE, "HostTaken", said))
    named = {share.revision for targets in hosts.values() for share in targets}
    entry = RouteEntry(
        project=project,
        route=name,
        hosts=dict(sorted(hosts.items())),
        limits={revision: limits(compiled[revision]) for revision in sorted(named)},
        main=main,
    )
    return Routing(naming.url(main), entry, traffic)


def limits(revision: Revision) -> Limits:
    """What the front door must know of `revision`."""
    return Limits(
        container_concurrency=revision.container_concurrency,
        timeout_s=revision.timeout_s,
        response_start_timeout_s=revision.response_start_timeout_s,
        idle_timeout_s=revision.idle_timeout_s,
        protocol=revision.protocol,
        service=revision.service,
        configuration=revision.configuration,
    )


def _aim(
    target: Object, revisions: Mapping[str, Object], configurations: Mapping[str, Object], compiled: Mapping[str, Revision]
) -> tuple[str, Object | None]:
    """The revision a target means, or the condition that says why it means none yet."""
    named = target.get("revisionName")
    if named:
        return named, _unready(named, revisions, compiled)
    name = target.get("configurationName", "")
    configuration = configurations.get(name)
    if configuration is None:
        return "", _problem(FALSE, "ConfigurationMissing", f"Configuration {name!r} referenced in traffic does not exist")
    status = configuration.get("status", {})
    latest = status.get("latestReadyRevisionName")
    if latest and latest in compiled:
        return latest, None
    if find(configuration, "Ready")["status"] == FALSE:
        return "", _problem(FALSE, "RevisionMissing", f"Configuration {name!r} does not have any ready Revision")
    return "", _problem(UNKNOWN, "RevisionMissing", f"Configuration {name!r} is waiting for a Revision to become ready")


def _unready(name: str, revisions: Mapping[str, Object], compiled: Mapping[str, Revision]) -> Object | None:
    revision = revisions.get(name)
    if revision is None:
        return _problem(FALSE, "RevisionMissing", f"Revision {name!r} referenced in traffic does not exist")
    state = find(revision, "Ready")
    if state["status"] == FALSE:
        why = f": {state['message']}" if state.get("message") else ""
        return _problem(FALSE, "RevisionFailed", f"Revision {name!r} referenced in traffic is not Ready{why}")
    if state["status"] == UNKNOWN or name not in compiled:
        return _problem(UNKNOWN, "RevisionNotReady", f"Revision {name!r} referenced in traffic is not Ready yet")
    return None


def _problem(status: str, reason: str, message: str) -> Object:
    return condition("AllTrafficAssigned", status, reason, message)
