"""Which old revisions of a configuration may go. Knative's rules and defaults (config-gc)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry import objects
from registry.compile import wall_s
from registry.objects import Object


@dataclass(frozen=True, slots=True)
class Retention:
    """A revision out of use goes when it is older than both ages and more than `min_kept` are; beyond `max_kept` at any age."""

    since_create_s: float = 48 * 3600
    since_last_active_s: float = 15 * 3600
    min_kept: int = 20
    max_kept: int = 1000


def disposable(revisions: Mapping[str, Object], in_use: Iterable[str], retention: Retention, now: float) -> list[str]:
    """Names that may be deleted, oldest first. `in_use`: named by a route, or latest created or latest ready."""
    used = set(in_use)
    free = [
        name
        for name, revision in revisions.items()
        if name not in used and objects.annotations_of(revision).get(objects.ANNOTATION_NO_GC) != "true"
    ]
    if len(free) <= min(retention.min_kept, retention.max_kept):
        return []
    idle = sorted((_last_active(revisions[name]), name) for name in free)
    gone: list[str] = []
    for last_active, name in idle:
        kept = len(idle) - len(gone)
        created = wall_s(objects.meta(revisions[name]).get("creationTimestamp", ""))
        stale = now - created > retention.since_create_s and now - last_active > retention.since_last_active_s
        if kept > retention.max_kept or (kept > retention.min_kept and stale):
            gone.append(name)
    return gone


def _last_active(revision: Object) -> float:
    meta = objects.annotations_of(revision).get(objects.ANNOTATION_ROUTING_SINCE, "")
    return wall_s(meta) or wall_s(objects.meta(revision).get("creationTimestamp", ""))
