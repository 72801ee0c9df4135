"""Secrets and ConfigMaps: what a client sent → what is stored → what a client sees. Pure, but for the keyring it is given.

No message says a value: they reach logs and screens.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from registry import objects, pair
from registry.objects import CONFIG_MAP, SECRET, Kind, Object
from registry.problem import (
    DNS_SUBDOMAIN,
    NOT_SUPPORTED,
    Checker,
    Problems,
    boolean,
    label_map,
    mapping,
    matching,
    one_of,
    string_map,
    text,
)
from store.model import Private, Values, decode, encode
from store.seal import Keyring

VALUE_MAX_BYTES = 64 * 2**10
TOTAL_MAX_BYTES = 256 * 2**10
OPAQUE = "Opaque"
DOCKER = "kubernetes.io/dockerconfigjson"
DOCKER_KEY = ".dockerconfigjson"
TLS = "kubernetes.io/tls"
TLS_CHAIN, TLS_KEY = "tls.crt", "tls.key"
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_SERVER_SETS = ("uid", "creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink", "ownerReferences")


def _nothing(problems: Problems, value: Any, path: str) -> None:
    """Anything goes: the server sets it."""


def _map_of(of_base64: bool) -> Checker:
    def check(problems: Problems, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            problems.bad(path, "what is not a mapping", "a mapping of keys to strings")
            return
        for key, item in value.items():
            if not _KEY.fullmatch(key) or key == "." or key.startswith(".."):
                allowed = "a key of 1 to 253 letters, digits, '-', '_' and '.', which does not begin with '..'"
                problems.bad(f"{path}[{key[:80]}]", key, allowed)
            elif not isinstance(item, str):
                problems.bad(f"{path}[{key}]", "what is not a string", "a string (put numbers and true/false in quotes)")
            elif of_base64 and _bytes(item) is None:
                allowed = "base64; give the plain value in stringData instead" if path == "data" else "base64"
                problems.bad(f"{path}[{key}]", "a value that is not base64", allowed)

    return check


_METADATA = mapping(
    {
        "name": matching(DNS_SUBDOMAIN, "a DNS subdomain", 253),
        "generateName": matching(re.compile(r"[a-z0-9][-a-z0-9.]*"), "the beginning of a DNS subdomain", 247),
        "namespace": text,
        "labels": label_map,
        "annotations": string_map,
        **dict.fromkeys(_SERVER_SETS, _nothing),
    },
    {"finalizers": "nothing here would wait for them"},
)
_COMMON: dict[str, Checker] = {"metadata": _METADATA, "immutable": boolean, "apiVersion": one_of("v1")}
_SECRET = mapping(
    {**_COMMON, "kind": one_of("Secret"), "type": text, "data": _map_of(True), "stringData": _map_of(False)},
    required=("metadata",),
)
_CONFIG_MAP = mapping(
    {**_COMMON, "kind": one_of("ConfigMap"), "data": _map_of(False), "binaryData": _map_of(True)}, required=("metadata",)
)


def validate(kind: Kind, body: Any) -> Problems:
    """All that is wrong with `body`, from which nulls were pruned."""
    problems = Problems()
    if not isinstance(body, dict):
        problems.bad("", "what is not a mapping", f"a {kind.kind} as a JSON or YAML mapping")
        return problems
    (_SECRET if kind is SECRET else _CONFIG_MAP)(problems, body, "")
    if problems:
        return problems
    if not objects.meta(body).get("name") and not objects.meta(body).get("generateName"):
        problems.missing("metadata.name", "a name, or metadata.generateName")
    data = _data(kind, body)
    for key, value in data.items():
        if len(value) > VALUE_MAX_BYTES:
            problems.bad(f"data[{key}]", f"{len(value)} bytes", f"at most {VALUE_MAX_BYTES} bytes a value")
    total = sum(len(key) + len(value) for key, value in data.items())
    if total > TOTAL_MAX_BYTES:
        problems.bad("data", f"{total} bytes", f"at most {TOTAL_MAX_BYTES} bytes in all")
    if kind is SECRET:
        _type(problems, body.get("type") or OPAQUE, data)
    elif both := sorted(set(body.get("data", {})) & set(body.get("binaryData", {}))):
        problems.twice("binaryData", both[0])
    return problems


def _type(problems: Problems, given: str, data: Mapping[str, bytes]) -> None:
    if given not in (OPAQUE, DOCKER, TLS):
        problems.bad("type", given, f"{OPAQUE}, {DOCKER} or {TLS}", NOT_SUPPORTED)
    elif given == TLS:
        try:
            pair.read(data.get(TLS_CHAIN, b""), data.get(TLS_KEY, b""))
        except pair.BadPair as error:
            problems.bad("data", str(error), f"{TLS_CHAIN} with a certificate and its chain, {TLS_KEY} with its private key")
    elif given == DOCKER and not _docker(data.get(DOCKER_KEY)):
        problems.bad(f"data[{DOCKER_KEY}]", "no such JSON", 'a JSON mapping like {"auths": {"host": {"auth": "…"}}}')


def _docker(data: bytes | None) -> bool:
    try:
        value = msgspec.json.decode(data or b"")
    except msgspec.DecodeError:
        return False
    return isinstance(value, dict) and isinstance(value.get("auths"), dict)


def changed(kind: Kind, old: Object, new: Object) -> Problems:
    """What may not change of an object that exists. Both as a client sees them."""
    problems = Problems()
    if kind is SECRET and (new.get("type") or OPAQUE) != old.get("type", OPAQUE):
        problems.bad("type", new.get("type"), f"{old.get('type')}: the type never changes; delete it and make another")
    if old.get("immutable") and (_data(kind, new) != _data(kind, old) or not new.get("immutable")):
        problems.forbid("data", "is immutable; delete the object and make another")
    return problems


def stored(kind: Kind, body: Object, meta: Object, ring: Keyring | None) -> Values:
    """What is kept of a valid `body`; `meta` is what the server says of it (name, namespace, uid, creationTimestamp).

    Raises SealError.
    """
    given = objects.meta(body)
    metadata = dict(meta)
    annotations = {key: value for key, value in given.get("annotations", {}).items() if key != objects.ANNOTATION_KEYS}
    private: dict[str, str] = {}
    if kind is SECRET and objects.ANNOTATION_LAST_APPLIED in annotations:
        private[objects.ANNOTATION_LAST_APPLIED] = annotations.pop(objects.ANNOTATION_LAST_APPLIED)
    if annotations:
        metadata["annotations"] = annotations
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    immutable = body.get("immutable", False)
    if kind is CONFIG_MAP:
        binary = {key: _bytes(value) or b"" for key, value in body.get("binaryData", {}).items()}
        return Values(metadata=metadata, immutable=immutable, data=body.get("data", {}), binary=binary)
    assert ring is not None
    data = _data(kind, body)
    sealed = ring.seal(encode(Private(data=data, annotations=private)), bound_to=bound_to(metadata))
    return Values(metadata=metadata, immutable=immutable, type=body.get("type") or OPAQUE, names=sorted(data), sealed=sealed)


def pair_of(values: Values, ring: Keyring) -> pair.Pair:
    """The certificate that a Secret of type kubernetes.io/tls holds. Raises SealError, BadPair."""
    data = decode(Private, ring.open(values.sealed, bound_to=bound_to(values.metadata))).data
    return pair.read(data.get(TLS_CHAIN, b""), data.get(TLS_KEY, b""))


def resealed(values: Values, ring: Keyring) -> Values:
    """The same Secret under the newest key. Raises SealError."""
    where = bound_to(values.metadata)
    return msgspec.structs.replace(values, sealed=ring.seal(ring.open(values.sealed, bound_to=where), bound_to=where))


def bound_to(metadata: Mapping[str, Any]) -> str:
    """What a Secret's sealed part is bound to."""
    return f"{metadata['namespace']}/{metadata['name']}"


def whole(kind: Kind, values: Values, ring: Keyring | None) -> Object:
    """The object with its values, for whoever asked for it by name. Raises SealError."""
    obj = _head(kind, values)
    if kind is CONFIG_MAP:
        if values.data:
            obj["data"] = values.data
        if values.binary:
            obj["binaryData"] = {key: _text(value) for key, value in values.binary.items()}
        return obj
    assert ring is not None
    private = decode(Private, ring.open(values.sealed, bound_to=bound_to(values.metadata)))
    if private.data:
        obj["data"] = {key: _text(value) for key, value in private.data.items()}
    if private.annotations:
        obj["metadata"] = {
            **values.metadata,
            "annotations": {**values.metadata.get("annotations", {}), **private.annotations},
        }
    return obj


def listed(kind: Kind, values: Values) -> Object:
    """The object as lists, watches and tables show it: of a Secret no value, and its keys in an annotation."""
    obj = whole(kind, values, None) if kind is CONFIG_MAP else _head(kind, values)
    names = values.names if kind is SECRET else sorted([*values.data, *values.binary])
    annotations = {**values.metadata.get("annotations", {}), objects.ANNOTATION_KEYS: " ".join(names)}
    return {**obj, "metadata": {**values.metadata, "annotations": annotations}}


def _head(kind: Kind, values: Values) -> Object:
    obj: Object = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": values.metadata}
    if kind is SECRET:
        obj["type"] = values.type
    if values.immutable:
        obj["immutable"] = True
    return obj


def _data(kind: Kind, body: Object) -> dict[str, bytes]:
    """The values of a body that is well-formed."""
    if kind is SECRET:
        plain = {key: value.encode() for key, value in body.get("stringData", {}).items()}
        return {**{key: _bytes(value) or b"" for key, value in body.get("data", {}).items()}, **plain}
    binary = {key: _bytes(value) or b"" for key, value in body.get("binaryData", {}).items()}
    return {**{key: value.encode() for key, value in body.get("data", {}).items()}, **binary}


def _bytes(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
