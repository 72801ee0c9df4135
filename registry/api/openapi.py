"""OpenAPI v3 as Kubernetes' clients look for it: enough to know that the server itself validates fields and can rehearse."""

from collections.abc import Collection
from typing import Any

from registry.objects import GROUP, KINDS, SECRET, VALUES, VERSION, VERSIONS, Kind

CORE_PATH = "api/v1"
_ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def group_path(version: str) -> str:
    """Where Knative's group in `version` is."""
    return f"apis/{GROUP}/{version}"


def index() -> dict[str, Any]:
    """The answer to /openapi/v3."""
    paths = [*map(group_path, VERSIONS), CORE_PATH]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=1"} for path in paths}}


def document(version: str) -> dict[str, Any]:
    """The description of Knative's group in `version`, under /openapi/v3/apis/…"""
    return _document(group_path(version), "dev.knative.serving", [kind for kind in KINDS.values() if kind.version == version])


def core_document() -> dict[str, Any]:
    """The description of Kubernetes' core group, under /openapi/v3/api/v1."""
    return _document(CORE_PATH, "io.k8s.api.core", VALUES.values())


def _document(path: str, package: str, kinds: Collection[Kind]) -> dict[str, Any]:
    return {
        "openapi": "3.0.0",
        "info": {"title": "Ebb", "version": VERSION},
        "paths": {
            f"/{path}/namespaces/{{namespace}}/{kind.plural}/{{name}}": _path(kind) for kind in kinds if kind.client_writes
        },
        "components": {"schemas": {f"{package}.{kind.version}.{kind.kind}": _schema(kind) for kind in kinds}},
    }


def _gvk(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _path(kind: Kind) -> dict[str, Any]:
    query = [
        {"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    answer = {"200": {"description": "OK"}}
    return {
        "patch": {
            "parameters": query,
            "responses": answer,
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": _gvk(kind),
        }
    }


def _schema(kind: Kind) -> dict[str, Any]:
    text = {"type": "string"}
    own = {"spec": _ANY, "status": _ANY} if kind.group else {"data": _ANY, "type": text, "immutable": {"type": "boolean"}}
    if not kind.group:
        own["stringData" if kind is SECRET else "binaryData"] = _ANY
    properties = {"apiVersion": text, "kind": text, "metadata": _ANY, **own}
    return {"type": "object", "properties": properties, "x-kubernetes-group-version-kind": [_gvk(kind)]}
