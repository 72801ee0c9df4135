"""Which revision a configuration's current template is, and the making of a new one."""

from collections.abc import Mapping
from dataclasses import dataclass

from registry import objects
from registry.objects import Object
from registry.problem import Problem


@dataclass(frozen=True, slots=True)
class Current:
    """The revision of a configuration's present generation: it exists (`minted` None) or is made now."""

    name: str
    minted: Object | None = None
    problem: Problem | None = None


def current(configuration: Object, revisions: Mapping[str, Object], now: str) -> Current:
    """Only a change of spec.template raises the generation, so only that makes a revision. `revisions`: all of the project
    that might be of this configuration or have the name it would take. `now` is RFC 3339."""
    generation = str(objects.generation_of(configuration))
    uid = objects.meta(configuration)["uid"]
    template = configuration["spec"]["template"]
    given = objects.meta(template).get("name")
    if given:
        return _given_name(configuration, revisions, given, now)
    for name, revision in revisions.items():
        if objects.labels_of(revision).get(objects.LABEL_GENERATION) == generation and _of(revision, uid):
            return Current(name)
    number = int(generation)
    while (name := objects.child_name(objects.name_of(configuration), f"-{number:05d}")) in revisions:
        number += 1
    return Current(name, mint(configuration, name, now))


def _given_name(configuration: Object, revisions: Mapping[str, Object], name: str, now: str) -> Current:
    existing = revisions.get(name)
    if existing is None:
        return Current(name, mint(configuration, name, now))
    if _of(existing, objects.meta(configuration)["uid"]) and same_template(existing, configuration["spec"]["template"]):
        return Current(name)
    path = "spec.template.metadata.name"
    return Current(name, problem=Problem(path, f"revision {name!r} exists already with another template; give a new name"))


def same_template(revision: Object, template: Object) -> bool:
    """Whether `revision` is what `template` would make."""
    labels, annotations = objects.labels_of(template), objects.annotations_of(template)
    return bool(
        revision["spec"] == template.get("spec")
        and labels.items() <= objects.labels_of(revision).items()
        and annotations.items() <= objects.annotations_of(revision).items()
    )


def mint(configuration: Object, name: str, now: str) -> Object:
    """A new Revision of the configuration's template."""
    owner, template = objects.meta(configuration), configuration["spec"]["template"]
    inherited = objects.labels_of(configuration)
    labels = {
        **objects.labels_of(template),
        objects.LABEL_CONFIGURATION: owner["name"],
        objects.LABEL_CONFIGURATION_UID: owner["uid"],
        objects.LABEL_GENERATION: str(owner["generation"]),
        objects.LABEL_ROUTING_STATE: "pending",
    }
    for label in (objects.LABEL_SERVICE, objects.LABEL_SERVICE_UID):
        if label in inherited:
            labels[label] = inherited[label]
    annotations = dict(objects.annotations_of(template))
    creator = objects.annotations_of(configuration).get(objects.ANNOTATION_CREATOR)
    if creator:
        annotations[objects.ANNOTATION_CREATOR] = creator
    annotations[objects.ANNOTATION_ROUTING_SINCE] = now
    return {
        "apiVersion": objects.API_VERSION,
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": owner["namespace"],
            "uid": objects.child_uid(owner["uid"], "Revision", f"{name}/{now}"),
            "creationTimestamp": now,
            "generation": 1,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": objects.owned_by(configuration),
        },
        "spec": template["spec"],
    }


def _of(revision: Object, configuration_uid: str) -> bool:
    owner = objects.owner_of(revision)
    return owner is not None and owner.get("uid") == configuration_uid


def children(service: Object, now: str) -> tuple[Object, Object]:
    """The Configuration and Route that `service` stands for, as they would be made now."""
    template = service["spec"]["template"]
    traffic = [
        {**target} if "revisionName" in target else {**target, "configurationName": objects.name_of(service)}
        for target in service["spec"]["traffic"]
    ]
    return _child(service, "Configuration", {"template": template}, now), _child(service, "Route", {"traffic": traffic}, now)


def _child(service: Object, kind: str, spec: Object, now: str) -> Object:
    owner = objects.meta(service)
    annotations = {k: v for k, v in objects.annotations_of(service).items() if k != objects.ANNOTATION_LAST_APPLIED}
    labels = {
        **objects.labels_of(service),
        objects.LABEL_SERVICE: owner["name"],
        objects.LABEL_SERVICE_UID: owner["uid"],
    }
    return {
        "apiVersion": objects.API_VERSION,
        "kind": kind,
        "metadata": {
            "name": owner["name"],
            "namespace": owner["namespace"],
            "uid": objects.child_uid(owner["uid"], kind, owner["name"]),
            "creationTimestamp": now,
            "generation": 1,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": objects.owned_by(service),
        },
        "spec": spec,
    }


def follow(existing: Object | None, wanted: Object) -> Object:
    """`existing` with the labels, annotations and spec of `wanted`; its generation grows only when the spec differs."""
    if existing is None:
        return wanted
    meta = {**existing["metadata"]}
    for field in ("labels", "annotations", "ownerReferences"):
        meta[field] = wanted["metadata"][field]
    if existing.get("spec") != wanted["spec"]:
        meta["generation"] = objects.generation_of(existing) + 1
    return {**existing, "metadata": meta, "spec": wanted["spec"]}
