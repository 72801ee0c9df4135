"""What the controller sees of one name in one project, and the draft that a plan makes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from registry import objects
from registry.conditions import Resolution
from registry.objects import Object
from registry.provision import Provision
from store import keys
from store.model import Instance, Revision, RouteEntry, Scale
from store.txn import Delete, Guard, Put

WRITES_MAX = 100
"""Of one transaction; etcd's limit is 128 with its guards."""
_PASSING = ("actualReplicas", "desiredReplicas")


class Seen(NamedTuple):
    """An object as it was read at `store_rev`."""

    obj: Object
    store_rev: int


def nobody(_: str) -> str:
    """No host is taken."""
    return ""


def nothing(_: str) -> Provision | None:
    """No host has a certificate."""
    return None


def listening(_: int) -> Sequence[str | None]:
    """One ingress, and it listens."""
    return ("",)


@dataclass(frozen=True, slots=True)
class View:
    """Service, Configuration and Route of one name with the revisions of that Configuration, and what others say of them.

    `seen` holds, by key, these objects and those they refer to. The rest is by revision name.
    """

    project: str
    name: str
    seen: Mapping[str, Seen]
    compiled: Mapping[str, Revision] = field(default_factory=dict)
    entry: RouteEntry | None = None
    scales: Mapping[str, Scale] = field(default_factory=dict)
    instances: Mapping[str, Sequence[Instance]] = field(default_factory=dict)
    resolutions: Mapping[str, Resolution] = field(default_factory=dict)
    progress: Mapping[str, str] = field(default_factory=dict)
    routed_elsewhere: frozenset[str] = frozenset()
    """Revisions that routes of another name send requests to."""
    nodes: int = 0
    host_owner: Callable[[str], str] = nobody
    """Name of another route that answers to a host (or `:port`), or an empty string."""
    port_told: Callable[[int], Sequence[str | None]] = listening
    """What each ingress says of a port: empty, it listens; why it cannot; or None: nothing yet."""
    provision: Callable[[str], Provision | None] = nothing
    """What is known of the certificate of a host."""

    def key(self, kind: objects.Kind, name: str = "") -> str:
        return keys.object_(kind.plural, self.project, name or self.name)


class Draft:
    """The view's objects while a plan changes them; `changes()` is the difference."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._objects: dict[str, Object] = {key: seen.obj for key, seen in view.seen.items()}
        self._extra: dict[str, Put | Delete] = {}
        self._because: set[str] = set()
        self._absent: set[str] = set()

    def get(self, kind: objects.Kind, name: str = "") -> Object | None:
        return self._objects.get(self._view.key(kind, name))

    def put(self, obj: Object) -> None:
        self._objects[objects.key_of(obj)] = obj

    def also(self, write: Put | Delete, kind: objects.Kind, name: str = "", *, new: bool = False) -> None:
        """A write to a key that is not an API object, made because of an object: it holds only while that stays as it was seen.

        The tables that a view is made of are not of one moment, so this is what keeps a stale view from being written. `new`: the
        key does not exist yet.
        """
        if new:
            self._absent.add(write.key)
        self._extra[write.key] = write
        self._because.add(self._view.key(kind, name))

    def drop(self, kind: objects.Kind, name: str = "") -> None:
        self._objects.pop(self._view.key(kind, name), None)

    def all(self, kind: objects.Kind) -> dict[str, Object]:
        """By name, in order."""
        prefix = keys.objects(kind.plural, self._view.project)
        return {key[len(prefix) :]: obj for key, obj in sorted(self._objects.items()) if key.startswith(prefix)}

    def changes(self) -> tuple[list[tuple[tuple[Guard, ...], tuple[Put | Delete, ...]]], bool]:
        """Transactions in order (nearly always none or one), and whether one of them cannot wait."""
        seen = self._view.seen
        writes: list[tuple[Guard | None, Put | Delete]] = [(None, write) for write in self._extra.values()]
        urgent = bool(self._extra)
        for key, obj in self._objects.items():
            before = seen.get(key)
            if before is None or before.obj != obj:
                guard = Guard(key, before.store_rev if before is not None else 0)
                writes.append((guard, Put(key, msgspec.json.encode(obj))))
                urgent = urgent or before is None or _lasting(before.obj) != _lasting(obj)
        for key in seen:
            if key not in self._objects:
                writes.append((Guard(key, seen[key].store_rev), Delete(key)))
                urgent = True
        root = self._held({guard.key for guard, _ in writes if guard is not None})
        chunks = [writes[at : at + WRITES_MAX] for at in range(0, len(writes), WRITES_MAX)]
        return [(root + tuple(g for g, _ in chunk if g is not None), tuple(w for _, w in chunk)) for chunk in chunks], urgent

    def _held(self, guarded: set[str]) -> tuple[Guard, ...]:
        """Guards of what is not written itself: the Service (a plan for one state of it is not written over another, nor after
        its deletion), and the objects that other writes are made because of."""
        keep = ({self._view.key(objects.SERVICE)} | self._because) - guarded
        seen = self._view.seen
        held = tuple(Guard(key, seen[key].store_rev if key in seen else 0) for key in sorted(keep))
        return held + tuple(Guard(key, 0) for key in sorted(self._absent))


def _lasting(obj: Object) -> Object:
    """`obj` without what may be written a little later: counts of instances, the Active condition, words of progress."""
    status = obj.get("status")
    if not isinstance(status, dict):
        return obj
    conditions = [
        (c["type"], c["status"], "" if c["status"] == "Unknown" else (c.get("reason"), c.get("message")))
        for c in status.get("conditions", ())
        if c["type"] != "Active"
    ]
    rest = {name: value for name, value in status.items() if name not in _PASSING and name != "conditions"}
    return {**obj, "status": {**rest, "conditions": conditions}}
