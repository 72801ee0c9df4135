"""What a DomainMapping may say: its host (which is its name), what it points to, and which hosts nobody may map. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from registry import objects, rules
from registry.objects import Object
from registry.problem import DNS_1035, DNS_SUBDOMAIN, Checker, Problems, mapping, matching, one_of

MAX_LENGTH, MAX_LABELS = 253, 30
_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+")
ALLOWED = "a host of at least two labels in lower case, such as shop.example, or *.shop.example for all below it"


def host_problem(host: Any, own: Iterable[str]) -> str:
    """Why `host` cannot be mapped, as what is allowed instead; empty when it can. `own` are the platform's own domains."""
    if not isinstance(host, str) or len(host) > MAX_LENGTH or _HOST.fullmatch(host) is None:
        return ALLOWED
    labels = host.split(".")
    if len(labels) > MAX_LABELS:
        return f"a host of at most {MAX_LABELS} labels; it has {len(labels)}"
    if labels[-1].isdigit():
        return "a name, not an address"
    bare = host.removeprefix("*.")
    for domain in own:
        if bare == domain or bare.endswith(f".{domain}") or (host != bare and domain.endswith(f".{bare}")):
            return f"a host outside {domain}, whose names are given by services and their tags"
    return ""


def above(host: str) -> list[str]:
    """The wildcards that stand for `host` too, the nearest first: `a.b.c.d` → `*.b.c.d`, `*.c.d`."""
    labels = host.removeprefix("*.").split(".")
    return ["*." + ".".join(labels[at:]) for at in range(1, len(labels) - 1)]


def spec() -> Checker:
    """Checks `spec`: Knative's `ref` to a Service or Route of the same project, and `tls.secretName`."""
    ref = mapping(
        {
            "kind": one_of("Service", "Route"),
            "name": matching(DNS_1035, "the name of a service"),
            "namespace": matching(DNS_1035, "the project itself"),
            "apiVersion": one_of(objects.API_VERSION),
            "group": one_of(objects.GROUP),
        },
        {"address": "a domain leads to a Service or Route; name one"},
        required=("name",),
    )
    tls = mapping({"secretName": matching(DNS_SUBDOMAIN, "the name of a Secret", MAX_LENGTH)}, required=("secretName",))
    return mapping({"ref": ref, "tls": tls}, required=("ref",))


def canonical(spec: Object) -> Object:
    """`spec` with what `ref` leaves out."""
    ref = spec.get("ref")
    return {**spec, "ref": {"apiVersion": objects.API_VERSION, "kind": "Service", **ref}} if isinstance(ref, dict) else spec


def elsewhere(obj: Object, project: str, problems: Problems) -> None:
    """A reference into another project is a fault: what a host shows is its owner's."""
    ref = obj["spec"].get("ref")
    named = ref.get("namespace", project) if isinstance(ref, dict) else project
    if named != project:
        problems.bad("spec.ref.namespace", named, f"{project!r}, the project of the mapping itself")


def references(obj: Object) -> list[tuple[str, str]]:
    """(kind, name) of all that the mapping leads to: first its own, then those of its paths."""
    ref = obj["spec"]["ref"]
    paths = rules.paths_of(objects.annotations_of(obj))
    return [(ref["kind"], ref["name"]), *dict.fromkeys(("Route", rule.route) for rule in paths)]


def secret_of(obj: Object) -> str:
    """The Secret that the mapping names, or an empty string."""
    return str(obj["spec"].get("tls", {}).get("secretName", ""))
