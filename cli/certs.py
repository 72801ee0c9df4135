"""What `ebb cert` does: a certificate is a Secret of type kubernetes.io/tls; which are served, the API says."""

import base64
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli import secrets, show
from cli.client import Api, Object
from cli.errors import BadUsage, Refused
from cli.show import Form

TLS = "kubernetes.io/tls"
SERVED_S = 10.0


def add(api: Api, name: str, chain: Path, key: Path, *, replace: bool) -> None:
    """Make the Secret, and wait until the front door's table has it. Raises BadUsage, Refused."""
    data = {"tls.crt": _read("--cert", chain), "tls.key": _read("--key", key)}
    body: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": TLS, "data": data}
    secrets.write(api, name, body, replace=replace)
    version = api.get(secrets.path(api.project, name))["metadata"]["resourceVersion"]
    end = time.monotonic() + SERVED_S
    while (found := _find(api, name)) is None or found["madeFrom"] != version:
        if time.monotonic() > end:
            raise Refused(f"secret {name} is written but not served after {SERVED_S:g} s; see `ebb cert list`, `ebb status`")
        time.sleep(0.05)
    if problem := found.get("problem"):
        raise Refused(f"secret {name} cannot be served: {problem}")
    sys.stdout.write(f"served for {', '.join(found['hosts'])} until {found['notAfter']}\n")


def list_(api: Api, form: Form) -> None:
    found = _all(api)
    head = ["NAME", "SOURCE", "HOSTS", "UNTIL", "PROBLEM"]
    show.listing(form, found, head, lambda: [_row(one) for one in found], lambda: [one["name"] for one in found])


def delete(api: Api, names: Sequence[str]) -> None:
    """Only what was added: the others come and go with the hosts they are for."""
    for name in names:
        found = next((one for one in _all(api) if one["name"] == name), None)
        if found is not None and found["source"] != "secret":
            said = "the engine issues it by itself, for as long as it has hosts for it"
            raise Refused(f"certificate {name} was not added with `ebb cert add`: {said}")
        secret = api.get(secrets.path(api.project, name))
        if secret.get("type") != TLS:
            raise Refused(f"secret {name} is no certificate but of type {secret.get('type')}; see `ebb secret delete`")
        api.delete(secrets.path(api.project, name))
        sys.stdout.write(f"deleted certificate {name}\n")


def _all(api: Api) -> list[Object]:
    return api.items(api.own("certificates"))


def _find(api: Api, name: str) -> Object | None:
    return next((one for one in _all(api) if one["name"] == name and one["source"] == "secret"), None)


def _row(one: Object) -> list[str]:
    hosts = ", ".join(one["hosts"][:3]) + (f" and {len(one['hosts']) - 3} more" if len(one["hosts"]) > 3 else "")
    return [one["name"], one["source"], hosts, one.get("notAfter", ""), one.get("problem", "")]


def _read(flag: str, file: Path) -> str:
    try:
        return base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise BadUsage(f"{flag} {file}: {error.strerror}") from None
