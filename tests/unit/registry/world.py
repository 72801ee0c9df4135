"""A world for the plan, in memory and on virtual time: objects are written by clients, plans are applied, others say things."""

from typing import Any

import msgspec

from registry import defaults, objects, writing
from registry.bounds import Bounds, Naming
from registry.conditions import Resolution, find
from registry.objects import Object
from registry.plan import Plan, plan
from registry.view import Seen, View
from store import keys
from store.model import Instance, Revision, RouteEntry, Scale, decode
from store.txn import Put

BOUNDS, NAMING = Bounds(), Naming()
NOW = 1_800_000_000.0


def service(image: str = "hello:v1", name: str = "hello", **template_meta: Any) -> Object:
    """A Service as a client sends it."""
    template: Object = {"spec": {"containers": [{"image": image}]}}
    if template_meta:
        template["metadata"] = template_meta
    return {"metadata": {"name": name}, "spec": {"template": template}}


class World:
    """One project called `default`."""

    def __init__(self) -> None:
        self.now = NOW
        self.rev = 0
        self.kv: dict[str, tuple[bytes, int]] = {}
        self.resolutions: dict[str, Resolution] = {}
        self.scales: dict[str, Scale] = {}
        self.instances: dict[str, list[Instance]] = {}
        self.commits = 0
        self.taken: dict[str, str] = {}

    def put(self, key: str, value: bytes) -> None:
        self.rev += 1
        self.kv[key] = (value, self.rev)

    def obj(self, plural: str, name: str = "hello") -> Object:
        return msgspec.json.decode(self.kv[keys.object_(plural, "default", name)][0])

    def has(self, plural: str, name: str = "hello") -> bool:
        return keys.object_(plural, "default", name) in self.kv

    def condition(self, plural: str, kind: str = "Ready", name: str = "hello") -> Object:
        return find(self.obj(plural, name), kind)

    def entry(self, name: str = "hello") -> RouteEntry | None:
        held = self.kv.get(keys.route("default", name))
        return decode(RouteEntry, held[0]) if held else None

    def compiled(self, name: str) -> Revision:
        return decode(Revision, self.kv[keys.revision("default", name)][0])

    def shares(self, host: str = "hello.default.localhost") -> dict[str, int]:
        entry = self.entry()
        return {t.revision: t.percent for t in entry.hosts[host]} if entry else {}

    def create(self, body: Object, kind: objects.Kind = objects.SERVICE) -> None:
        body = defaults.prune(body)
        obj = writing.new(kind, body, "default", body["metadata"]["name"], "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "t0", BOUNDS)
        self.put(objects.key_of(obj), msgspec.json.encode(obj))

    def update(self, body: Object, kind: objects.Kind = objects.SERVICE) -> bool:
        old = self.obj(kind.plural, body["metadata"]["name"])
        new = writing.replaced(kind, old, defaults.prune(body), BOUNDS)
        self.put(objects.key_of(new), msgspec.json.encode(new))
        return new is not old

    def delete(self, plural: str, name: str = "hello") -> None:
        del self.kv[keys.object_(plural, "default", name)]

    def view(self, name: str = "hello") -> View:
        seen = {
            key: Seen(msgspec.json.decode(value), rev) for key, (value, rev) in self.kv.items() if key.startswith(keys.OBJECTS)
        }
        compiled = {k.rpartition("/")[2]: decode(Revision, v) for k, (v, _) in self.kv.items() if k.startswith(keys.REVISIONS)}
        return View(
            "default",
            name,
            seen,
            compiled,
            self.entry(name),
            self.scales,
            self.instances,
            self.resolutions,
            nodes=1,
            host_owner=lambda host: self.taken.get(host, ""),
        )

    def step(self, name: str = "hello") -> Plan:
        """Plan once and write it, checking its guards."""
        made = plan(self.view(name), NAMING, BOUNDS, self.now)
        for txn in made.txns:
            for guard in txn.guards:
                assert self.kv.get(guard.key, (b"", 0))[1] == guard.store_rev, guard
            self.rev += 1
            self.commits += 1
            for write in txn.writes:
                if isinstance(write, Put):
                    self.kv[write.key] = (write.value, self.rev)
                else:
                    self.kv.pop(write.key, None)
        return made

    def settle(self, name: str = "hello") -> Plan:
        """Step until nothing is written any more."""
        for _ in range(6):
            made = self.step(name)
            if not made.txns:
                return made
        raise AssertionError("the plan never comes to rest")

    def resolve(self, revision: str, digest: str = "a" * 64) -> None:
        self.resolutions[revision] = Resolution(image=f"docker.io/library/hello@sha256:{digest}")

    def verify(self, revision: str) -> None:
        self.scales[revision] = Scale(project="default", revision=revision, desired=1, verified=True, at=self.now)

    def make_ready(self, revision: str) -> None:
        self.settle()
        self.resolve(revision)
        self.settle()
        self.verify(revision)
        self.settle()
