"""From what a client sent to the object that is stored: which fields are its, which are the server's. Pure."""

from typing import Any

from registry import defaults, objects
from registry.bounds import Bounds
from registry.objects import Object

ACTOR = "anonymous"


def new(kind: objects.Kind, body: Object, project: str, name: str, uid: str, now: str, bounds: Bounds) -> Object:
    """The object to store for a valid `body` that did not exist. `now` is RFC 3339."""
    given = body["metadata"]
    annotations = {**given.get("annotations", {}), objects.ANNOTATION_CREATOR: ACTOR, objects.ANNOTATION_MODIFIER: ACTOR}
    meta: Object = {"name": name, "namespace": project, "uid": uid, "creationTimestamp": now, "generation": 1}
    if given.get("labels"):
        meta["labels"] = given["labels"]
    if given.get("generateName"):
        meta["generateName"] = given["generateName"]
    meta["annotations"] = annotations
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": meta,
        "spec": defaults.canonical(kind, body.get("spec", {}), bounds),
    }


def replaced(kind: objects.Kind, old: Object, body: Object, bounds: Bounds) -> Object:
    """`old` with the labels, annotations and spec of a valid `body`. The same value when nothing changes in meaning.

    The generation grows only when the canonical spec differs.
    """
    given = body["metadata"]
    spec = defaults.canonical(kind, body.get("spec", {}), bounds)
    before = defaults.canonical(kind, old.get("spec", {}), bounds)
    changed = spec != before
    meta = {**old["metadata"]}
    own = (objects.ANNOTATION_CREATOR, objects.ANNOTATION_MODIFIER)
    kept = {name: value for name, value in objects.annotations_of(old).items() if name in own}
    meta["annotations"] = {**given.get("annotations", {}), **kept}
    if given.get("labels"):
        meta["labels"] = given["labels"]
    else:
        meta.pop("labels", None)
    if changed:
        meta["generation"] = objects.generation_of(old) + 1
        meta["annotations"][objects.ANNOTATION_MODIFIER] = ACTOR
    elif meta == old["metadata"]:
        return old
    return {**old, "metadata": meta, "spec": spec if changed else old["spec"]}


def shown(obj: Object, store_rev: int) -> Object:
    """The object as clients see it: with its resourceVersion, which is not stored."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(store_rev)}}


def precondition(meta: Any, uid: str, store_rev: int) -> str:
    """Why what the client knows (its metadata or its preconditions) is not what is stored, or nothing."""
    if not isinstance(meta, dict):
        return ""
    wanted = meta.get("resourceVersion")
    if wanted and str(wanted) != str(store_rev):
        return "the object has been modified; please apply your changes to the latest version and try again"
    if meta.get("uid") and meta["uid"] != uid:
        return f"the UID in the precondition is {meta['uid']}, the object's is {uid}: it was deleted and made again"
    return ""
