"""Who owns a host: the plan of a DomainMapping over the controller's own tables, on the store's twin."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from process.clock import rfc3339
from registry import defaults, domains, objects, validate, writing
from registry.bounds import Bounds, Naming
from registry.conditions import find
from registry.mapping import plan_mapping
from registry.objects import DOMAIN_MAPPING, SERVICE, Object
from registry.observed import Observed, Unit
from store import keys
from store.errors import Conflict
from store.memory import MemoryStore
from store.model import Domain, decode
from tests.eventually import eventually

BOUNDS, NAMING, NOW = Bounds(own_domains=("apps.corp.example", "svc.cluster.local")), Naming(), 1_800_000_000.0


class Hosts:
    """Projects that map hosts, and the plans that follow until nothing changes any more."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.dirty: dict[Unit, None] = {}
        self.observed = Observed(self.store, self._mark)

    def _mark(self, unit: Unit) -> None:
        self.dirty[unit] = None

    async def write(self, kind: objects.Kind, project: str, name: str, spec: Object, **status: Any) -> None:
        body = defaults.prune({"metadata": {"name": name}, "spec": spec})
        uid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
        obj = writing.new(kind, body, project, name, uid, rfc3339(NOW), BOUNDS)
        await self.store.put(objects.key_of(obj), msgspec.json.encode({**obj, "status": status} if status else obj))
        await self.settle()

    async def map(self, project: str, host: str, service: str = "shop", **more: Any) -> None:
        await self.write(DOMAIN_MAPPING, project, host, {"ref": {"name": service}, **more})

    async def service(self, project: str, name: str = "shop") -> None:
        await self.write(SERVICE, project, name, {"template": {}}, url="http://there")

    async def unmap(self, project: str, host: str) -> None:
        await self.store.delete(keys.object_(DOMAIN_MAPPING.plural, project, host))
        await self.settle()

    async def settle(self) -> None:
        """Plan what is marked until the tables show everything and nothing is left to write."""
        for _ in range(50):
            await self._caught_up()
            units, self.dirty = list(self.dirty), {}
            if not units:
                return
            for unit in units:
                if "." in unit[1]:
                    await self._plan(unit)
        raise AssertionError("the plans never come to rest")

    async def _plan(self, unit: Unit) -> None:
        for txn in plan_mapping(self.observed.hosts.view(unit), NAMING, BOUNDS, NOW).txns:
            try:
                await self.store.commit(txn)
            except Conflict:
                self.dirty[unit] = None

    async def _caught_up(self) -> None:
        for table, prefix in ((self.observed.objects, keys.OBJECTS), (self.observed.hosts.domains, keys.DOMAINS)):
            listing = await self.store.list(prefix)
            there = {entry.key: entry.store_rev for entry in listing.entries}

            def same(table: Any = table, there: dict[str, int] = there) -> bool:
                return {key: table.entry(key).store_rev for key, _ in table.items()} == there

            await eventually(same, "the table has caught up")

    async def owner(self, host: str) -> str:
        entry = await self.store.get(keys.domain(host))
        return decode(Domain, entry.value).project if entry is not None else ""

    async def said(self, project: str, host: str, kind: str = "DomainClaimed") -> Object:
        entry = await self.store.get(keys.object_(DOMAIN_MAPPING.plural, project, host))
        assert entry is not None
        return find(msgspec.json.decode(entry.value), kind)


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    made = Hosts()
    jobs = [asyncio.get_running_loop().create_task(table.run()) for table in made.observed.tables().values()]
    await made.observed.synced()
    yield made
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def test_the_first_has_the_host_the_second_is_told_and_takes_over_when_it_is_let_go(hosts: Hosts) -> None:
    await hosts.service("a")
    await hosts.map("a", "shop.example")
    await hosts.map("b", "shop.example")
    assert await hosts.owner("shop.example") == "a"
    assert (await hosts.said("a", "shop.example", "Ready"))["status"] == "True"
    said = await hosts.said("b", "shop.example")
    assert (said["status"], said["reason"]) == ("False", "DomainAlreadyClaimed")
    assert "another project" in said["message"]
    await hosts.map("c", "shop.example")
    await hosts.unmap("a", "shop.example")
    assert await hosts.owner("shop.example") == "b", "b has waited longer than c"
    assert (await hosts.said("b", "shop.example"))["status"] == "True"
    assert (await hosts.said("c", "shop.example"))["status"] == "False"


async def test_of_two_plans_made_at_the_same_moment_one_is_written(hosts: Hosts) -> None:
    for project in ("a", "b"):
        body = {"metadata": {"name": "shop.example"}, "spec": {"ref": {"name": "shop"}}}
        obj = writing.new(DOMAIN_MAPPING, body, project, "shop.example", "u", rfc3339(NOW), BOUNDS)
        await hosts.store.put(objects.key_of(obj), msgspec.json.encode(obj))
    await eventually(lambda: len(hosts.observed.objects) == 2, "both are seen")
    views = [replace(hosts.observed.hosts.view((project, "shop.example")), heir=project) for project in ("a", "b")]
    first, second = (plan_mapping(view, NAMING, BOUNDS, NOW).txns[0] for view in views)
    await hosts.store.commit(first)
    with pytest.raises(Conflict):
        await hosts.store.commit(second)
    assert await hosts.owner("shop.example") == "a"


async def test_below_a_wildcard_only_its_owner_claims_and_who_was_there_before_stays(hosts: Hosts) -> None:
    await hosts.map("b", "old.shop.example")
    await hosts.map("a", "*.shop.example")
    await hosts.map("b", "new.shop.example")
    await hosts.map("b", "*.deep.shop.example")
    await hosts.map("a", "own.shop.example")
    await hosts.map("b", "shop.example")
    owners = {
        host: await hosts.owner(host) for host in ("old.shop.example", "new.shop.example", "own.shop.example", "shop.example")
    }
    assert owners == {"old.shop.example": "b", "new.shop.example": "", "own.shop.example": "a", "shop.example": "b"}
    assert "below '*.shop.example'" in (await hosts.said("b", "new.shop.example"))["message"]
    assert (await hosts.said("b", "*.deep.shop.example"))["status"] == "False"
    await hosts.unmap("a", "*.shop.example")
    assert await hosts.owner("new.shop.example") == await hosts.owner("*.deep.shop.example") == "b"


async def test_a_host_that_became_the_platforms_is_let_go(hosts: Hosts) -> None:
    await hosts.write(DOMAIN_MAPPING, "a", "x.apps.corp.example", {"ref": {"name": "shop"}})
    assert (await hosts.said("a", "x.apps.corp.example"))["reason"] == "DomainNotAllowed"
    assert await hosts.owner("x.apps.corp.example") == ""


async def test_what_it_leads_to_and_its_certificate_are_awaited(hosts: Hosts) -> None:
    await hosts.map("a", "shop.example", tls={"secretName": "cert"})
    said = await hosts.said("a", "shop.example", "ReferenceResolved")
    assert (said["status"], said["reason"]) == ("False", "ReferenceNotFound")
    await hosts.service("a")
    assert (await hosts.said("a", "shop.example", "ReferenceResolved"))["status"] == "True"
    assert (await hosts.said("a", "shop.example", "CertificateProvisioned"))["reason"] == "SecretNotFound"
    for names, reason in ((["tls.crt"], "SecretNotTLS"), (["tls.crt", "tls.key"], None)):
        await hosts.store.put(keys.secret("a", "cert"), msgspec.json.encode({"names": names, "metadata": {}}))
        await eventually(lambda: bool(hosts.dirty), "the mapping is marked")
        await hosts.settle()
        assert (await hosts.said("a", "shop.example", "CertificateProvisioned")).get("reason") == reason
    assert (await hosts.said("a", "shop.example", "Ready"))["status"] == "True"
    entry = await hosts.store.get(keys.domain("shop.example"))
    assert entry is not None
    assert decode(Domain, entry.value) == Domain(project="a", route="shop", secret="cert")


@pytest.mark.parametrize(
    "host",
    ["*", "*.example", "example", "Shop.example", "a..b", "-a.example", "10.0.0.1", "apps.corp.example", "x.y.apps.corp.example",
     "*.corp.example", "hello.default.svc.cluster.local", "a@b.example", "a.example:80", "a.*.example", "a" * 64 + ".example", 7],
)  # fmt: skip
def test_hosts_that_nobody_may_map(host: Any) -> None:
    body = {"metadata": {"name": host}, "spec": {"ref": {"name": "shop"}}}
    found = validate.validate(DOMAIN_MAPPING, defaults.prune(body), BOUNDS)
    assert [problem.path for problem in found] == ["metadata.name"]


@pytest.mark.parametrize("host", ["shop.example", "*.shop.example", "corp.example", "xn--bcher-kva.example", "1.2.3.example"])
def test_hosts_that_may_be_mapped(host: str) -> None:
    spec = {"ref": {"kind": "Service", "name": "shop", "namespace": "p", "apiVersion": "serving.knative.dev/v1"}}
    body = {"apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping", "metadata": {"name": host}, "spec": spec}
    assert not validate.validate(DOMAIN_MAPPING, body, BOUNDS)


def test_the_wildcards_above_a_host() -> None:
    assert domains.above("a.b.c.d") == ["*.b.c.d", "*.c.d"]
    assert domains.above("*.b.c.d") == ["*.c.d"]
    assert domains.above("c.d") == []
