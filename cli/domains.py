"""What `ebb domain` does: DomainMappings written, followed until they are ready, listed and deleted."""

import sys
import time
from collections.abc import Sequence

from cli import rows, show
from cli.client import Api, Object
from cli.errors import Refused
from cli.show import Form

BETA = "/apis/serving.knative.dev/v1beta1"
PATHS = "ebb.dev/paths"
POLL_S = 0.1
SETTLED_S = 1.0
"""For so long a condition that says False may still be that of a moment."""


def add(api: Api, host: str, service: str, paths: Sequence[str], secret: str, wait_s: float) -> None:
    """Create the mapping, or replace the one there is. Raises Refused when it is not ready within `wait_s` (0: do not wait)."""
    spec: Object = {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": service}}
    if secret:
        spec["tls"] = {"secretName": secret}
    meta: Object = {"name": host, **({"annotations": {PATHS: " ".join(paths)}} if paths else {})}
    body = {"apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping", "metadata": meta, "spec": spec}
    try:
        api.post(_path(api), {}, body)
    except Refused as error:
        if error.status != 409:
            raise
        api.put(_path(api, host), body)
    if not wait_s:
        sys.stdout.write(f"domain {host} written; see how it goes: ebb domain list\n")
        return
    sys.stdout.write(f"{_ready(api, host, wait_s)['status']['url']}\n")


def _ready(api: Api, host: str, wait_s: float) -> Object:
    began = time.monotonic()
    while True:
        found: Object = api.get(_path(api, host))
        said, waited = rows.condition(found), time.monotonic() - began
        seen = (found.get("status") or {}).get("observedGeneration") == found["metadata"].get("generation")
        if seen and said.get("status") == "True":
            return found
        if waited >= wait_s or (seen and said.get("status") == "False" and waited >= SETTLED_S):
            why = f"{said.get('reason')}: {said.get('message')}" if said.get("reason") else "the controller has not answered"
            raise Refused(f"domain {host} is not ready: {why}")
        time.sleep(POLL_S)


def list_(api: Api, everywhere: bool, form: Form) -> None:
    """HOST LEADS TO PATHS READY AGE."""
    found = api.items(f"{BETA}/domainmappings" if everywhere else _path(api))
    head = ["HOST", "LEADS TO", "PATHS", "READY", "AGE"]
    show.listing(form, found, head, lambda: _rows(found, time.time()), lambda: [one["metadata"]["name"] for one in found])


def delete(api: Api, hosts: Sequence[str]) -> None:
    for host in hosts:
        api.delete(_path(api, host))
        sys.stdout.write(f"deleted domain {host}\n")


def _path(api: Api, host: str = "") -> str:
    return f"{BETA}/namespaces/{api.project}/domainmappings" + (f"/{host}" if host else "")


def _rows(found: Sequence[Object], now: float) -> list[list[str]]:
    shown = []
    for one in found:
        meta = one["metadata"]
        paths = (meta.get("annotations") or {}).get(PATHS, "")
        leads = f"{meta.get('namespace', '')}/{one['spec']['ref']['name']}"
        shown.append([meta["name"], leads, paths or "-", rows.ready(one), rows.age(meta.get("creationTimestamp", ""), now)])
    return shown
