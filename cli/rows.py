"""From the API's objects to rows of a table. Pure; `now` is wall seconds."""

import calendar
import time
from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]


def condition(obj: Object, kind: str = "Ready") -> Object:
    """The condition of `kind`, or an empty one."""
    found = [c for c in (obj.get("status") or {}).get("conditions") or [] if c.get("type") == kind]
    return found[0] if found else {}


def age(stamp: str, now: float) -> str:
    """How long ago an RFC 3339 time was, in its largest unit."""
    try:
        seconds = int(now - calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return "-"
    for size, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{name}"
    return f"{max(0, seconds)}s"


def ready(obj: Object) -> str:
    """`True`, or the state with why: `False (ImageNotFound)`."""
    said = condition(obj)
    status = str(said.get("status", "Unknown"))
    return status if status == "True" or not said.get("reason") else f"{status} ({said['reason']})"


def shares(obj: Object) -> str:
    """Traffic in a line: `hello-00001=90 hello-00002=10`."""
    found = (obj.get("status") or {}).get("traffic") or []
    return " ".join(f"{share.get('revisionName', '?')}={share['percent']}" for share in found if share.get("percent"))


def services(found: Sequence[Object], now: float) -> list[list[str]]:
    """NAME URL LATEST READY TRAFFIC AGE."""
    rows = []
    for obj in found:
        status, meta = obj.get("status") or {}, obj["metadata"]
        row = [meta["name"], status.get("url", "-"), status.get("latestReadyRevisionName", "-"), ready(obj)]
        rows.append([*row, shares(obj) or "-", age(meta.get("creationTimestamp", ""), now)])
    return rows


def revisions(found: Sequence[Object], owners: Sequence[Object], instances: Sequence[Object], now: float) -> list[list[str]]:
    """NAME SERVICE TRAFFIC TAGS INSTANCES READY AGE, newest first. `owners`: the services, for their traffic."""
    rows = []
    for obj in sorted(found, key=lambda o: (o["metadata"].get("creationTimestamp", ""), o["metadata"]["name"]), reverse=True):
        meta = obj["metadata"]
        name = meta["name"]
        targets = [t for s in owners for t in (s.get("status") or {}).get("traffic") or [] if t.get("revisionName") == name]
        percent = sum(int(target.get("percent") or 0) for target in targets)
        tags = ",".join(sorted(target["tag"] for target in targets if target.get("tag")))
        owner = (meta.get("labels") or {}).get("serving.knative.dev/service", "-")
        mine = phases([i for i in instances if i.get("revision") == name])
        shown = [f"{percent}%" if percent else "-", tags or "-", mine or "-", ready(obj)]
        rows.append([name, owner, *shown, age(meta.get("creationTimestamp", ""), now)])
    return rows


def phases(instances: Sequence[Object]) -> str:
    """Counts by phase: `2 Ready 1 Parked`."""
    order = ("Ready", "Starting", "Pulling", "Pending", "Draining", "Frozen", "Parked", "Failed", "Stopped")
    counts = {phase: sum(1 for i in instances if i.get("phase") == phase) for phase in order}
    return " ".join(f"{count} {phase}" for phase, count in counts.items() if count)


def instances(found: Sequence[Object], now: float) -> list[list[str]]:
    """NAME REVISION NODE PHASE ADDRESS SINCE START WHY."""
    rows = []
    for item in found:
        steps = item.get("phases_ms") or {}
        took = " ".join(f"{name} {ms:.0f}" for name, ms in steps.items())
        failure = item.get("failure") or {}
        why = f"{failure.get('reason', '')}: {failure.get('message', '')}" if failure else "; ".join(item.get("notices") or [])
        row = [item["instance"], item["revision"], item["node"], item["phase"], item.get("address") or "-"]
        rows.append([*row, f"{max(0, now - item.get('at', now)):.0f}s", took or "-", why])
    return rows


def nodes(found: Sequence[Object]) -> list[list[str]]:
    """NAME STATE CPU MEMORY INSTANCES IMAGES ZONE RUNTIMES."""
    rows = []
    for item in found:
        state = item.get("unschedulable") or item.get("pressed") or "Ready"
        size = [f"{item.get('cpu_m', 0) / 1000:g}", f"{item.get('memory_bytes', 0) / 2**30:.1f}Gi"]
        counts = [str(item.get("instances", "-")), str(len(item.get("images") or []))]
        rows.append([item["node"], state, *size, *counts, item.get("zone") or "-", ",".join(item.get("runtimes") or []) or "-"])
    return rows


def images(found: Sequence[Object]) -> list[list[str]]:
    """NAME PROJECT DIGEST SIZE UNPACKED IN USE."""
    rows = []
    for item in found:
        flags = ["yes" if item.get(key) else "no" for key in ("unpacked", "in_use")]
        whose = item.get("project") or "(all)"
        rows.append([item.get("name", ""), whose, item.get("digest", "")[:19], size(item.get("size_bytes", 0)), *flags])
    return rows


def size(count: float) -> str:
    """Bytes for people: `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def story(events: Sequence[Object]) -> list[list[str]]:
    """AT (ms since the first) STEP (ms since the one before) PROCESS WHAT INSTANCE DETAIL."""
    rows: list[list[str]] = []
    ordered = sorted(events, key=lambda event: event["at"])
    before = first = ordered[0]["at"] if ordered else 0
    for event in ordered:
        detail = " ".join(f"{key}={value}" for key, value in (event.get("detail") or {}).items())
        about = event.get("instance") or event.get("revision", "")
        times = [f"{(event['at'] - first) * 1000:.1f}", f"+{(event['at'] - before) * 1000:.1f}"]
        rows.append([*times, event["process"], event["what"], about, detail])
        before = event["at"]
    return rows


def top(snapshot: Object) -> list[list[str]]:
    """SERVICE REVISION RPS CONCURRENCY QUEUED DESIRED INSTANCES, busiest first."""
    rows = []
    for item in sorted(snapshot.get("revisions", []), key=lambda r: (-r.get("rps", 0), r.get("project", ""), r["revision"])):
        own = [f"{item.get('rps', 0):.1f}", f"{item.get('concurrency', 0):.1f}", str(item.get("queued", 0))]
        counts = item.get("instances") or {}
        shown = " ".join(f"{count} {phase}" for phase, count in counts.items()) or "0"
        rows.append(
            [f"{item.get('project', '')}/{item.get('service', '')}", item["revision"], *own, str(item["desired"]), shown]
        )
    return rows
