"""Secrets and ConfigMaps through the API, by kubectl and by hand, on a real etcd that must never hold a value."""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from store.backend import Store
from store.bus import Bus
from store.seal import add_key
from tests import real
from tests.integration.kubectl import Kubectl, kubectl_of
from tests.integration.registry_world import AUTH, make_registry, make_tls_registry

pytestmark = pytest.mark.real
CANARY = "canary-e01b77"
SECRETS, CONFIGS = "/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def registry(store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[real.Server]:
    add_key(tmp_path / "secrets.key")
    server, _, _ = make_tls_registry(tmp_path, etcd.address, nats.url, "--secret-key-file", str(tmp_path / "secrets.key"))
    server.spawn()
    try:
        await server.answering()
        yield server
    finally:
        server.stop()
        print(server.log()[-5000:])


@pytest.fixture
async def http(registry: real.Server, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    tls = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    async with httpx.AsyncClient(base_url=f"https://{registry.address}", timeout=20, headers=AUTH, verify=tls) as client:
        yield client


@pytest.fixture
def kubectl(registry: real.Server, tmp_path: Path) -> Kubectl:
    return kubectl_of(f"https://{registry.address}", tmp_path)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def holds(folder: Path, *words: str) -> list[str]:
    """Files below that hold one of the words."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{path}: {word}" for path in files for word in words if word.encode() in path.read_bytes()]


def secret(name: str = "db", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data or {"password": CANARY}}


async def test_versions_of_a_secret_are_listed_by_number_without_a_value(http: httpx.AsyncClient) -> None:
    where = "/apis/ebb.dev/v1/namespaces/default/secrets/db/versions"
    assert (await http.get(where)).status_code == 404
    for name, immutable in (
        ("db", False),
        ("db-v1", True),
        ("db-v10", True),
        ("db-v9", True),
        ("db-v11", False),
        ("dbx-v3", True),
    ):
        assert (await http.post(SECRETS, json={**secret(name), "immutable": immutable})).status_code == 201
    answer = await http.get(where)
    items = answer.json()["items"]
    assert [(item["number"], item["secret"], item["state"]) for item in items] == [
        (10, "db-v10", "latest"), (9, "db-v9", "earlier"), (1, "db-v1", "earlier"),
    ]  # fmt: skip
    assert {tuple(item["keys"]) for item in items} == {("password",)}
    assert CANARY not in answer.text
    assert b64(CANARY) not in answer.text
    assert (await http.delete(f"{SECRETS}/db-v10")).status_code == 200
    assert [item["number"] for item in (await http.get(where)).json()["items"]] == [9, 1]
    assert (await http.get(where.replace("/db/", "/dbx/"))).json()["items"][0]["number"] == 3
    assert (await http.get(where.replace("/db/", "/db-v9/"))).json()["items"] == []


async def test_kubectl_creates_shows_applies_patches_and_deletes_secrets(kubectl: Kubectl) -> None:
    assert "created" in await kubectl("create", "secret", "generic", "db", f"--from-literal=password={CANARY}")
    table = await kubectl("get", "secrets")
    assert table.split()[:4] == ["NAME", "TYPE", "DATA", "AGE"]
    assert "Opaque" in table
    got = json.loads(await kubectl("get", "secret", "db", "-o", "json"))
    assert got["data"] == {"password": b64(CANARY)}
    assert f"{len(CANARY)} bytes" in await kubectl("describe", "secret", "db")
    for password in (CANARY, "second"):
        await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(secret("applied", password=password)))
    got = json.loads(await kubectl("get", "secret", "applied", "-o", "json"))
    assert got["data"] == {"password": b64("second")}
    await kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(secret("applied", other="x")))
    await kubectl("patch", "secret", "db", "--type", "merge", "-p", json.dumps({"data": {"more": b64("1")}}))
    await kubectl("label", "secret", "db", "team=blue")
    assert await kubectl("get", "secret", "-l", "team=blue", "-o", "name") == "secret/db\n"
    assert json.loads(await kubectl("get", "secret", "db", "-o", "json"))["data"] == {"password": b64(CANARY), "more": b64("1")}
    for everything in (await kubectl("get", "secrets", "-o", "yaml"), await kubectl("get", "secrets", "-A")):
        assert CANARY not in everything
        assert b64(CANARY) not in everything
    await kubectl("create", "secret", "docker-registry", "pull", "--docker-server=r.example", "--docker-username=me",
                  f"--docker-password={CANARY}")  # fmt: skip
    await kubectl("delete", "secret", "db", "applied", "--timeout=20s")
    assert 'secrets "db" not found' in await kubectl("get", "secret", "db", code=1)


async def test_kubectl_creates_applies_and_shows_config_maps(kubectl: Kubectl) -> None:
    await kubectl("create", "configmap", "app", "--from-literal=mode=fast", "--from-literal=empty=")
    assert json.loads(await kubectl("get", "cm", "app", "-o", "json"))["data"] == {"mode": "fast", "empty": ""}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"mode": "slow"}}
    await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    assert json.loads(await kubectl("get", "cm", "app", "-o", "json"))["data"]["mode"] == "slow"
    assert (await kubectl("get", "cm")).split()[:3] == ["NAME", "DATA", "AGE"]
    await kubectl("delete", "cm", "app", "--timeout=20s")


async def test_neither_etcd_nor_the_log_ever_holds_a_value(
    http: httpx.AsyncClient, etcd: real.Server, registry: real.Server, tmp_path: Path
) -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": CANARY}
    made = await http.post(SECRETS, json={**secret(), "metadata": {"name": "db", "annotations": applied}})
    assert made.status_code == 201, made.text
    path = f"{SECRETS}/db"
    assert (await http.put(path, json=secret(password=CANARY, more="x"))).status_code == 200
    json_patch = {"content-type": "application/json-patch+json"}
    wrong = [{"op": "replace", "path": "/data/none", "value": CANARY}]
    refused = [
        await http.patch(path, json=wrong, headers=json_patch),
        await http.post(SECRETS, json={**secret("bad"), "data": {"a": CANARY}}),
        await http.post(SECRETS, content=f'{{"data": {{"a": "{CANARY}'),
        await http.post(SECRETS, content=f"a: !x {CANARY}\nb: [", headers={"content-type": "application/yaml"}),
        await http.put(path, json={**secret(), "type": "kubernetes.io/tls"}),
    ]
    assert [answer.status_code for answer in refused] == [422, 422, 400, 400, 422]
    shown = [answer.text for answer in refused] + [(await http.get(SECRETS)).text, registry.log()]
    assert not [text for text in shown if CANARY in text or b64(CANARY) in text]
    assert holds(etcd.directory, "/ebb/secrets/default/db"), "etcd's files were not looked at"
    assert holds(etcd.directory, CANARY, b64(CANARY)) == []


async def test_rotation_seals_all_anew_and_the_old_key_is_no_longer_needed(http: httpx.AsyncClient, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert (await http.post(SECRETS, json=secret(name))).status_code == 201
    done = (await http.post("/apis/ebb.dev/v1/secrets:rotate")).json()
    assert done["resealed"] == done["secrets"] == 2
    keys = tmp_path / "secrets.key"
    lines = keys.read_text().splitlines()
    assert [line.split()[0] for line in lines][-1] == done["key"]
    assert len(lines) == 2
    again = (await http.post("/apis/ebb.dev/v1/secrets:rotate?retire=true")).json()
    assert sorted(again["retired"]) == sorted(line.split()[0] for line in lines)
    assert keys.read_text().split()[0] == again["key"]
    assert len(keys.read_text().splitlines()) == 1
    assert (await http.get(f"{SECRETS}/one")).json()["data"] == {"password": b64(CANARY)}
    assert (await http.post("/apis/ebb.dev/v1/secrets:rotate?newKey=false")).json()["resealed"] == 0


async def test_a_watch_shows_changes_without_values_and_a_write_over_another_is_refused(http: httpx.AsyncClient) -> None:
    made = (await http.post(SECRETS, json=secret())).json()
    version = made["metadata"]["resourceVersion"]
    await http.put(f"{SECRETS}/db", json=secret(password="other"))
    stale = {**secret(), "metadata": {"name": "db", "resourceVersion": version}}
    assert (await http.put(f"{SECRETS}/db", json=stale)).status_code == 409
    async with http.stream("GET", f"{SECRETS}?watch=true&resourceVersion={version}&timeoutSeconds=5") as lines:
        event = json.loads(await anext(lines.aiter_lines()))
    assert event["type"] == "MODIFIED"
    assert event["object"]["metadata"]["annotations"]["ebb.dev/keys"] == "password"
    assert "data" not in event["object"]


async def test_without_a_key_file_secrets_are_refused_and_config_maps_work(
    store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> None:
    server = make_registry(tmp_path, etcd.address, nats.url)
    server.spawn()
    try:
        await server.answering()
        async with httpx.AsyncClient(base_url=server.url, timeout=20, headers=AUTH) as http:
            refused = await http.post(SECRETS, json=secret())
            for answer in (refused, await http.post("/apis/ebb.dev/v1/secrets:rotate")):
                assert answer.status_code == 405, "it is no failure, and trying again is of no use"
                assert "--secret-key-file" in answer.json()["message"]
            assert (await http.post(CONFIGS, json={"metadata": {"name": "a"}, "data": {"b": "c"}})).status_code == 201
    finally:
        server.stop()
