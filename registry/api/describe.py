"""The OpenAPI document: what the routes say of themselves, and what all have in common — who may ask, what is sent, how errors look."""

from collections.abc import Mapping
from typing import Any

from registry.api import schemas
from registry.api.doors import DOORS, HEALTH, OPEN

Document = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
MERGE, JSON_PATCH, APPLY = "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"
LINES = "application/x-ndjson"
_ERRORS: Mapping[str, str] = {
    "400": "The request cannot be read",
    "401": "No token, or one that does not count",
    "403": "Not for this token, or over a quota",
    "404": "Not there, or in a project that is somebody else's",
    "405": "Not for this resource",
    "409": "Somebody else wrote first, it exists, or this engine has no part for it: see the message",
    "410": "Too old a resourceVersion or continue token",
    "413": "Too large",
    "415": "Not a format of bodies that is taken here",
    "422": "Not valid; details.causes names each field",
    "429": "Too many requests; Retry-After says when",
    "502": "A node did not answer",
    "503": "A part that is needed does not answer; details.retryAfterSeconds says when to try again",
    "507": "No room for what was sent",
}
_STATUS = {
    "type": "object",
    "required": ["kind", "status", "message", "reason", "code"],
    "properties": {
        "kind": {"const": "Status"},
        "status": {"const": "Failure"},
        "message": {"type": "string"},
        "reason": {"type": "string"},
        "details": {"type": "object"},
        "code": {"type": "integer"},
    },
}
_LISTS = {
    "labelSelector": "string", "fieldSelector": "string", "limit": "integer", "continue": "string", "watch": "boolean",
    "resourceVersion": "string", "timeoutSeconds": "integer", "allowWatchBookmarks": "boolean", "sendInitialEvents": "boolean",
}  # fmt: skip
_QUERIES: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("get", "/images:progress"): {"image": "string"},
    ("get", "/logs"): {"revision": "string", "instance": "string", "tail": "integer", "follow": "boolean", "since_s": "number"},
    ("get", "/instances"): {"service": "string", "revision": "string"},
    ("get", "/audit"): {"tail": "integer", "follow": "boolean"},
    ("get", "/tokens"): {"all": "boolean", "ended": "boolean"},
    ("get", "/top"): {"project": "string"},
    ("post", "/images"): {"name": "string"},
    ("delete", "/images"): {"name": "string"},
    ("post", "/secrets:rotate"): {"newKey": "boolean", "retire": "boolean"},
}
_STREAMS = ("/logs", "/images:progress", "/top", "/audit")
"""What answers with a line an item."""


def completed(document: Document) -> Document:
    """`document` as it is made from the routes, with all that they have in common."""
    parts = document.setdefault("components", {})
    parts["securitySchemes"] = {
        "token": {
            "type": "http", "scheme": "bearer",
            "description": "An API token (ebb_<id>_<secret>, from `ebb token create`), or a JWT of a configured OIDC issuer.",
        }
    }  # fmt: skip
    parts["schemas"] = {"Status": _STATUS}
    document["security"] = [{"token": []}]
    for path, methods in document.get("paths", {}).items():
        for method in METHODS:
            if method in methods:
                _complete(path, method, methods[method])
    return document


def _complete(path: str, method: str, operation: Document) -> None:
    media = "text/plain" if path in HEALTH else LINES if path.endswith(_STREAMS) else "application/json"
    good = {code: said for code, said in operation.get("responses", {}).items() if code.startswith("2")}
    if method == "patch" and "{plural}" in path:
        good.setdefault("201", {"description": "Created, by server-side apply"})
    for said in good.values():
        said["content"] = {media: {"schema": {} if media == LINES else schemas.answered(path, method)}}
        said.pop("headers", None)
    status = {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}}
    bad = {} if path in OPEN else {code: {"description": text, "content": status} for code, text in _ERRORS.items()}
    operation["responses"] = {**good, **bad}
    if path in OPEN:
        operation["security"] = []
    if method in ("post", "put", "patch") and "/bindings/" not in path and not path.endswith("secrets:rotate"):
        operation["requestBody"] = _body(path, method)
    given = [one for one in operation.get("parameters", []) if one["in"] == "path"]
    for one in given:
        if one["name"] == "plural":
            one["schema"] = {"type": "string", "enum": schemas.plurals(path)}
    operation["parameters"] = [*given, *_queries(path, method)]


def _body(path: str, method: str) -> Document:
    if path.endswith("/images"):
        return {"required": True, "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}}
    schema = {"schema": schemas.sent(path, method)}
    if method != "patch":
        return {"required": True, "content": {"application/json": schema}}
    more = {JSON_PATCH: {"schema": schemas.JSON_PATCH}, APPLY: schema} if "{plural}" in path else {}
    return {"required": True, "content": {MERGE: schema, **more}}


def _queries(path: str, method: str) -> list[Document]:
    door = DOORS.get((method.upper(), path))
    known = next((found for (m, end), found in _QUERIES.items() if m == method and path.endswith(end)), {})
    if method == "get" and path.endswith("{plural}"):
        known = _LISTS
    elif method != "get" and door is not None and not door.kind:
        known = {"dryRun": "string"}
    return [{"name": name, "in": "query", "schema": {"type": kind}} for name, kind in known.items()]
