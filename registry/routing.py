"""A Route's traffic → the hosts and shares of its `RouteEntry`. Shares move only when every target can be reached."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry import objects, reach, rules
from registry.bounds import LOCAL_DOMAIN, Naming
from registry.conditions import FALSE, TRUE, UNKNOWN, condition, find
from registry.objects import Object
from registry.view import listening, nobody
from store.model import Limits, Revision, RouteEntry, TrafficTarget


@dataclass(frozen=True, slots=True)
class Routing:
    """`entry` is what the ingress shall do; None: what it does now stays, because of `problem` (a condition)."""

    url: str
    entry: RouteEntry | None = None
    traffic: list[Object] = field(default_factory=list)
    problem: Object | None = None
    listening: Object = field(default_factory=lambda: condition("IngressReady", TRUE))
    """Whether the ingress has the port that the entry asks for; hosts it always has."""
    note: Object | None = None
    """A condition beside: whether the mirror is there."""


def route(
    obj: Object,
    revisions: Mapping[str, Object],
    configurations: Mapping[str, Object],
    compiled: Mapping[str, Revision],
    naming: Naming,
    host_owner: Callable[[str], str] = nobody,
    port_told: Callable[[int], Sequence[str | None]] = listening,
    *,
    tag_header: bool = False,
) -> Routing:
    """`revisions` and `configurations` have their present status; `compiled` are the revisions that run; `host_owner` names
    another route that answers to a host (or `:port`) already; `port_told` is what the ingresses say of a port; `tag_header`: a
    header may name a tag, unless the route says otherwise."""
    project, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    domain = LOCAL_DOMAIN if reach.ingress_of(obj) == reach.INTERNAL else ""
    main = naming.host(name, project, domain)
    port = objects.tcp_port_of(obj)
    secure = objects.redirects(obj)
    url = f"tcp://{main}:{port}" if port else naming.url(main, secure=secure)
    shares: dict[str, int] = {}
    hosts: dict[str, list[TrafficTarget]] = {}
    traffic: list[Object] = []
    tags: dict[str, str] = {}
    for target in obj["spec"]["traffic"]:
        revision, problem = _aim(target, revisions, configurations, compiled)
        if problem is not None:
            return Routing(url, problem=problem)
        percent = target.get("percent", 0)
        if percent:
            shares[revision] = shares.get(revision, 0) + percent
        shown: dict[str, Any] = {"revisionName": revision, "latestRevision": "revisionName" not in target, "percent": percent}
        tag = target.get("tag")
        if tag and port:
            shown["tag"] = tag  # A name for people: only the route itself has a port.
        elif tag:
            host = naming.host(f"{tag}-{name}", project, domain)
            hosts[host] = [TrafficTarget(revision=revision, percent=100)]
            tags[tag] = revision
            shown |= {"tag": tag, "url": naming.url(host, secure=secure)}
        traffic.append(shown)
    main_targets = [TrafficTarget(revision=revision, percent=share) for revision, share in shares.items()]
    if not port:
        hosts[main] = main_targets
    annotations = objects.annotations_of(obj)
    mirror = rules.mirror_of(annotations) if not port else None
    note = _mirrored(mirror.revision, revisions, compiled) if mirror is not None else None
    mirror = None if note is not None and note["status"] == FALSE else mirror
    named = {share.revision for targets in (main_targets, *hosts.values()) for share in targets}
    named |= {mirror.revision} if mirror is not None else set()
    known = {revision: limits(compiled[revision]) for revision in sorted(named)}
    entry = RouteEntry(
        project=project,
        route=name,
        hosts=dict(sorted(hosts.items())),
        ports={port: main_targets} if port else {},
        limits=known,
        main="" if port else main,
        redirects=secure,
        access=reach.access_of(obj),
        paths=rules.paths_of(annotations) if not port else [],
        tags=tags if rules.tag_header(annotations, default=tag_header) else {},
        mirror=mirror,
        affinity_key=objects.meta(obj).get("uid", "") if any(each.session_affinity for each in known.values()) else "",
    )
    problem = _taken(entry, host_owner) or _tongues(entry, port, configurations.get(name))
    if problem is not None:
        return Routing(url, problem=problem)
    listens = _listening(port, port_told(port)) if port else condition("IngressReady", TRUE)
    return Routing(url, entry, traffic, listening=listens, note=note)


def _taken(entry: RouteEntry, host_owner: Callable[[str], str]) -> Object | None:
    for address in entry.addresses:
        if not (owner := host_owner(address)):
            continue
        if address[0] == ":":
            said = f"port {address[1:]} belongs to route {owner!r} already; give {objects.ANNOTATION_TCP_PORT} another"
            return _problem(FALSE, "PortTaken", said)
        return _problem(FALSE, "HostTaken", f"host {address!r} belongs to route {owner!r} already; use another tag or name")
    return None


def _tongues(entry: RouteEntry, port: int, configuration: Object | None) -> Object | None:
    """What is reached by port speaks raw TCP, what is reached by host does not: a route is all of one or of the other."""
    wrong = [name for name, kept in entry.limits.items() if (kept.protocol == "tcp") != bool(port)]
    if not wrong:
        return None
    status = configuration.get("status", {}) if configuration is not None else {}
    settled = status.get("latestReadyRevisionName") == status.get("latestCreatedRevisionName")
    if port:
        said = f"the route has port {port}, but revision {wrong[0]!r} speaks {entry.limits[wrong[0]].protocol}, not tcp"
    else:
        said = f"revision {wrong[0]!r} speaks raw TCP, which needs a port: annotate with {objects.ANNOTATION_TCP_PORT}"
    return _problem(FALSE if settled else UNKNOWN, "ProtocolMismatch", said)


def _listening(port: int, told: Sequence[str | None]) -> Object:
    """IngressReady of a route with a port of its own."""
    if why := next((each for each in told if each), ""):
        return condition("IngressReady", FALSE, "PortNotOpen", why)
    if not told or None in told:
        return condition("IngressReady", UNKNOWN, "PortOpening", f"waiting until the ingress listens on port {port}")
    return condition("IngressReady", TRUE)


def _mirrored(revision: str, revisions: Mapping[str, Object], compiled: Mapping[str, Revision]) -> Object:
    """Whether requests can be copied to `revision`; never part of Ready."""
    problem = _unready(revision, revisions, compiled)
    if problem is None:
        return condition("MirrorReady", TRUE, severity="Info")
    return condition(
        "MirrorReady", FALSE, problem["reason"], problem["message"].replace("in traffic", "as the mirror"), "Warning"
    )


def limits(revision: Revision) -> Limits:
    """What the front door must know of `revision`."""
    return Limits(
        container_concurrency=revision.container_concurrency,
        timeout_s=revision.timeout_s,
        response_start_timeout_s=revision.response_start_timeout_s,
        idle_timeout_s=revision.idle_timeout_s,
        max_body_bytes=revision.max_body_bytes,
        server_timing=revision.server_timing,
        protocol=revision.protocol,
        service=revision.service,
        configuration=revision.configuration,
        session_affinity=revision.session_affinity,
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
