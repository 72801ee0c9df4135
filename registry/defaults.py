"""The canonical form of a spec: nulls and empty values gone, defaults filled in. Equal meaning, equal bytes."""

from typing import Any

from registry import domains, objects
from registry.bounds import Bounds
from registry.objects import Object

_VERBATIM = frozenset({"labels", "annotations"})
_KEEP_EMPTY = frozenset({"httpGet", "tcpSocket", "exec", "grpc"})
"""Handlers of a probe: `tcpSocket: {}` says which kind it is."""


def prune(value: Any) -> Any:
    """`value` without nulls, empty strings, empty lists and empty mappings inside mappings; list items all stay."""
    if isinstance(value, dict):
        return {name: kept for name, item in value.items() if not _empty(name, kept := _pruned_field(name, item))}
    if isinstance(value, list):
        return [prune(item) for item in value]
    return value


def _pruned_field(name: str, item: Any) -> Any:
    if name in _VERBATIM and isinstance(item, dict):
        return {key: text for key, text in item.items() if text is not None}
    return prune(item)


def _empty(name: str, item: Any) -> bool:
    return item is None or (item in ("", [], {}) and name not in _KEEP_EMPTY and not isinstance(item, bool))


def canonical(kind: objects.Kind, given: Any, bounds: Bounds) -> Object:
    """The spec `given` with every default. Idempotent; an invalid spec comes back unharmed where it makes no sense."""
    pruned = prune(given)
    spec: Object = {**pruned} if isinstance(pruned, dict) else {}
    if kind is objects.DOMAIN_MAPPING:
        return domains.canonical(spec)
    if kind is not objects.ROUTE:
        spec["template"] = _template(spec.get("template"), bounds)
    if kind is not objects.CONFIGURATION:
        targets = spec.get("traffic")
        if not isinstance(targets, list):
            targets = [{"latestRevision": True, "percent": 100}] if kind is objects.SERVICE else []
        spec["traffic"] = [_target(target) for target in targets]
    return spec


def _target(target: Any) -> Any:
    if not isinstance(target, dict):
        return target
    return {**target, "latestRevision": "revisionName" not in target}


def _template(given: Any, bounds: Bounds) -> Object:
    if not isinstance(given, dict):
        return {}
    template: Object = {**given}
    if isinstance(template.get("metadata"), dict):
        kept = {name: value for name, value in template["metadata"].items() if name != "creationTimestamp"}
        template["metadata"] = kept
        if not kept:
            del template["metadata"]
    spec = template.get("spec")
    if isinstance(spec, dict):
        template["spec"] = {
            **spec,
            "containerConcurrency": spec.get("containerConcurrency", 0),
            "timeoutSeconds": spec.get("timeoutSeconds") or bounds.timeout_default_s,
            "enableServiceLinks": spec.get("enableServiceLinks", False),
        }
        containers = spec.get("containers")
        if isinstance(containers, list):
            template["spec"]["containers"] = [_container(container) for container in containers]
    return template


def _container(container: Any) -> Any:
    if not isinstance(container, dict):
        return container
    full = {"name": "user-container", **container}
    full["readinessProbe"] = _readiness(container.get("readinessProbe"))
    for name in ("livenessProbe", "startupProbe"):
        if isinstance(container.get(name), dict):
            full[name] = _other_probe(container[name])
    return full


def _readiness(probe: Any) -> Any:
    """Knative's default: TCP on the container's own port, as fast as is sensible (`periodSeconds` absent)."""
    if probe is not None and not isinstance(probe, dict):
        return probe
    full = {"successThreshold": 1, **(probe or {})}
    if not any(handler in full for handler in _KEEP_EMPTY):
        full["tcpSocket"] = {"port": 0}
    if full.get("periodSeconds"):
        full = {"timeoutSeconds": 1, "failureThreshold": 3, **full}
    return full


def _other_probe(probe: Object) -> Object:
    full = {"periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3, **probe}
    if not any(handler in full for handler in _KEEP_EMPTY):
        full["tcpSocket"] = {"port": 0}
    return full
