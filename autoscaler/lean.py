"""What the autoscaler keeps of the very many things that are registered and idle: as little as it decides by. Pure."""

from sys import intern
from typing import Any

import msgspec

from store.model import Probe, Revision, RouteEntry, ScaleSpec

_USUAL = ScaleSpec()
_NO_LIST: list[Any] = []
_NO_DICT: dict[str, Any] = {}
_PROBE = Probe()
_ROUTE = RouteEntry(project="", route="", hosts={})


def revision(full: Revision) -> Revision:
    """`full` without what only a node needs: environment, commands, volumes, probes, labels. A usual spec is shared."""
    return msgspec.structs.replace(
        full,
        project=intern(full.project),
        configuration="",
        image_name="",
        pull_secrets=_NO_LIST,
        node_selector=full.node_selector or _NO_DICT,
        tolerations=full.tolerations or _NO_LIST,
        command=_NO_LIST,
        args=_NO_LIST,
        env=_NO_LIST,
        env_refs=_NO_LIST,
        env_from=_NO_LIST,
        volumes=_NO_LIST,
        working_dir="",
        user="",
        startup_probe=None,
        readiness_probe=_PROBE,
        liveness_probe=None,
        scale=_USUAL if full.scale == _USUAL else full.scale,
        labels=_NO_DICT,
    )


def route(_: RouteEntry) -> RouteEntry:
    """Only that it is there: what it names is in `reach`."""
    return _ROUTE
