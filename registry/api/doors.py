"""What every route of the API means to `authorisation.decide`: which action on which kind, and in which project.

The project is the path's `{ns}`, or `{name}` where projects themselves are the kind; never what a body says. A route that is not in
this table is the platform-admin's alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.authorisation import READING
from registry.objects import GROUP, VERSIONS
from registry.problem import DNS_LABEL

EBB = "/apis/ebb.dev/v1"
HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""They say nothing but that the process turns."""
JWKS, DISCOVERY = EBB + "/identity-keys", "/.well-known/openid-configuration"
OPEN = HEALTH | {JWKS, DISCOVERY}
"""Answered to everybody."""
_NAME = re.compile(r"[A-Za-z0-9*._:@+/-]{1,253}")


@dataclass(frozen=True, slots=True)
class Door:
    """`kind` empty: the path's `{plural}`. `query`: the project is the query parameter of that name."""

    action: str
    kind: str = ""
    query: str = ""


UNKNOWN = Door("create", "unknown")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a request wants, as far as its method, path and query say."""

    action: str
    kind: str
    project: str
    name: str

    @property
    def changes(self) -> bool:
        return self.action not in READING and self.kind != "discovery"

    @property
    def told(self) -> bool:
        """Whether the audit log has it: what changes something, and what shows a secret's values."""
        return self.changes or (self.kind == "secrets" and self.action == "get")


def _objects(root: str, *, status: bool) -> dict[tuple[str, str], Door]:
    many, one = f"{root}/namespaces/{{ns}}/{{plural}}", f"{root}/namespaces/{{ns}}/{{plural}}/{{name}}"
    found = {
        ("GET", many): Door("list"),
        ("GET", f"{root}/{{plural}}"): Door("list"),
        ("POST", many): Door("create"),
        ("GET", one): Door("get"),
        ("PUT", one): Door("update"),
        ("PATCH", one): Door("update"),
        ("DELETE", one): Door("delete"),
    }
    return found | ({("GET", one + "/status"): Door("get")} if status else {})


_NS = EBB + "/namespaces/{ns}"
_DISCOVERY = (
    "/version", "/api", "/api/v1", "/apis", f"/apis/{GROUP}", *(f"/apis/{GROUP}/{version}" for version in VERSIONS),
    "/openapi/v3", "/openapi/v3/api/v1", *(f"/openapi/v3/apis/{GROUP}/{version}" for version in VERSIONS),
    "/openapi.json", "/schema", "/schema/openapi.json", "/schema/{path}", *sorted(OPEN),
)  # fmt: skip
DOORS: Mapping[tuple[str, str], Door] = {
    **{("GET", path): Door("get", "discovery") for path in _DISCOVERY},
    **_objects("/api/v1", status=False),
    **{key: door for version in VERSIONS for key, door in _objects(f"/apis/{GROUP}/{version}", status=True).items()},
    ("GET", "/api/v1/namespaces"): Door("list", "namespaces"),
    ("POST", "/api/v1/namespaces"): Door("create", "projects"),
    ("GET", "/api/v1/namespaces/{name}"): Door("get", "projects"),
    ("DELETE", "/api/v1/namespaces/{name}"): Door("delete", "projects"),
    ("GET", EBB + "/projects"): Door("list", "projects"),
    ("POST", EBB + "/projects"): Door("create", "projects"),
    ("GET", EBB + "/projects/{name}"): Door("get", "projects"),
    ("PUT", EBB + "/projects/{name}"): Door("update", "projects"),
    ("PATCH", EBB + "/projects/{name}"): Door("update", "projects"),
    ("DELETE", EBB + "/projects/{name}"): Door("delete", "projects"),
    ("POST", EBB + "/images"): Door("create", "images"),
    ("GET", EBB + "/images"): Door("list", "images"),
    ("DELETE", EBB + "/images"): Door("delete", "images"),
    ("POST", _NS + "/images"): Door("create", "images"),
    ("GET", _NS + "/images"): Door("list", "images"),
    ("DELETE", _NS + "/images"): Door("delete", "images"),
    ("GET", _NS + "/images:progress"): Door("watch", "images"),
    ("GET", _NS + "/services/{name}/logs"): Door("get", "logs"),
    ("GET", _NS + "/services/{name}/why"): Door("get", "services"),
    ("GET", _NS + "/instances"): Door("list", "instances"),
    ("GET", _NS + "/certificates"): Door("list", "certificates"),
    ("GET", EBB + "/nodes"): Door("list", "nodes"),
    ("GET", EBB + "/story/{about}"): Door("get", "self"),
    ("GET", EBB + "/top"): Door("watch", "top", query="project"),
    ("GET", _NS + "/secrets/{name}/versions"): Door("list", "secrets"),
    ("POST", EBB + "/secrets:rotate"): Door("update", "secrets"),
    ("POST", EBB + "/identity-tokens"): Door("create", "self"),
    ("GET", EBB + "/whoami"): Door("get", "self"),
    ("GET", EBB + "/tokens"): Door("list", "self"),
    ("POST", EBB + "/tokens"): Door("create", "self"),
    ("DELETE", EBB + "/tokens/{name}"): Door("delete", "self"),
    ("GET", EBB + "/users"): Door("list", "users"),
    ("POST", EBB + "/users"): Door("create", "users"),
    ("PATCH", EBB + "/users/{principal}"): Door("update", "users"),
    ("DELETE", EBB + "/users/{principal}"): Door("delete", "users"),
    ("GET", EBB + "/bindings"): Door("list", "bindings"),
    ("PUT", EBB + "/bindings/{role}/{principal}"): Door("update", "bindings"),
    ("DELETE", EBB + "/bindings/{role}/{principal}"): Door("delete", "bindings"),
    ("GET", _NS + "/bindings"): Door("list", "bindings"),
    ("PUT", _NS + "/bindings/{role}/{principal}"): Door("update", "bindings"),
    ("DELETE", _NS + "/bindings/{role}/{principal}"): Door("delete", "bindings"),
    ("GET", EBB + "/audit"): Door("list", "audit"),
    ("GET", _NS + "/audit"): Door("list", "audit"),
}


class NoSuchPlace(Exception):
    """The path names something that can be nobody's: a project or name that no rule of naming allows."""


def entry(method: str, template: str, path: Mapping[str, Any], query: Mapping[str, str]) -> Entry:
    """What a request at the route `template` wants. Raises NoSuchPlace."""
    door = Door("get", "discovery") if method == "OPTIONS" else DOORS.get((method, template), UNKNOWN)
    kind = door.kind or str(path.get("plural", ""))
    name = str(path.get("name") or path.get("principal") or "").lstrip("/")
    project = query.get(door.query, "") if door.query else str(path.get("ns", ""))
    if door is UNKNOWN:
        project = ""
    if kind == "projects" and name:
        project = name
    if (project and not is_project(project)) or (name and not _NAME.fullmatch(name)):
        raise NoSuchPlace
    return Entry(door.action, kind, project, name)


def is_project(name: str) -> bool:
    """Whether a project may be called so."""
    return len(name) <= 63 and DNS_LABEL.fullmatch(name) is not None
