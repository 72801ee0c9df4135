"""What is sent to the routes and what they answer, as JSON Schema, for the OpenAPI document.

They say what a client needs to write a body that is taken, and to read an answer. The checks of bodies are `registry.validate`,
`values` and `tenants`, whose errors name the field; these here are not used for that.
"""

from collections.abc import Mapping
from typing import Any

from registry.authorisation import PERMISSIONS
from registry.objects import API_VERSION, KINDS, VALUES, Kind
from store.projects import Policy, Quota

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
_NAME: Schema = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_PRINCIPAL: Schema = {"type": "string", "pattern": r"^(user|robot):[a-z0-9][a-z0-9._@+-]{0,126}$"}


def _whole(least: int = 0, most: int | None = None) -> Schema:
    return {"type": "integer", "minimum": least} | ({"maximum": most} if most is not None else {})


def _mapping(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _closed(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {**_mapping(required, **properties), "additionalProperties": False}


def _list(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items} | ({"maxItems": most} if most is not None else {})


# -- what is sent ------------------------------------------------------------------------------------------------------------

_META = _mapping(("name",), name=_NAME, labels=_TEXTS, annotations=_TEXTS)
_ENV = _closed(("name",), name={**TEXT, "minLength": 1}, value=TEXT)
_CONTAINER = _mapping(
    ("image",),
    image=TEXT, command=_list(TEXT), args=_list(TEXT), env=_list(_ENV),
    ports=_list(_closed(("containerPort",), name={"enum": ["http1", "h2c", "tcp"]}, containerPort=_whole(1, 65535)), 1),
    resources=_closed((), limits=_TEXTS, requests=_TEXTS),
)  # fmt: skip
_TEMPLATE = _closed(
    ("spec",),
    metadata=_closed((), name=_NAME, labels=_TEXTS, annotations=_TEXTS),
    spec=_mapping(
        ("containers",),
        containers={**_list(_CONTAINER, 1), "minItems": 1},
        containerConcurrency=_whole(0, 1000),
        timeoutSeconds=_whole(0, 3600),
    ),
)
_TARGET = _closed(
    (), tag=_NAME, revisionName=_NAME, configurationName=_NAME, latestRevision=_FLAG, percent=_whole(0, 100)
)  # fmt: skip
_SPECS: Mapping[str, Schema] = {
    "Service": _closed(("template",), template=_TEMPLATE, traffic=_list(_TARGET, 100)),
    "Configuration": _closed(("template",), template=_TEMPLATE),
    "Route": _closed(("traffic",), traffic=_list(_TARGET, 100)),
    "DomainMapping": _closed(
        ("ref",),
        ref=_closed(("name",), kind={"enum": ["Service", "Route"]}, name=_NAME, apiVersion={"const": API_VERSION}),
        tls=_closed(("secretName",), secretName=TEXT),
    ),
}


def _sent(kind: Kind) -> Schema:
    head = {"apiVersion": {"const": kind.api_version}, "kind": {"const": kind.kind}}
    if kind.group:
        name = {**TEXT, "pattern": r"^[a-z0-9-]+(\.[a-z0-9-]+)+$"} if kind.kind == "DomainMapping" else _NAME
        meta = _mapping(("name",), name=name, labels=_TEXTS, annotations=_TEXTS)
        return _mapping(("metadata", "spec"), **head, metadata=meta, spec=_SPECS[kind.kind])
    values = {"stringData": _TEXTS, "type": TEXT} if kind.kind == "Secret" else {"data": _TEXTS}
    return _mapping(("metadata",), **head, metadata=_META, immutable=_FLAG, **values)


def _fields(*, name: bool) -> Schema:
    """Of a project; `name`: a body without is refused."""
    known: dict[type, Schema] = {bool: _FLAG, str: TEXT}
    quota = {field: _whole(0, 2**53) for field in Quota.__struct_fields__}
    policy = {field: known.get(type(getattr(Policy(), field)), _list(TEXT)) for field in Policy.__struct_fields__}
    policy |= {"runtime": {"enum": ["", "gvisor"]}, "profile": {"enum": ["default", "hardened"]}}
    return _closed(
        ("name",) if name else (), name=_NAME, weight=_whole(1, 1000), quota=_closed((), **quota), policy=_closed((), **policy)
    )


JSON_PATCH = _list(
    _mapping(
        ("op", "path"),
        op={"enum": ["add", "remove", "replace", "move", "copy", "test"]},
        path={**TEXT, "pattern": "^(/.*)?$"},
        value={},
        **{"from": TEXT},
    )
)
_TOKEN = _closed(
    (),
    principal=_PRINCIPAL, projects=_list(_NAME, 100), role={"enum": sorted(PERMISSIONS)},
    ttlS=_whole(0, 315_360_000), note=TEXT,
)  # fmt: skip
_SENT: Mapping[tuple[str, str], Schema] = {
    ("post", "/api/v1/namespaces"): _mapping(("metadata",), metadata=_mapping(("name",), name=_NAME)),
    ("post", "/projects"): _fields(name=True),
    ("put", "/projects/{name}"): _fields(name=False),
    ("patch", "/projects/{name}"): _fields(name=False),
    ("post", "/tokens"): _TOKEN,
    ("post", "/identity-tokens"): _closed(("audience",), audience={**TEXT, "format": "uri"}),
    ("post", "/users"): _mapping(("principal",), principal=_PRINCIPAL, note=TEXT),
    ("patch", "/users/{principal}"): _mapping(("disabled",), disabled=_FLAG),
}


def plurals(path: str) -> list[str]:
    """What `{plural}` may be in `path`."""
    kinds = VALUES if path.startswith("/api/") else KINDS
    return [kind.plural for kind in kinds.values() if path.startswith(("/api/", f"/apis/{kind.group}/{kind.version}/"))]


def sent(path: str, method: str) -> Schema:
    """The body that `method` takes at `path`. A patch says less than an object: any mapping."""
    found = next((schema for (m, end), schema in _SENT.items() if m == method and path.endswith(end)), None)
    if found is not None or "{plural}" not in path or method == "patch":
        return found or {"type": "object"}
    kinds = [(KINDS | VALUES)[plural] for plural in plurals(path)]
    return {"anyOf": [_sent(kind) for kind in kinds if kind.client_writes]}


# -- what is answered --------------------------------------------------------------------------------------------------------

_OBJECT = _mapping(("apiVersion", "kind", "metadata"), apiVersion=TEXT, kind=TEXT, metadata={"type": "object"})
_OBJECTS = _mapping(("apiVersion", "kind", "metadata", "items"), kind=TEXT, items=_list({"type": "object"}))
_DONE = _mapping(("kind", "status"), kind={"const": "Status"}, status={"const": "Success"}, details={"type": "object"})
_PROJECT = _mapping(
    ("name", "weight", "quota", "policy", "has"),
    name=TEXT, weight=_whole(1), quota={"type": "object"}, policy={"type": "object"}, has={"type": "object"},
)  # fmt: skip
_USER = _mapping(("principal", "disabled", "roles"), principal=TEXT, disabled=_FLAG, roles={"type": "object"}, note=TEXT)
_BINDING = _mapping(("project", "principal", "roles"), project=TEXT, principal=TEXT, roles=_list(TEXT))
_SHOWN_TOKEN = _mapping(
    ("id", "principal", "projects", "role", "state"),
    id=TEXT, principal=TEXT, projects=_list(TEXT), role=TEXT, state={"enum": ["valid", "expired", "revoked"]},
)  # fmt: skip
_VERSION = _mapping(
    ("number", "secret", "createdAt", "keys", "state"),
    number=_whole(1), secret=TEXT, createdAt=TEXT, keys=_list(TEXT), state={"enum": ["latest", "earlier"]},
)  # fmt: skip
_NODES = _list(TEXT)


def _items(schema: Schema) -> Schema:
    return _mapping(("items",), items=_list(schema))


_ANSWERS: Mapping[tuple[str, str], Schema] = {
    ("get", "/namespaces"): _OBJECTS,
    ("delete", "/api/v1/namespaces/{name}"): _DONE,
    ("delete", "/projects/{name}"): _DONE,
    ("get", "/projects"): _items(_PROJECT),
    **{(method, "/projects/{name}"): _PROJECT for method in ("get", "put", "patch")},
    ("post", "/projects"): _PROJECT,
    ("get", "/images"): _list({"type": "object"}),
    ("post", "/images"): _mapping(("images", "nodes"), images=_list({"type": "object"}), nodes=_NODES),
    ("delete", "/images"): _mapping(("deleted", "nodes"), deleted=TEXT, nodes=_NODES),
    ("get", "/why"): _mapping(("service", "project", "revisions"), revisions=_list({"type": "object"})),
    ("get", "/instances"): _items(_mapping(("instance", "revision", "node", "phase"))),
    ("get", "/versions"): _items(_VERSION),
    ("get", "/nodes"): _items(_mapping(("node",), node=TEXT)),
    ("get", "/certificates"): _items(_mapping(("name", "source", "hosts", "ready"), ready=_FLAG)),
    ("get", "/story/{about}"): _items({"type": "object"}),
    ("get", "/whoami"): _mapping(("principal", "roles"), principal=TEXT, roles={"type": "object"}),
    ("get", "/tokens"): _items(_SHOWN_TOKEN),
    ("post", "/identity-tokens"): _mapping(("token", "principal", "expiresAt"), token=TEXT, principal=TEXT, expiresAt=TEXT),
    ("post", "/tokens"): {**_SHOWN_TOKEN, "required": [*_SHOWN_TOKEN["required"], "token"]},
    ("delete", "/tokens/{name}"): _mapping(("revoked",), revoked=_list(TEXT)),
    ("get", "/users"): _items(_USER),
    ("post", "/users"): _USER,
    ("patch", "/users/{principal}"): _USER,
    ("delete", "/users/{principal}"): _mapping(("removed",), removed=TEXT),
    ("get", "/bindings"): _items(_BINDING),
    ("put", "/{role}/{principal}"): _BINDING,
    ("delete", "/{role}/{principal}"): _BINDING,
    ("get", "/identity-keys"): _mapping(("keys",), keys=_list({"type": "object"})),
}


def answered(path: str, method: str) -> Schema:
    """What a request that succeeds is answered with; `{}`: lines, text, or what another standard describes."""
    found = next((schema for (m, end), schema in _ANSWERS.items() if m == method and path.endswith(end)), None)
    if found is not None:
        return found
    if path.endswith("{plural}") and method == "get":
        return _OBJECTS
    if "{plural}" in path or path.startswith("/api/v1/namespaces"):
        return _DONE if method == "delete" else _OBJECT
    return {}
