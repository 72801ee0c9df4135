"""The status of each kind of object, made from the objects below it. Pure: objects in, the object with its status out."""

from collections.abc import Mapping

from process.clock import rfc3339
from registry import conditions, objects, provision
from registry.conditions import FALSE, TRUE, UNKNOWN, RevisionFacts, condition, find
from registry.objects import Object
from registry.revise import Current
from registry.routing import Routing
from store.lifecycle import Phase

SERVING = (Phase.STARTING, Phase.READY, Phase.FROZEN)


def _with_status(obj: Object, status: Object, found: list[Object], now: str) -> Object:
    """`obj` with `status` over what it had: fields of a status that this version does not know stay."""
    old = obj.get("status")
    before = old if isinstance(old, dict) else {}
    settled = conditions.settle(before.get("conditions") or (), found, now)
    full = {**before, **status, "observedGeneration": objects.generation_of(obj), "conditions": settled}
    return {**obj, "status": {name: value for name, value in full.items() if value is not None}}


def revision(obj: Object, facts: RevisionFacts, digest: str, now: float) -> Object:
    """`obj` with the status that `facts` give it; `digest` is the image by digest, when known."""
    name, project = objects.name_of(obj), objects.meta(obj)["namespace"]
    service = objects.labels_of(obj).get(objects.LABEL_SERVICE, "")
    container = obj["spec"]["containers"][0].get("name", "user-container")
    status: Object = {
        "actualReplicas": sum(1 for instance in facts.instances if instance.phase in SERVING),
        "desiredReplicas": facts.scale.desired if facts.scale is not None else 0,
        "containerStatuses": [{"name": container, "imageDigest": digest}] if digest else None,
        "logUrl": f"/apis/ebb.dev/v1/namespaces/{project}/services/{service}/logs?revision={name}" if service else None,
    }
    return _with_status(obj, status, conditions.of_revision(facts, now), rfc3339(now))


def configuration(obj: Object, created: Current, revisions: Mapping[str, Object], now: str) -> Object:
    """`revisions` are this configuration's own, with their present status."""
    old = obj.get("status", {})
    before = old.get("latestReadyRevisionName")
    latest = revisions.get(created.name)
    ready = created.name if latest is not None and conditions.is_ready(latest) and created.problem is None else before
    if ready not in revisions:
        ready = _newest_ready(revisions)
    status: Object = {"latestReadyRevisionName": ready}
    if created.problem is not None:
        found = condition("Ready", FALSE, "RevisionNameTaken", str(created.problem))
    else:
        status["latestCreatedRevisionName"] = created.name
        found = _of_latest(created.name, find(latest or {}, "Ready"))
    return _with_status(obj, status, [found], now)


def _of_latest(name: str, state: Object) -> Object:
    if state["status"] == TRUE:
        return condition("Ready", TRUE)
    if state["status"] == FALSE:
        said = f"Revision {name!r} failed with message: {state.get('message') or state.get('reason', '')}"
        return condition("Ready", FALSE, "RevisionFailed", said)
    return condition(
        "Ready", UNKNOWN, state.get("reason", "Deploying"), f"Revision {name!r}: {state.get('message', 'deploying')}"
    )


def _newest_ready(revisions: Mapping[str, Object]) -> str | None:
    ready = [(_generation(obj), name) for name, obj in revisions.items() if conditions.is_ready(obj)]
    return max(ready)[1] if ready else None


def _generation(revision_obj: Object) -> int:
    text = objects.labels_of(revision_obj).get(objects.LABEL_GENERATION, "0")
    return int(text) if text.isdigit() else 0


def route(obj: Object, routed: Routing, now: str, certificate: Object | None = None) -> Object:
    """While a target cannot be reached, `status.traffic` keeps saying what the ingress still does. `certificate`: the condition of
    its hosts' certificates, where there is one."""
    status: Object = {"url": routed.url, "address": {"url": routed.url}}
    if routed.entry is not None:
        status["traffic"] = routed.traffic
        assigned, ingress = condition("AllTrafficAssigned", TRUE), routed.listening
        if ingress["status"] == UNKNOWN and find(obj, "IngressReady")["status"] == TRUE and _url(obj) == routed.url:
            ingress = condition("IngressReady", TRUE)  # An ingress that has just begun says nothing yet.
    else:
        assigned = routed.problem or condition("AllTrafficAssigned", UNKNOWN)
        serving = bool(obj.get("status", {}).get("traffic"))
        said = (assigned.get("reason", ""), assigned.get("message", ""))
        ingress = condition("IngressReady", TRUE) if serving else condition("IngressReady", UNKNOWN, *said)
    found = [assigned, ingress, conditions.ready((assigned, ingress))]
    notes = [each for each in (routed.note, certificate) if each is not None]
    return _with_status(obj, status, [*found, *notes], now)


def domain_mapping(obj: Object, url: str, found: list[Object], now: str) -> Object:
    """`url` is where the host answers; `found` are the conditions, Ready among them."""
    return _with_status(obj, {"url": url, "address": {"url": url}}, found, now)


def _url(obj: Object) -> str:
    return str(obj.get("status", {}).get("url", ""))


def service(obj: Object, configuration_obj: Object | None, route_obj: Object | None, not_owned: str, now: str) -> Object:
    """`not_owned`: the kind of a child that exists already and belongs to nobody or to somebody else."""
    if not_owned:
        said = f"a {not_owned} named {objects.name_of(obj)!r} exists already and is not this Service's; delete or rename one"
        found = [condition(kind, FALSE, "NotOwned", said) for kind in ("ConfigurationsReady", "RoutesReady", "Ready")]
        return _with_status(obj, {}, found, now)
    below = configuration_obj.get("status", {}) if configuration_obj is not None else {}
    routed = route_obj.get("status", {}) if route_obj is not None else {}
    parts = [_mirror("ConfigurationsReady", configuration_obj), _mirror("RoutesReady", route_obj)]
    status = {
        "url": routed.get("url"),
        "address": routed.get("address"),
        "traffic": routed.get("traffic"),
        "latestCreatedRevisionName": below.get("latestCreatedRevisionName"),
        "latestReadyRevisionName": below.get("latestReadyRevisionName"),
    }
    notes = [each for each in routed.get("conditions") or () if each["type"] == provision.KIND]
    return _with_status(obj, status, [*parts, *notes, conditions.ready(parts)], now)


def _mirror(kind: str, child: Object | None) -> Object:
    state = find(child or {}, "Ready")
    return condition(kind, state["status"], state.get("reason", ""), state.get("message", ""))
