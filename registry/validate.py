"""Is what a client sent a Service, Configuration, Route or DomainMapping? Every fault is found at once, with its path. Nothing raises."""

from collections.abc import Mapping
from typing import Any

from registry import domains, objects, reach, rules
from registry.annotations import PREFIX
from registry.bounds import Bounds
from registry.objects import Object
from registry.problem import (
    DNS_1035,
    DNS_LABEL,
    INVALID,
    Checker,
    Problem,
    Problems,
    boolean,
    closest,
    integer,
    label_map,
    list_of,
    mapping,
    matching,
    string_map,
)
from registry.revise import same_template
from registry.template import template

MAX_TARGETS = 100
TCP_PORTS = range(1024, 65536)
"""What services may have of their own; those below are the machine's."""


def validate(kind: objects.Kind, obj: Any, bounds: Bounds) -> Problems:
    """All that is wrong with `obj`, from which nulls and empty values were pruned."""
    problems = Problems()
    if not isinstance(obj, dict):
        problems.bad("", obj, f"a {kind.kind} as a JSON or YAML mapping")
        return problems
    if obj.get("apiVersion", kind.api_version) != kind.api_version:
        problems.bad("apiVersion", obj["apiVersion"], kind.api_version)
    if obj.get("kind", kind.kind) != kind.kind:
        problems.bad("kind", obj["kind"], kind.kind)
    known = ("apiVersion", "kind", "metadata", "spec", "status")
    for name in obj:
        if name not in known:
            problems.append(Problem(str(name), f"unknown field{closest(str(name), known)}; known: {', '.join(known)}"))
    name = _metadata(problems, obj.get("metadata"), _host(bounds) if kind is objects.DOMAIN_MAPPING else _NAME)
    if kind is not objects.CONFIGURATION:
        of = "domain" if kind is objects.DOMAIN_MAPPING else "route"
        rules.check(problems, objects.annotations_of(obj), "metadata.annotations", of=of)
    if kind in (objects.SERVICE, objects.ROUTE) and not problems:
        reach.check_route(problems, obj, "metadata.annotations")
    _spec_of(kind, bounds, name)(problems, obj.get("spec", {}), "spec")
    _tcp_port(problems, kind, obj)
    return problems


def _tcp_port(problems: Problems, kind: objects.Kind, obj: Object) -> None:
    """A port number, and only together with a container port named `tcp`."""
    where = f"metadata.annotations[{objects.ANNOTATION_TCP_PORT}]"
    given = objects.annotations_of(obj).get(objects.ANNOTATION_TCP_PORT)
    if given is not None and not (str(given).isascii() and str(given).isdigit() and int(given) in TCP_PORTS):
        problems.bad(where, given, f"a port from {TCP_PORTS.start} to {TCP_PORTS.stop - 1}")
    if kind is not objects.SERVICE or problems:
        return
    port = (obj["spec"]["template"]["spec"]["containers"][0].get("ports") or [{}])[0]
    if (port.get("name") == "tcp") != (given is not None):
        at = "spec.template.spec.containers[0].ports[0].name"
        if given is None:
            problems.missing(where, f"the front door's port for this service, as {at} is tcp")
        else:
            problems.bad(at, port.get("name", "http1"), f"tcp, as the service has {objects.ANNOTATION_TCP_PORT}")


_NAME = matching(DNS_1035, "lower-case letters, digits and '-', beginning with a letter")


def _host(bounds: Bounds) -> Checker:
    """The name of a DomainMapping is its host."""

    def check(problems: Problems, value: Any, path: str) -> None:
        if allowed := domains.host_problem(value, bounds.own_domains):
            problems.bad(path, value, allowed)

    return check


def _metadata(problems: Problems, value: Any, check_name: Checker) -> str:
    """Checks metadata; the object's name, or an empty string. Fields the server sets are accepted and overruled."""
    if not isinstance(value, dict):
        problems.missing("metadata", "a mapping with a name")
        return ""
    name, prefix = value.get("name"), value.get("generateName")
    if name is not None:
        check_name(problems, name, "metadata.name")
    elif prefix is not None and check_name is _NAME:
        stem = prefix.rstrip("-") if isinstance(prefix, str) else prefix
        allowed = "lower-case letters, digits and '-', beginning with a letter"
        matching(DNS_1035, allowed, 57)(problems, stem, "metadata.generateName")
    else:
        problems.missing("metadata.name", "a name, or metadata.generateName" if check_name is _NAME else domains.ALLOWED)
    if "labels" in value:
        label_map(problems, value["labels"], "metadata.labels")
        visibility = value["labels"].get(objects.LABEL_VISIBILITY) if isinstance(value["labels"], dict) else None
        if visibility not in (None, "cluster-local"):
            problems.bad(f"metadata.labels[{objects.LABEL_VISIBILITY}]", visibility, "cluster-local, or no such label")
    if "annotations" in value:
        string_map(problems, value["annotations"], "metadata.annotations")
        for key in value["annotations"] if isinstance(value["annotations"], dict) else ():
            if str(key).startswith(PREFIX):
                where = f"metadata.annotations[{key}]"
                problems.forbid(where, "scaling is set per revision: put it under spec.template.metadata.annotations")
            elif key == objects.ANNOTATION_HTTP_PROTOCOL:
                said = value["annotations"][key]
                if str(said).lower() not in ("enabled", "redirected"):
                    problems.bad(f"metadata.annotations[{key}]", said, "Enabled or Redirected")
    if value.get("finalizers"):
        problems.forbid("metadata.finalizers", "is not supported: nothing here would wait for them")
    return name if isinstance(name, str) else ""


def _spec_of(kind: objects.Kind, bounds: Bounds, name: str) -> Checker:
    if kind is objects.DOMAIN_MAPPING:
        return domains.spec()
    if kind is objects.ROUTE:
        return mapping({"traffic": traffic(in_service=False)}, required=("traffic",))
    if kind is objects.CONFIGURATION:
        return mapping({"template": template(bounds, name)}, required=("template",))
    return mapping(
        {"template": template(bounds, name), "traffic": traffic(in_service=True, service=name)}, required=("template",)
    )


def traffic(*, in_service: bool, service: str = "") -> Checker:
    """Checks `spec.traffic`: each target names one thing, tags are DNS labels and differ, percents sum to 100."""
    fields: dict[str, Checker] = {
        "tag": matching(DNS_LABEL, "a DNS label"),
        "revisionName": matching(DNS_1035, "the name of a revision"),
        "configurationName": matching(DNS_1035, "the name of a configuration"),
        "latestRevision": boolean,
        "percent": integer(0, 100),
    }
    if in_service:
        del fields["configurationName"]
    refused = {
        "configurationName": "a Service's traffic goes to its own revisions; use latestRevision",
        "url": "it is reported in status.traffic",
    }
    target = mapping(fields, {k: v for k, v in refused.items() if k not in fields})

    def check(problems: Problems, value: Any, path: str) -> None:
        list_of(target, MAX_TARGETS)(problems, value, path)
        if not isinstance(value, list):
            return
        tags: set[str] = set()
        percents: list[int] = []
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                where = f"{path}[{index}]"
                _aim(problems, item, where, in_service)
                _tag(problems, item.get("tag"), f"{where}.tag", tags, service)
                percent = item.get("percent", 0)
                percents.append(percent if isinstance(percent, int) else 0)
        if value and sum(percents) != 100 and len(percents) == len(value):
            parts = " + ".join(str(p) for p in percents)
            problems.append(Problem(path, f"the percents sum to {parts} = {sum(percents)}; allowed: a sum of 100", INVALID))

    return check


def _aim(problems: Problems, item: Mapping[str, Any], where: str, in_service: bool) -> None:
    revision, latest = item.get("revisionName"), item.get("latestRevision")
    if revision is not None and latest is True:
        problems.bad(f"{where}.latestRevision", True, "false or absent beside revisionName")
    if revision is None and latest is False and (in_service or "configurationName" not in item):
        problems.missing(f"{where}.revisionName", "a revision's name when latestRevision is false")
    if not in_service:
        both = [f for f in ("revisionName", "configurationName") if f in item]
        if len(both) != 1:
            problems.bad(where, " and ".join(both) or "neither", "exactly one of revisionName and configurationName")


def _tag(problems: Problems, tag: Any, where: str, tags: set[str], service: str) -> None:
    if not isinstance(tag, str):
        return
    if tag in tags:
        problems.twice(where, tag)
    tags.add(tag)
    if service and len(tag) + 1 + len(service) > 63:
        length = len(tag) + 1 + len(service)
        problems.bad(where, tag, f"a tag with which '{tag}-{service}' has at most 63 characters; it has {length}")


def renamed_template(kind: objects.Kind, old: Object, new: Object) -> Problems:
    """A template that changed but kept the revision name it was given. Both specs are canonical."""
    problems = Problems()
    if kind not in (objects.SERVICE, objects.CONFIGURATION):
        return problems
    before, after = old.get("spec", {}).get("template", {}), new.get("spec", {}).get("template", {})
    name = after.get("metadata", {}).get("name")
    if name and before.get("metadata", {}).get("name") == name and before != after:
        problems.bad(
            "spec.template.metadata.name",
            name,
            "a new name (or none) when the template changes: a revision never changes once it is made",
        )
    return problems


def taken_name(revision: Object, new: Object) -> Problems:
    """The name the template of `new` gives belongs to `revision`: fine only when that is what the template would make."""
    problems = Problems()
    template = new["spec"]["template"]
    owner = objects.labels_of(revision).get(objects.LABEL_CONFIGURATION)
    if owner != objects.name_of(new) or not same_template(revision, template):
        name = objects.meta(template)["name"]
        problems.bad("spec.template.metadata.name", name, "a name that no revision has; this one exists with another template")
    return problems
