"""The file by which kn, kubectl and Kubernetes' client libraries find this engine's API and log in as its first admin."""

import base64
import os
from pathlib import Path

import yaml

SERVER_NAME = "localhost"
"""In the API's certificate, whatever the address is by which it is reached."""


def text(api: str, token: str, ca: bytes) -> str:
    """A kubeconfig whose one context is `ebb`, for the API at `api`, whose certificate `ca` (PEM) signed."""
    cluster = {
        "server": api,
        "certificate-authority-data": base64.b64encode(ca).decode(),
        "tls-server-name": SERVER_NAME,
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "ebb", "cluster": cluster}],
            "users": [{"name": "ebb", "user": {"token": token}}],
            "contexts": [{"name": "ebb", "context": {"cluster": "ebb", "user": "ebb", "namespace": "default"}}],
            "current-context": "ebb",
        },
        sort_keys=False,
    )


def write(path: Path, api: str, token_file: Path, ca_file: Path) -> None:
    """Write it in one step, readable by root alone: it holds a token. Raises OSError."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    made = text(api, token_file.read_text().strip(), ca_file.read_bytes())
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(made)
    fresh.replace(path)
