"""OpenAPI v3 as Kubernetes' clients look for it: enough to know that the server itself validates fields and can rehearse."""

from typing import Any

from registry.objects import API_VERSION, GROUP, KINDS, VERSION, Kind

GROUP_PATH = f"apis/{API_VERSION}"
_ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def index() -> dict[str, Any]:
    """The answer to /openapi/v3."""
    return {"paths": {GROUP_PATH: {"serverRelativeURL": f"/openapi/v3/{GROUP_PATH}?hash=1"}}}


def document() -> dict[str, Any]:
    """The description of the group, under /openapi/v3/apis/…"""
    kinds = KINDS.values()
    return {
        "openapi": "3.0.0",
        "info": {"title": "Ebb", "version": VERSION},
        "paths": {
            f"/{GROUP_PATH}/namespaces/{{namespace}}/{kind.plural}/{{name}}": _path(kind)
            for kind in kinds
            if kind.client_writes
        },
        "components": {"schemas": {f"dev.knative.serving.{VERSION}.{kind.kind}": _schema(kind) for kind in kinds}},
    }


def _gvk(kind: Kind) -> dict[str, str]:
    return {"group": GROUP, "version": VERSION, "kind": kind.kind}


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
    properties = {"apiVersion": text, "kind": text, "metadata": _ANY, "spec": _ANY, "status": _ANY}
    return {"type": "object", "properties": properties, "x-kubernetes-group-version-kind": [_gvk(kind)]}
