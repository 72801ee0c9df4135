"""Projects as clients write them: checked, and made into `Project`. Pure."""

import ipaddress
import re
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from registry.objects import Kind
from registry.problem import DNS_LABEL, Problems, boolean, integer, list_of, mapping, matching, one_of, text
from store.projects import Policy, Project, Quota

PROJECT = Kind("projects", "Project", "project", (), group="ebb.dev")
NUMBER_MOST = 2**53
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?")


def _pem(problems: Problems, value: Any, path: str) -> None:
    try:
        if not isinstance(value, str) or len(value) > 10_000:
            raise ValueError
        load_pem_public_key(value.encode())
    except (ValueError, UnsupportedAlgorithm):
        problems.bad(path, value, "a public key as PEM (-----BEGIN PUBLIC KEY-----)")


def _egress(problems: Problems, value: Any, path: str) -> None:
    allowed = "open, private, none, or CIDR:PORT,… such as 10.0.0.0/8:443,192.0.2.7/32:5432"
    if not isinstance(value, str) or len(value) > 4000:
        problems.bad(path, value, allowed)
    elif value not in ("open", "private", "none"):
        for part in value.split(","):
            network, _, ports = part.strip().rpartition(":")
            try:
                ipaddress.ip_network(network.strip("[]"))
                if not _PORTS.fullmatch(ports) or not all(0 < int(port) < 65536 for port in ports.split("-")):
                    raise ValueError
            except ValueError:
                problems.bad(path, part, allowed)


_QUOTA = mapping({name: integer(0, NUMBER_MOST) for name in Quota.__struct_fields__})
_POLICY = mapping(
    {
        "registries": list_of(text, 100),
        "signature_keys": list_of(_pem, 20),
        "runtime": one_of("", "gvisor"),
        "profile": one_of("default", "hardened"),
        "egress": _egress,
        "open_between": boolean,
        "private": boolean,
    }
)
_PROJECT = mapping(
    {
        "v": integer(1),
        "name": matching(DNS_LABEL, "a DNS label: a-z, 0-9 and -"),
        "weight": integer(1, 1000),
        "quota": _QUOTA,
        "policy": _POLICY,
        "created_at": lambda problems, value, path: None,
        "has": lambda problems, value, path: None,
    },
    required=("name",),
)


def validate(body: Any) -> Problems:
    """All that is wrong with a project that a client sent."""
    problems = Problems()
    _PROJECT(problems, body, "")
    return problems


def project(body: dict[str, Any], created_at: float) -> Project:
    """The project in a valid body."""
    quota, policy = msgspec.convert(body.get("quota", {}), Quota), msgspec.convert(body.get("policy", {}), Policy)
    return Project(name=body["name"], weight=body.get("weight", 1), quota=quota, policy=policy, created_at=created_at)


def shown(found: Project, has: dict[str, int]) -> dict[str, Any]:
    """As clients see it: with every field. `has`: what there is of that which has a limit."""

    def whole(value: msgspec.Struct) -> dict[str, Any]:
        fields = {name: msgspec.to_builtins(getattr(value, name)) for name in value.__struct_fields__}
        return {name: list(field) if isinstance(field, tuple) else field for name, field in fields.items()}

    return {**whole(found), "quota": whole(found.quota), "policy": whole(found.policy), "has": has}
