"""What `ebb project` does."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli import show as shows
from cli.client import EBB, Api, Object
from cli.errors import BadUsage
from cli.show import Form

PATH = f"{EBB}/projects"
_SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LISTS = ("registries", "signature_keys")
_SWITCHES = ("open_between", "private")


def wanted(weight: int | None, quotas: Sequence[str], policies: Sequence[str]) -> Object:
    """The flags as a merge patch. Raises BadUsage."""
    body: Object = {} if weight is None else {"weight": weight}
    if quotas:
        body["quota"] = {name: _number(word, value) for word in quotas for name, value in [_pair("--quota", word)]}
    if policies:
        body["policy"] = {name: _value(name, value) for word in policies for name, value in [_pair("--policy", word)]}
    return body


def _pair(flag: str, word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise BadUsage(f"{flag} {word}: want WHAT=VALUE")
    return name, value


def _number(word: str, value: str) -> int:
    for suffix, size in _SIZES.items():
        if value.endswith(suffix) and value[: -len(suffix)].isdigit():
            return int(value[: -len(suffix)]) * size
    if not value.isdigit():
        raise BadUsage(f"--quota {word}: want a number, such as 20 or 8Gi")
    return int(value)


def _value(name: str, value: str) -> Any:
    if name == "signature_keys":
        try:
            return [Path(file).read_text() for file in value.split(",") if file]
        except OSError as error:
            raise BadUsage(f"--policy signature_keys={value}: {error.strerror}; want files of public keys") from None
    if name in _LISTS:
        return [part for part in value.split(",") if part]
    return value.lower() in ("true", "yes", "1") if name in _SWITCHES else value


def create(api: Api, name: str, body: Object) -> None:
    made = api.post(PATH, {}, {"name": name, **body})
    sys.stdout.write(f"created project {made['name']}\n")


def change(api: Api, name: str, body: Object) -> None:
    if not body:
        raise BadUsage("ebb project set: nothing to change; give --weight, --quota or --policy")
    api.patch(f"{PATH}/{name}", body)
    sys.stdout.write(f"changed project {name}\n")


def show_one(api: Api, name: str, form: Form) -> None:
    shows.only_data(form, "project show")
    shows.data(api.get(f"{PATH}/{name}"), Form.YAML if form is Form.TABLE else form)


def list_(api: Api, form: Form) -> None:
    """NAME WEIGHT SERVICES REVISIONS LIMITS POLICY."""
    found = api.items(PATH)

    def table() -> list[list[str]]:
        return [
            [
                one["name"], str(one["weight"]), str(one["has"]["services"]), str(one["has"]["revisions"]),
                ", ".join(f"{what}={most}" for what, most in one["quota"].items() if most) or "-", _policy(one["policy"]),
            ]
            for one in found
        ]  # fmt: skip

    head = ["NAME", "WEIGHT", "SERVICES", "REVISIONS", "LIMITS", "POLICY"]
    shows.listing(form, found, head, table, lambda: [one["name"] for one in found])


def _policy(policy: Object) -> str:
    usual = {"profile": "default", "egress": "open"}
    said = [name if value is True else f"{name}={value}" if isinstance(value, str) else name for name, value in policy.items()
            if value and usual.get(name) != value]  # fmt: skip
    return ", ".join(said) or "-"


def delete(api: Api, names: Sequence[str]) -> None:
    for name in names:
        api.delete(f"{PATH}/{name}")
        sys.stdout.write(f"deleted project {name}\n")
