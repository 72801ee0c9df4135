"""Secrets and ConfigMaps of a test, and images behind a login that a Secret opens."""

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import archives, real
from tests.e2e.engine import Engine

SECRETS, CONFIGS = "/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/configmaps"


def put(engine: Engine, path: str, name: str, **data: str) -> None:
    """Create or replace a Secret (its values plain) or ConfigMap."""
    _write(engine, path, {"metadata": {"name": name}, "stringData" if path == SECRETS else "data": data})


def refer(name: str, kind: str, source: str, key: str) -> dict[str, object]:
    return {"name": name, "valueFrom": {kind: {"name": source, "key": key}}}


def _write(engine: Engine, path: str, body: dict[str, Any]) -> None:
    answer = engine.api.put(f"{path}/{body['metadata']['name']}", json=body)
    answer = engine.api.post(path, json=body) if answer.status_code == 404 else answer
    assert answer.status_code in (200, 201), answer.text


@contextlib.contextmanager
def behind_a_login(directory: Path, bcrypt: str, password: str) -> Iterator[str]:
    """A reference to an image in a registry that wants the login `me` with `password`, whose hash is `bcrypt`."""
    (directory / "htpasswd").write_text(f"me:{bcrypt}\n")
    (directory / "image.tar").write_bytes(archives.oci_tar(archives.busybox()))
    with real.blocking(lambda own: real.make_registry(own, htpasswd=directory / "htpasswd")) as server:
        name = f"{server.address}/team/hello:v1"
        archives.copy(f"oci-archive:{directory}/image.tar", f"docker://{name}", "--dest-creds", f"me:{password}")
        yield name


def log_in(engine: Engine, name: str, image: str, password: str) -> None:
    """`kubectl create secret docker-registry`, as its body; over one of that name."""
    auth = base64.b64encode(f"me:{password}".encode()).decode()
    config = json.dumps({"auths": {image.partition("/")[0]: {"auth": auth, "username": "me", "password": password}}})
    sort = "kubernetes.io/dockerconfigjson"
    _write(engine, SECRETS, {"metadata": {"name": name}, "type": sort, "stringData": {".dockerconfigjson": config}})
