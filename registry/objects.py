"""API objects: their kinds, where they are kept, and what is read from them often. An object is the JSON as a dict."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from store import keys

Object = dict[str, Any]

GROUP = "serving.knative.dev"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"
MAX_NAME = 63


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object as the API names it. `client_writes`: whether clients may create and change it."""

    plural: str
    kind: str
    singular: str
    short_names: tuple[str, ...]
    client_writes: bool = True
    group: str = GROUP
    """Empty: Kubernetes' core group."""
    version: str = VERSION

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As messages name it: `services.serving.knative.dev`, `secrets`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


SERVICE = Kind("services", "Service", "service", ("kservice", "ksvc"))
CONFIGURATION = Kind("configurations", "Configuration", "configuration", ("config", "cfg"))
ROUTE = Kind("routes", "Route", "route", ("rt",))
REVISION = Kind("revisions", "Revision", "revision", ("rev",), client_writes=False)
DOMAIN_MAPPING = Kind("domainmappings", "DomainMapping", "domainmapping", ("dm",), version="v1beta1")
KINDS: dict[str, Kind] = {kind.plural: kind for kind in (SERVICE, CONFIGURATION, ROUTE, REVISION, DOMAIN_MAPPING)}
VERSIONS = tuple(dict.fromkeys(kind.version for kind in KINDS.values()))
"""Of GROUP, the preferred one first."""
SECRET = Kind("secrets", "Secret", "secret", (), group="")
CONFIG_MAP = Kind("configmaps", "ConfigMap", "configmap", ("cm",), group="")
VALUES: dict[str, Kind] = {kind.plural: kind for kind in (SECRET, CONFIG_MAP)}
BY_KIND: dict[str, Kind] = {kind.kind: kind for kind in KINDS.values()}

LABEL_SERVICE = f"{GROUP}/service"
LABEL_SERVICE_UID = f"{GROUP}/serviceUID"
LABEL_CONFIGURATION = f"{GROUP}/configuration"
LABEL_CONFIGURATION_UID = f"{GROUP}/configurationUID"
LABEL_GENERATION = f"{GROUP}/configurationGeneration"
LABEL_ROUTING_STATE = f"{GROUP}/routingState"
ANNOTATION_ROUTING_SINCE = f"{GROUP}/routingStateModified"
ANNOTATION_CREATOR = f"{GROUP}/creator"
ANNOTATION_MODIFIER = f"{GROUP}/lastModifier"
ANNOTATION_PROGRESS_DEADLINE = f"{GROUP}/progress-deadline"
ANNOTATION_NO_GC = f"{GROUP}/no-gc"
ANNOTATION_PARK = "ebb.dev/park"
ANNOTATION_TCP_PORT = "ebb.dev/tcp-port"
ANNOTATION_MAX_BODY = "ebb.dev/max-body"
ANNOTATION_SERVER_TIMING = "ebb.dev/server-timing"
ANNOTATION_KEYS = "ebb.dev/keys"
ANNOTATION_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
LABEL_VISIBILITY = "networking.knative.dev/visibility"
ANNOTATION_HTTP_PROTOCOL = "networking.knative.dev/http-protocol"
"""Enabled, or Redirected: plain HTTP is sent to TLS. Upper or lower case, as Knative takes it."""


def meta(obj: Object) -> Object:
    """The object's metadata; an empty dict when it has none."""
    value = obj.get("metadata")
    return value if isinstance(value, dict) else {}


def name_of(obj: Object) -> str:
    return str(meta(obj).get("name", ""))


def labels_of(obj: Object) -> dict[str, str]:
    value = meta(obj).get("labels")
    return value if isinstance(value, dict) else {}


def annotations_of(obj: Object) -> dict[str, str]:
    value = meta(obj).get("annotations")
    return value if isinstance(value, dict) else {}


def tcp_port_of(obj: Object) -> int:
    """The front door's port that a valid Service or Route asks for; 0: none, it is reached by host."""
    return int(annotations_of(obj).get(ANNOTATION_TCP_PORT, 0))


def redirects(obj: Object) -> bool:
    """Whether plain HTTP to a Service's or Route's hosts is sent to TLS."""
    return str(annotations_of(obj).get(ANNOTATION_HTTP_PROTOCOL, "")).lower() == "redirected"


def generation_of(obj: Object) -> int:
    return int(meta(obj).get("generation", 0))


def key_of(obj: Object) -> str:
    """Where the object is kept."""
    return keys.object_(BY_KIND[obj["kind"]].plural, meta(obj)["namespace"], name_of(obj))


def owner_of(obj: Object) -> Object | None:
    """The owner reference with `controller: true`."""
    for reference in meta(obj).get("ownerReferences") or ():
        if reference.get("controller"):
            return reference  # type: ignore[no-any-return]
    return None


def owned_by(parent: Object) -> list[Object]:
    """The ownerReferences of a child of `parent`."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": parent["kind"],
            "name": name_of(parent),
            "uid": meta(parent)["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def child_uid(parent_uid: str, kind: str, name: str) -> str:
    """The uid of a child, the same however often it is computed: a repeated plan writes the same bytes."""
    return str(uuid.uuid5(uuid.UUID(parent_uid), f"{kind}/{name}"))


def child_name(parent: str, suffix: str) -> str:
    """`parent` + `suffix` within 63 characters: a parent that is too long is cut and told apart by its hash."""
    if len(parent) + len(suffix) <= MAX_NAME:
        return parent + suffix
    digest = hashlib.sha256(parent.encode()).hexdigest()[:12]
    return f"{parent[: MAX_NAME - len(suffix) - 13].rstrip('-')}-{digest}{suffix}"
