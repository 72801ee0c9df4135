"""Where ACME is asked for certificates, domains and services say how that goes: CertificateProvisioned, as Knative has it."""

import asyncio
from dataclasses import replace

import msgspec
import pytest

from registry import defaults, writing
from registry.bounds import Bounds, Naming
from registry.conditions import find
from registry.mapping import MappingView, plan_mapping
from registry.objects import DOMAIN_MAPPING, Object
from registry.observed import Observed, Unit
from registry.provision import Provision
from registry.view import Seen
from store import keys
from store.certificates import Certificate
from store.memory import MemoryStore
from store.model import RouteEntry, encode
from store.txn import Put
from tests.eventually import eventually
from tests.unit.registry import world as worlds
from tests.unit.registry.world import NOW, World, service

HOST = "shop.example.org"
BOUNDS = Bounds(acme=True)
DAY_S = 86_400.0
VALID = Provision(hosts=[HOST], not_after=NOW + 60 * DAY_S)
FAILED = Provision(hosts=[HOST], problem="127.0.0.9: connection refused", retry_at=NOW + 300)
UID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def mapped(certificate: Provision | None, bounds: Bounds = BOUNDS, host: str = HOST) -> Object:
    """The DomainMapping of `host` after its plan, everything else about it being well."""
    body = defaults.prune({"metadata": {"name": host}, "spec": {"ref": {"name": "shop"}}})
    obj = writing.new(DOMAIN_MAPPING, body, "a", host, UID, "t0", bounds)
    there = {("Service", "shop"): {"status": {"url": "http://there"}}}
    view = MappingView("a", host, Seen(obj, 1), heir="a", services=there, certificate=certificate)
    writes = [write for txn in plan_mapping(view, Naming(https_port=8443), bounds, NOW).txns for write in txn.writes]
    (written,) = [write for write in writes if isinstance(write, Put) and write.key.startswith(keys.OBJECTS)]
    return dict(msgspec.json.decode(written.value))


@pytest.mark.parametrize(
    ("certificate", "status", "reason", "scheme"),
    [
        (None, "Unknown", "CertificateNotReady", "http"),
        (FAILED, "False", "CertificateProvisionFailed", "http"),
        (VALID, "True", None, "https"),
        (Provision(hosts=[HOST], not_after=NOW + 9, problem="no", retry_at=NOW + 1), "True", "CertificateRenewFailed", "https"),
        (
            Provision(hosts=[HOST], not_after=NOW - 9, problem="no", retry_at=NOW + 1),
            "False",
            "CertificateProvisionFailed",
            "http",
        ),
    ],
)
def test_a_domain_says_how_its_certificate_stands(
    certificate: Provision | None, status: str, reason: str | None, scheme: str
) -> None:
    obj = mapped(certificate)
    said = find(obj, "CertificateProvisioned")
    assert (said["status"], said.get("reason")) == (status, reason)
    assert find(obj, "Ready")["status"] == status
    assert obj["status"]["url"].startswith(f"{scheme}://{HOST}")
    if certificate is not None and certificate.problem:
        assert certificate.problem in said["message"]
        assert "tried again by itself at 2027-01-15T08:0" in said["message"]


@pytest.mark.parametrize(("bounds", "host"), [(Bounds(), HOST), (BOUNDS, "shop.internal"), (BOUNDS, "*.example.org")])
def test_where_nobody_is_asked_for_a_certificate_a_domain_says_so(bounds: Bounds, host: str) -> None:
    obj = mapped(None, bounds, host)
    assert find(obj, "CertificateProvisioned")["reason"] == "TLSNotEnabled"
    assert find(obj, "Ready")["status"] == "True"


def test_a_service_below_a_public_domain_says_so_too_and_is_ready_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "BOUNDS", BOUNDS)
    monkeypatch.setattr(worlds, "NAMING", Naming(domain="example.org", https_port=8443))
    world, known = World(), dict[str, Provision]()
    plain = world.view
    monkeypatch.setattr(world, "view", lambda name="hello": replace(plain(name), provision=known.get))
    world.create(service())
    world.make_ready("hello-00001")
    host = "hello.default.example.org"
    for found, status, reason in ((None, "Unknown", "CertificateNotReady"), (FAILED, "False", "CertificateProvisionFailed"),
                                  (VALID, "True", None)):  # fmt: skip
        if found is not None:
            known[host] = found
        world.settle()
        for plural in ("routes", "services"):
            said = world.condition(plural, "CertificateProvisioned")
            assert (said["status"], said.get("reason"), said["severity"]) == (status, reason, "Warning")
            assert world.condition(plural)["status"] == "True"


async def test_news_of_a_certificate_marks_the_domains_and_services_that_it_is_of() -> None:
    store, dirty = MemoryStore(), set[Unit]()
    observed = Observed(store, dirty.add)
    jobs = [asyncio.get_running_loop().create_task(table.run()) for table in observed.tables().values()]
    await observed.synced()
    mapping = msgspec.json.encode({"metadata": {"name": HOST}, "spec": {"ref": {"name": "shop"}}})
    await store.put(keys.object_(DOMAIN_MAPPING.plural, "a", HOST), mapping)
    entry = RouteEntry(project="a", route="shop", hosts={"shop.a.example.org": []}, limits={})
    await store.put(keys.route("a", "shop"), encode(entry))
    await eventually(lambda: dirty >= {("a", HOST), ("a", "shop")}, "both are known")

    async def told(name: str, hosts: list[str], marked: Unit) -> None:
        dirty.clear()
        made = Certificate(project="a", name=name, source=name.partition(":")[0], hosts=hosts, chain="PEM", not_after=NOW)
        await store.put(keys.certificate("a", name), encode(made))
        await eventually(lambda: marked in dirty, f"{name} marks {marked}")

    await told(f"acme:{HOST}", [HOST], ("a", HOST))
    await told("acme:shop.a.example.org", ["shop.a.example.org"], ("a", "shop"))
    await told("secret:all", ["*.example.org"], ("a", HOST))
    found = observed.hosts.provision("a", HOST)
    assert found is not None
    assert found.hosts == ["*.example.org"], "what the project brings comes before what is asked for"
    assert observed.hosts.provision("b", HOST) is None
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
