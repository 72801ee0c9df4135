"""Settings: one typed struct a process, read once in `__main__` from a TOML file and flags, then passed down.

Every field `drain_timeout_s: float = 30` is the flag `--drain-timeout-s 30` and the key `drain_timeout_s` of the file given
by `--config`; flags win. All that is wrong is reported at once, with the key, the value and what is allowed.
"""

import contextlib
import ipaddress
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class BadSettings(Exception):
    """One or more settings are wrong; the message lists them all, a line each."""


class Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every process takes. Own settings inherit from it."""

    etcd: str = "127.0.0.1:2379"
    """Comma-separated host:port of etcd's members."""
    nats: str = "nats://127.0.0.1:4222"
    """URL of the NATS server."""
    identity: str = ""
    """Directory with ca.crt and own.pem (process/identity.py): who this process is. Empty: etcd and NATS are spoken to in clear."""
    admin: str = "127.0.0.1:0"
    """host:port of /healthz, /readyz and /metrics; port 0 takes a free one."""
    log_level: str = "info"


def load(kind: type[T], argv: Sequence[str]) -> T:
    """The settings of `kind` from `argv` (without the program's name).

    Raises BadSettings with one line for each thing wrong. `--help` prints the flags with defaults and exits 0.
    """
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    if "--help" in argv or "-h" in argv:
        for name, field in fields.items():
            default = "required" if field.required else repr(field.default)
            sys.stdout.write(f"  --{name.replace('_', '-'):28} {_type_name(field.type):12} default {default}\n")
        raise SystemExit(0)
    flags, problems = _flags(argv)
    values: dict[str, Any] = {}
    config = flags.pop("config", None)
    if config is not None:
        try:
            values.update(tomllib.loads(Path(config).read_text()))
        except (OSError, tomllib.TOMLDecodeError) as error:
            problems.append(f"--config {config}: {error}")
    values.update(flags)
    taken: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            problems.append(f"{key}: no such setting; known: {', '.join(sorted(fields))}")
            continue
        try:
            taken[key] = msgspec.convert(value, fields[key].type, strict=False)
        except msgspec.ValidationError:
            problems.append(f"{key}: got {value!r}, want {_type_name(fields[key].type)}")
    problems += [f"{n}: required" for n, f in fields.items() if f.required and n not in values]
    if problems:
        raise BadSettings("\n".join(problems))
    return kind(**taken)


def loopback(listen: str) -> bool:
    """Whether nobody beyond this machine can reach `host:port`."""
    host = listen.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _flags(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    problems: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            problems.append(f"{word!r}: not a flag; flags are --name VALUE")
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                problems.append(f"--{name}: needs a value")
                continue
            value = rest.pop(0)
        found[name.replace("-", "_")] = value
    return found, problems


def _type_name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
