"""What a client sent, as plain JSON values: JSON whatever the Content-Type says, YAML when it says so."""

from typing import Any

import msgspec
import yaml

from registry.api.problems import ApiError, bad_request

NODES_MAX = 200_000
DEPTH_MAX = 64
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML with JSON's types only: dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}


def parse(data: bytes, content_type: str) -> Any:
    """The value in `data`. Raises ApiError 400 that says where it cannot be read."""
    if not data.strip():
        raise bad_request("the request has no body; send the object as JSON or YAML")
    try:
        value = _yaml(data) if "yaml" in content_type.lower() else msgspec.json.decode(data)
        plain(value)
    except RecursionError:
        raise bad_request("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not JSON: {error} (send YAML with Content-Type: application/yaml)") from None
    except yaml.YAMLError as error:
        raise bad_request(f"the body is not YAML: {error}") from None
    return value


def _yaml(data: bytes) -> Any:
    if data.lstrip()[:1] in (b"{", b"["):
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            pass
    return yaml.load(data, Loader=_Loader)


def plain(value: Any) -> None:
    """Raises ApiError when `value` is not what JSON can say, or is larger than it looked (YAML aliases)."""
    left = NODES_MAX
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        left -= 1
        if depth > DEPTH_MAX:
            raise bad_request(f"the body is nested more than {DEPTH_MAX} deep")
        if left < 0:
            raise bad_request(f"the body holds more than {NODES_MAX} values (YAML aliases count each time)")
        if isinstance(item, dict):
            _string_keys(item)
            stack.extend((each, depth + 1) for each in item.values())
        elif isinstance(item, list):
            stack.extend((each, depth + 1) for each in item)
        elif not isinstance(item, str | int | float | bool | None):
            raise bad_request(f"the body holds a {type(item).__name__}; allowed: what JSON can say")


def _string_keys(item: dict[Any, Any]) -> None:
    for key in item:
        if not isinstance(key, str):
            raise bad_request(f"the body has a key {key!r} that is not a string; put it in quotes")


__all__ = ["ApiError", "parse", "plain"]
