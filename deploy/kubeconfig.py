"""The file by which kn, kubectl and Kubernetes' client libraries find this engine's API."""

import os
from pathlib import Path

import yaml


def text(api: str) -> str:
    """A kubeconfig whose one context is `ebb`, for the API at `api`."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "ebb", "cluster": {"server": api}}],
            "users": [{"name": "ebb", "user": {}}],
            "contexts": [{"name": "ebb", "context": {"cluster": "ebb", "user": "ebb", "namespace": "default"}}],
            "current-context": "ebb",
        },
        sort_keys=False,
    )


def write(path: Path, api: str) -> None:
    """Write it in one step, readable by everybody (it holds no secret). Raises OSError."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text(api))
    os.chmod(fresh, 0o644)
    fresh.replace(path)
