"""What clients ask before they speak: versions, groups and resources, as Kubernetes' discovery says them."""

from typing import Any

from registry.objects import GROUP, KINDS, VALUES, VERSIONS

_WRITES = ["create", "delete", "get", "list", "patch", "update", "watch"]
_READS = ["delete", "get", "list", "watch"]


def version() -> dict[str, Any]:
    return {
        "major": "1",
        "minor": "31",
        "gitVersion": "v1.31.0+ebb",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def core_versions() -> dict[str, Any]:
    return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def core_resources() -> dict[str, Any]:
    names = {"name": "namespaces", "singularName": "namespace", "namespaced": False, "kind": "Namespace"}
    resources: list[dict[str, Any]] = [{**names, "verbs": ["create", "delete", "get", "list"], "shortNames": ["ns"]}]
    for kind in VALUES.values():
        own = {"name": kind.plural, "singularName": kind.singular, "namespaced": True, "kind": kind.kind, "verbs": _WRITES}
        resources.append({**own, "shortNames": list(kind.short_names)} if kind.short_names else own)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": resources}


def group() -> dict[str, Any]:
    versions = [{"groupVersion": f"{GROUP}/{version}", "version": version} for version in VERSIONS]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": versions, "preferredVersion": versions[0]}


def groups() -> dict[str, Any]:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}


def resources(version: str) -> dict[str, Any]:
    """The kinds of GROUP in `version`."""
    found: list[dict[str, Any]] = []
    for kind in KINDS.values():
        if kind.version != version:
            continue
        verbs = _WRITES if kind.client_writes else _READS
        names = {"singularName": kind.singular, "namespaced": True, "kind": kind.kind, "group": GROUP, "version": version}
        categories = ["all", "knative", "serving"]
        found.append(
            {"name": kind.plural, **names, "verbs": verbs, "shortNames": list(kind.short_names), "categories": categories}
        )
        found.append({"name": f"{kind.plural}/status", **names, "singularName": "", "verbs": ["get"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{version}", "resources": found}


def namespace(name: str) -> dict[str, Any]:
    """A project as the Namespace that clients of Kubernetes look for."""
    meta = {"name": name, "labels": {"kubernetes.io/metadata.name": name}}
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": meta, "status": {"phase": "Active"}}


def namespaces(names: list[str]) -> dict[str, Any]:
    items = [namespace(name) for name in names]
    return {"kind": "NamespaceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
