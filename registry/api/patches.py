"""Merge patch (RFC 7386), JSON patch (RFC 6902) and apply, on plain JSON values. Pure; the original is never changed."""

import copy
from typing import Any

from registry.api.problems import ApiError, bad_request


def merge(target: Any, patch: Any) -> Any:
    """`target` after an RFC 7386 merge patch."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def apply(target: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Server-side apply: labels and annotations are merged; each field of `spec` that `body` gives replaces the old whole."""
    meta, given = dict(target.get("metadata", {})), body.get("metadata") or {}
    if not isinstance(given, dict):
        return {**target, **body}  # which the check of the whole refuses, naming the field
    for field in ("labels", "annotations"):
        if isinstance(value := given.get(field) or {}, dict):
            meta[field] = {**meta.get(field, {}), **value}
        else:
            meta[field] = value
    if "resourceVersion" in given:
        meta["resourceVersion"] = given["resourceVersion"]
    spec = body.get("spec", {})
    rest = {name: value for name, value in body.items() if name not in ("metadata", "spec", "status")}
    if not isinstance(spec, dict):
        return {**target, **rest, "metadata": meta, "spec": spec}
    return {**target, **rest, "metadata": meta, "spec": {**target.get("spec", {}), **spec}}


def json_patch(target: Any, operations: list[Any]) -> Any:
    """`target` after RFC 6902 `operations`. Raises ApiError 400 or 422 naming the operation that cannot be done."""
    document = copy.deepcopy(target)
    for index, operation in enumerate(operations):
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiError(422, "Invalid", f"JSON patch operation {index} {operation!r:.200} cannot be done: {error}") from None
    return document


def _operate(document: Any, operation: Any) -> Any:
    if not isinstance(operation, dict) or "op" not in operation or not isinstance(operation.get("path"), str):
        raise bad_request("a JSON patch is a list of {op, path, …}")
    kind, path = operation["op"], _pointer(operation["path"])
    if kind == "test":
        if _get(document, path) != operation.get("value"):
            raise ValueError("the test failed")
        return document
    if kind in ("add", "replace"):
        return _put(document, path, copy.deepcopy(operation["value"]), must_exist=kind == "replace")
    if kind == "remove":
        return _remove(document, path)
    if kind in ("copy", "move"):
        source = _pointer(operation["from"])
        value = copy.deepcopy(_get(document, source))
        if kind == "move":
            document = _remove(document, source)
        return _put(document, path, value, must_exist=False)
    raise ValueError(f"op {kind!r}; allowed: add, remove, replace, move, copy, test")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"path {text!r} does not begin with '/'")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _put(document: Any, path: list[str], value: Any, *, must_exist: bool) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        if must_exist:
            parent[_index(last, len(parent) - 1)] = value
        else:
            parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
        return document
    if must_exist and last not in parent:
        raise KeyError(last)
    parent[last] = value
    return document


def _index(text: str, most: int) -> int:
    index = int(text)
    if not 0 <= index <= most:
        raise IndexError(f"index {index} is out of range")
    return index


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise ValueError("the whole object cannot be removed by a patch")
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[_index(last, len(parent) - 1)]
    else:
        del parent[last]
    return document
