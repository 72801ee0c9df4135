"""Certificates from Secrets and from the local authority, kept in a real etcd by a real registry; no private key lies there in the open."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from store import keys
from store.backend import Store
from store.bus import Bus
from store.certificates import Certificate
from store.model import decode
from store.seal import Keyring, add_key
from tests import real
from tests.certificates import World
from tests.eventually import eventually_async
from tests.integration.registry_world import API, AUTH, make_registry, service

pytestmark = pytest.mark.real
SECRETS = "/api/v1/namespaces/default/secrets"
CERTIFICATES = "/apis/ebb.dev/v1/namespaces/default/certificates"


@pytest.fixture
def world(tmp_path: Path) -> World:
    add_key(tmp_path / "secrets.key")
    return World(tmp_path)


@pytest.fixture
async def http(
    store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path, world: World
) -> AsyncIterator[httpx.AsyncClient]:
    flags = ["--secret-key-file", str(tmp_path / "secrets.key"), "--certificate-key-file", str(world.keys)]
    flags += ["--local-ca", str(world.ca), "--local-ca-key", str(tmp_path / "ca.key")]
    server = make_registry(tmp_path, etcd.address, nats.url, *flags)
    server.spawn()
    try:
        await server.answering()
        async with httpx.AsyncClient(base_url=server.url, timeout=20, headers=AUTH) as client:
            yield client
    finally:
        server.stop()
        print(server.log()[-5000:])


def secret(world: World, *hosts: str) -> dict[str, Any]:
    made = world.authority.issue(hosts, 1_700_000_000)
    data = {"tls.crt": made.chain.encode(), "tls.key": made.key}
    values = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {"metadata": {"name": "shop"}, "type": "kubernetes.io/tls", "data": values}


async def stored(store: Store, name: str) -> Certificate | None:
    entry = await store.get(keys.certificate("default", name))
    return decode(Certificate, entry.value) if entry is not None else None


async def test_a_tls_secret_is_served_follows_its_changes_and_goes_with_it(
    http: httpx.AsyncClient, store: Store, world: World
) -> None:
    async def hosts() -> list[str]:
        found = await stored(store, "secret:shop")
        return found.hosts if found is not None else []

    async def are(*wanted: str) -> bool:
        return await hosts() == list(wanted)

    assert (await http.post(SECRETS, json=secret(world, "shop.example"))).status_code == 201
    await eventually_async(lambda: are("shop.example"), "it is there")
    assert (await http.put(f"{SECRETS}/shop", json=secret(world, "shop.example", "*.shop.example"))).status_code == 200
    await eventually_async(lambda: are("shop.example", "*.shop.example"), "it has changed")
    found = await stored(store, "secret:shop")
    assert found is not None
    assert b"BEGIN PRIVATE KEY" in Keyring(world.keys).open(found.key, bound_to="default/secret:shop")
    for entry in (await store.list(keys.ROOT)).entries:
        assert b"PRIVATE KEY" not in entry.value
    shown = (await http.get(CERTIFICATES)).json()["items"]
    assert "key" not in shown[-1]
    assert [(one["name"], one["source"]) for one in shown] == [("engine", "local"), ("shop", "secret")]
    assert (await http.delete(f"{SECRETS}/shop")).status_code == 200
    await eventually_async(are, "it is gone")


async def test_a_projects_first_service_brings_its_wildcard_and_a_new_key_seals_it_anew(
    http: httpx.AsyncClient, store: Store, world: World
) -> None:
    async def sealed_with(key: str) -> bool:
        found = await stored(store, "local:default")
        return found is not None and found.hosts == ["*.default.localhost"] and f".{key}." in found.key

    assert await stored(store, "local:default") is None
    assert (await http.post(f"{API}/namespaces/default/services", json=service())).status_code == 201
    await eventually_async(lambda: sealed_with(world.ring.newest), "it is issued")
    newest = world.ring.add()
    assert (await http.post(f"{API}/namespaces/other/services", json=service())).status_code == 201
    await eventually_async(lambda: sealed_with(newest), "it is sealed anew")
