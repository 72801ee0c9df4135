"""Tables, for clients that print what the server chooses (`kubectl get ksvc`)."""

from calendar import timegm
from time import strptime
from typing import Any

from registry.conditions import find
from registry.objects import (
    ANNOTATION_KEYS,
    CONFIG_MAP,
    CONFIGURATION,
    DOMAIN_MAPPING,
    GROUP,
    REVISION,
    ROUTE,
    SECRET,
    SERVICE,
    Kind,
    Object,
    annotations_of,
    labels_of,
    meta,
)

_READY = ("Ready", "Reason")
_COLUMNS: dict[str, tuple[str, ...]] = {
    SERVICE.plural: ("Name", "URL", "LatestCreated", "LatestReady", *_READY, "Age"),
    CONFIGURATION.plural: ("Name", "LatestCreated", "LatestReady", *_READY, "Age"),
    ROUTE.plural: ("Name", "URL", *_READY, "Age"),
    REVISION.plural: ("Name", "Config Name", "Generation", *_READY, "Actual Replicas", "Desired Replicas", "Age"),
    DOMAIN_MAPPING.plural: ("Name", "URL", *_READY, "Age"),
    SECRET.plural: ("Name", "Type", "Data", "Age"),
    CONFIG_MAP.plural: ("Name", "Data", "Age"),
}


def wanted(accept: str) -> bool:
    """Whether an Accept header asks for a table."""
    return "as=Table" in accept and "v=v1;" in accept


def table(kind: Kind, items: list[Object], list_meta: Object, now: float) -> Object:
    """A meta.k8s.io/v1 Table of `items`. `now` in wall seconds."""
    names = _COLUMNS[kind.plural]
    columns = [{"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": 0}
               for name in names]  # fmt: skip
    rows = [{"cells": [_cell(name, obj, now) for name in names], "object": _partial(obj)} for obj in items]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta, "columnDefinitions": columns, "rows": rows}


def _partial(obj: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta(obj)}


def _cell(column: str, obj: Object, now: float) -> Any:
    status = obj.get("status") or {}
    if column == "Name":
        return meta(obj).get("name", "")
    if column == "Age":
        return age(now - _seconds(meta(obj).get("creationTimestamp", "")))
    if column == "Type":
        return obj.get("type", "")
    if column == "Data":
        return str(len(annotations_of(obj).get(ANNOTATION_KEYS, "").split()))
    if column in _READY:
        return str(find(obj, "Ready").get("status" if column == "Ready" else "reason", ""))
    if column == "Config Name":
        return labels_of(obj).get(f"{GROUP}/configuration", "")
    if column == "Generation":
        return labels_of(obj).get(f"{GROUP}/configurationGeneration", "")
    field = {
        "URL": "url", "LatestCreated": "latestCreatedRevisionName", "LatestReady": "latestReadyRevisionName",
        "Actual Replicas": "actualReplicas", "Desired Replicas": "desiredReplicas",
    }[column]  # fmt: skip
    return str(status.get(field, ""))


def _seconds(timestamp: str) -> float:
    try:
        return float(timegm(strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0


def age(seconds: float) -> str:
    """`42s`, `5m`, `3h`, `12d`."""
    if seconds < 120:
        return f"{max(0, int(seconds))}s"
    if seconds < 7200:
        return f"{int(seconds // 60)}m"
    return f"{int(seconds // 3600)}h" if seconds < 172_800 else f"{int(seconds // 86_400)}d"
