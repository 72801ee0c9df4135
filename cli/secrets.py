"""What `ebb secret` does: values from words, files and stdin; Secrets written and listed."""

import base64
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli import rows, show
from cli.client import EBB, Api, Object
from cli.errors import BadUsage, Refused
from cli.show import Form

DOCKER = "kubernetes.io/dockerconfigjson"


def create(
    api: Api,
    name: str,
    values: Sequence[str],
    files: Sequence[str],
    *,
    server: str,
    user: str,
    password_stdin: bool,
    replace: bool,
    immutable: bool,
) -> None:
    """Make a Secret of values, or of a registry's login. Raises BadUsage, Refused."""
    body: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    if immutable:
        body["immutable"] = True
    if server:
        if values or files or not user or not password_stdin:
            raise BadUsage("--docker-server goes with --docker-username and --docker-password-stdin, and with no other values")
        body |= {"type": DOCKER, "stringData": {".dockerconfigjson": docker_config(server, user, _stdin())}}
    else:
        body["data"] = data(values, files)
    write(api, name, body, replace=replace)


def list_(api: Api, form: Form) -> None:
    """Names, types, keys."""
    found = api.items(path(api.project))
    show.listing(form, found, ["NAME", "TYPE", "KEYS", "AGE"], lambda: _rows(found), lambda: [_meta(s)["name"] for s in found])


def versions(api: Api, name: str, form: Form) -> None:
    """Those of one Secret, the latest first."""
    found = api.items(api.own(f"secrets/{name}/versions"))

    def made() -> list[list[str]]:
        now = time.time()
        return [
            [str(one["number"]), one["secret"], ", ".join(one["keys"]), one["state"], rows.age(one["createdAt"], now)]
            for one in found
        ]

    show.listing(form, found, ["VERSION", "SECRET", "KEYS", "STATE", "AGE"], made, lambda: [one["secret"] for one in found])


def delete(api: Api, names: Sequence[str]) -> None:
    for name in names:
        api.delete(path(api.project, name))
        sys.stdout.write(f"deleted secret {name}\n")


def rotate(api: Api, *, new_key: bool, retire: bool) -> None:
    """Seal all anew; `retire`: forget the keys that none needs."""
    done = api.post(f"{EBB}/secrets:rotate", {"newKey": str(new_key).lower(), "retire": str(retire).lower()})
    sys.stdout.write(f"{done['resealed']} of {done['secrets']} secrets sealed anew with key {done['key']}\n")
    if retire:
        gone = ", ".join(done["retired"])
        sys.stdout.write(
            f"retired: {gone}; take these lines out of the key files of other machines\n" if gone else "none retired\n"
        )


def data(values: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Keys to base64. Raises BadUsage."""
    found: dict[str, bytes] = {}
    for word in values:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadUsage("a value is not KEY=VALUE; from a file: --from-file KEY=FILE")
        found[key] = value.encode()
    for word in files:
        key, equals, file = word.partition("=")
        path = Path(file if equals else word)
        try:
            found[key if equals else path.name] = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        except OSError as error:
            raise BadUsage(f"--from-file {word}: {error.strerror}") from None
    if not found:
        raise BadUsage("give at least one KEY=VALUE or --from-file KEY=FILE")
    return {key: base64.b64encode(value).decode() for key, value in found.items()}


def docker_config(server: str, user: str, password: str) -> str:
    """The content of a docker config with one login."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {server: {"username": user, "password": password, "auth": auth}}})


def write(api: Api, name: str, body: Object, *, replace: bool) -> None:
    """Create it, or replace the one that is there."""
    try:
        api.post(path(api.project), {}, body)
        said = "created"
    except Refused as error:
        if error.status != 409:
            raise
        if not replace:
            raise Refused(f"secret {name} exists already; give --replace to write over it") from None
        api.put(path(api.project, name), body)
        said = "replaced"
    sys.stdout.write(f"{said} secret {name}\n")


def _stdin() -> str:
    return sys.stdin.read().rstrip("\r\n")


def path(project: str, name: str = "") -> str:
    """Where Secrets are; one of them when named."""
    return f"/api/v1/namespaces/{project}/secrets" + (f"/{name}" if name else "")


def _meta(obj: Object) -> Object:
    return dict(obj["metadata"])


def _rows(found: Sequence[Object]) -> list[list[str]]:
    now = time.time()
    return [
        [
            _meta(one)["name"],
            one.get("type", ""),
            ", ".join(_meta(one).get("annotations", {}).get("ebb.dev/keys", "").split()),
            rows.age(_meta(one).get("creationTimestamp", ""), now),
        ]
        for one in found
    ]
