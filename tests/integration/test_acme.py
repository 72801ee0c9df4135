"""Certificates by ACME: a real authority (pebble) proves hosts at a real front door, asked by a real registry."""

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from deploy.ports import free_port
from store import keys
from store.backend import Store
from store.bus import Bus
from store.certificates import Certificate
from store.model import decode, encode
from tests import real
from tests.certificates import World
from tests.eventually import eventually_async
from tests.integration.registry_world import API, AUTH, make_registry, playing, service

pytestmark = pytest.mark.real
HOST, UNREACHABLE = "shop.example.org", "gone.example.org"
DOMAINS = "/apis/serving.knative.dev/v1beta1/namespaces/default/domainmappings"
CERTIFICATES = "/apis/ebb.dev/v1/namespaces/default/certificates"


class Authority:
    """pebble, and the DNS that it asks, where every name is 127.0.0.1 until `names` says otherwise."""

    def __init__(self, directory: Path, world: World, http_port: int) -> None:
        self.ca = world.ca
        self.port, self.management, dns, self.dns_management = (free_port() for _ in range(4))
        made = world.authority.issue(("127.0.0.1", "localhost"), time.time())
        (directory / "pebble.pem").write_text(made.chain)
        (directory / "pebble.key").write_bytes(made.key)
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(directory / "pebble.pem"),
            "privateKey": str(directory / "pebble.key"),
            "httpPort": http_port,
            "tlsPort": 1,
        }
        (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
        names = ["pebble-challtestsrv", "-management", f"127.0.0.1:{self.dns_management}", "-dns01", f"127.0.0.1:{dns}",
                 "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]  # fmt: skip
        authority = ["pebble", "-config", str(directory / "pebble.json"), "-strict", "-dnsserver", f"127.0.0.1:{dns}"]
        env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
        self._log = (directory / "pebble.log").open("ab")
        self._children = [
            subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], stdout=self._log, stderr=self._log, env=env)
            for argv in (names, authority)
        ]

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    async def answers(self) -> bool:
        try:
            return bool(await self.root())
        except httpx.HTTPError:
            return False

    async def root(self) -> str:
        """The certificate that ends its chains."""
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=self.ca)) as client:
            return (await client.get(f"https://127.0.0.1:{self.management}/roots/0")).text

    async def names(self, host: str, address: str) -> None:
        async with httpx.AsyncClient() as client:
            said = {"host": f"{host}.", "addresses": [address]}
            answer = await client.post(f"http://127.0.0.1:{self.dns_management}/add-a", json=said)
            assert answer.status_code == 200

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.wait(10)
        self._log.close()


@contextlib.asynccontextmanager
async def running(server: real.Server) -> AsyncIterator[real.Server]:
    server.spawn()
    try:
        await server.answering()
        yield server
    finally:
        server.stop()
        print(server.log()[-6000:])


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def shown_to(client: ssl.SSLContext, port: int) -> dict[str, Any]:
    """The certificate that a client sees who asks for HOST and verifies it."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain, client.wrap_socket(plain, server_hostname=HOST) as tls:
        return tls.getpeercert() or {}


async def record(store: Store, host: str) -> Certificate | None:
    entry = await store.get(keys.certificate("default", f"acme:{host}"))
    return decode(Certificate, entry.value) if entry is not None else None


async def mapping_of(api: httpx.AsyncClient, host: str) -> dict[str, Any]:
    return dict((await api.get(f"{DOMAINS}/{host}")).json())


def conditions_of(obj: dict[str, Any]) -> dict[str, Any]:
    return {each["type"]: each for each in obj.get("status", {}).get("conditions", ())}


@dataclasses.dataclass(frozen=True)
class Issued:
    """An engine that asks pebble: its store, its API, and the front door's two ports."""

    store: Store
    api: httpx.AsyncClient
    authority: Authority
    http: int
    tls: int


@pytest.fixture
async def issued(store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[Issued]:
    """With HOST and UNREACHABLE mapped to a service that sends plain HTTP to TLS."""
    world, http, tls = World(tmp_path), free_port(), free_port()
    common = ["--etcd", etcd.address, "--nats", nats.url, "--certificate-key-file", str(world.keys)]
    listen = ["--listen", f"127.0.0.1:{http}", "--listen-tls", f"127.0.0.1:{tls}"]
    (tmp_path / "door").mkdir()
    door = real.Server("ingress", [sys.executable, "-m", "ingress", *common, *listen], http, tmp_path / "door", accepts)
    async with contextlib.AsyncExitStack() as stack:
        authority = stack.enter_context(contextlib.closing(Authority(tmp_path, world, http)))
        await eventually_async(authority.answers, "pebble answers", timeout_s=20)
        await authority.names(UNREACHABLE, "127.0.0.9")
        flags = ["--certificate-key-file", str(world.keys), "--acme-directory", authority.directory]
        flags += ["--acme-email", "me@example.org", "--acme-ca-file", str(world.ca), "--https-port", str(tls)]
        await stack.enter_async_context(running(door))
        registry = await stack.enter_async_context(running(make_registry(tmp_path, etcd.address, nats.url, *flags)))
        await stack.enter_async_context(playing(store, bus))
        api = await stack.enter_async_context(httpx.AsyncClient(base_url=registry.url, timeout=20, headers=AUTH))
        body = service()
        body["metadata"]["annotations"] = {"networking.knative.dev/http-protocol": "Redirected"}
        assert (await api.post(f"{API}/namespaces/default/services", json=body)).status_code == 201
        for host in (HOST, UNREACHABLE):
            mapping = {"metadata": {"name": host}, "spec": {"ref": {"kind": "Service", "name": "hello"}}}
            assert (await api.post(DOMAINS, json=mapping)).status_code == 201
        yield Issued(store, api, authority, http, tls)


async def test_a_mapped_host_gets_a_certificate_that_is_renewed_and_a_failure_says_why(issued: Issued) -> None:
    first = await _certified(issued)
    client = ssl.create_default_context(cadata=await issued.authority.root())
    serial = (await asyncio.to_thread(shown_to, client, issued.tls))["serialNumber"]
    await _failure_is_told(issued)
    await _success_is_told(issued)
    await _listed(issued)
    async with httpx.AsyncClient() as anyone:  # plain HTTP is sent to TLS, as the service asked
        answer = await anyone.get(f"http://127.0.0.1:{issued.http}/a?b=c", headers={"Host": HOST})
        assert (answer.status_code, answer.headers["location"]) == (301, f"https://{HOST}:{issued.tls}/a?b=c")

    # A certificate near its end is replaced; the front door shows the new one.
    old = replace(first, not_before=time.time() - 100 * 86_400, not_after=time.time() + 86_400)
    await issued.store.put(keys.certificate("default", f"acme:{HOST}"), encode(old))

    async def renewed() -> bool:
        return (await asyncio.to_thread(shown_to, client, issued.tls))["serialNumber"] != serial

    await eventually_async(renewed, "another certificate is shown", timeout_s=40)
    for entry in (await issued.store.list(keys.ROOT)).entries:
        assert b"PRIVATE KEY" not in entry.value


async def _certified(issued: Issued) -> Certificate:
    """HOST's certificate, once it is there."""
    found: list[Certificate] = []

    async def served() -> bool:
        made = await record(issued.store, HOST)
        found[:] = [made] if made is not None and made.chain else []
        return bool(found)

    await eventually_async(served, "the certificate is there", timeout_s=40)
    assert found[0].hosts == [HOST]
    return found[0]


async def _failure_is_told(issued: Issued) -> None:
    async def failed() -> bool:
        found = conditions_of(await mapping_of(issued.api, UNREACHABLE)).get("CertificateProvisioned", {})
        assert found.get("status") != "True"
        return found.get("status") == "False"

    await eventually_async(failed, "the failure is told", timeout_s=40)
    lost = await mapping_of(issued.api, UNREACHABLE)
    said = conditions_of(lost)
    assert (said["CertificateProvisioned"]["status"], said["Ready"]["status"]) == ("False", "False")
    assert said["CertificateProvisioned"]["reason"] == said["Ready"]["reason"] == "CertificateProvisionFailed"
    assert "127.0.0.9" in said["CertificateProvisioned"]["message"]
    assert "tried again by itself at 20" in said["CertificateProvisioned"]["message"]
    assert lost["status"]["url"] == f"http://{UNREACHABLE}:8080", "it still answers, without TLS"


async def _success_is_told(issued: Issued) -> None:
    async def told() -> bool:
        return bool(conditions_of(await mapping_of(issued.api, HOST))["Ready"]["status"] == "True")

    await eventually_async(told, "the mapping knows of its certificate", timeout_s=10)
    got = await mapping_of(issued.api, HOST)
    assert {kind: each["status"] for kind, each in conditions_of(got).items()} == dict.fromkeys(conditions_of(got), "True")
    assert got["status"]["url"] == f"https://{HOST}:{issued.tls}"
    own = (await issued.api.get(f"{API}/namespaces/default/services/hello")).json()
    assert "CertificateProvisioned" not in conditions_of(own), "its own host is nobody's in the world"


async def _listed(issued: Issued) -> None:
    items = {item["hosts"][0]: item for item in (await issued.api.get(CERTIFICATES)).json()["items"]}
    assert "127.0.0.9" in items[UNREACHABLE]["problem"]
    assert not items[UNREACHABLE]["ready"]
    assert items[UNREACHABLE]["retryAt"] > items[HOST]["notBefore"]
    assert not (await issued.store.list(keys.CHALLENGES)).entries
