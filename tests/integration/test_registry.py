"""The registry as a process, on real etcd and NATS: what clients see."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from store import keys
from store.backend import Store
from store.bus import Bus
from store.model import Revision, RouteEntry, decode
from tests import real
from tests.eventually import eventually_async
from tests.integration.registry_world import API, Client, Players, digest, make_registry, playing, ready, service

pytestmark = pytest.mark.real


@pytest.fixture
async def api(etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[Client]:
    server = make_registry(tmp_path, etcd.address, nats.url)
    server.spawn()
    try:
        await server.answering()
        client = Client(server.url)
        client.server = server  # type: ignore[attr-defined]
        yield client
        await client.http.aclose()
    finally:
        server.stop()
        print(server.log()[-20_000:])


@pytest.fixture
async def players(store: Store, bus: Bus) -> AsyncIterator[Players]:
    async with playing(store, bus) as players:
        yield players


async def shares(store: Store, name: str = "hello", host: str = "") -> dict[str, int]:
    entry = await store.get(keys.route("default", name))
    assert entry is not None
    targets = decode(RouteEntry, entry.value).hosts[host or f"{name}.default.localhost"]
    return {target.revision: target.percent for target in targets}


async def test_a_posted_service_becomes_ready_routed_and_compiled(api: Client, players: Players, store: Store) -> None:
    made = await api.create(service())
    assert made["metadata"]["uid"]
    assert made["metadata"]["generation"] == 1
    after = await api.until("True")
    assert after["status"]["url"] == "http://hello.default.localhost:8080"
    assert await shares(store) == {"hello-00001": 100}
    entry = await store.get(keys.revision("default", "hello-00001"))
    assert entry is not None
    compiled = decode(Revision, entry.value)
    assert compiled.image == digest("hello:v1")
    revision = await api.get("hello-00001", "revisions")
    assert revision["metadata"]["labels"]["serving.knative.dev/service"] == "hello"
    assert revision["metadata"]["ownerReferences"][0]["kind"] == "Configuration"
    assert revision["status"]["containerStatuses"][0]["imageDigest"] == digest("hello:v1")
    for plural in ("configurations", "routes"):
        assert ready(await api.get("hello", plural))["status"] == "True"


async def test_image_labels_and_annotations_each_make_a_revision_and_the_same_again_makes_none(
    api: Client, players: Players
) -> None:
    await api.create(service())
    await api.until("True")
    path = api.path(name="hello")
    patches: list[dict[str, Any]] = [
        {"template": {"spec": {"containers": [{"image": "hello:v2"}]}}},
        {"template": {"metadata": {"labels": {"a": "b"}}}},
        {"template": {"metadata": {"annotations": {"c": "d"}}}},
    ]
    for number, spec in enumerate(patches, start=2):
        for _ in range(2):
            answer = await api.http.patch(path, json={"spec": spec}, headers={"Content-Type": "application/merge-patch+json"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["metadata"]["generation"] == number
        after = await api.until("True")
        assert after["status"]["latestReadyRevisionName"] == f"hello-{number:05d}"
    listed = (await api.http.get(api.path("revisions"))).json()["items"]
    assert len(listed) == 4
    annotations = (await api.get())["metadata"]["annotations"]
    assert annotations["serving.knative.dev/creator"]
    assert annotations["serving.knative.dev/lastModifier"]


async def test_of_two_people_who_update_one_is_told_of_the_conflict(api: Client, players: Players) -> None:
    await api.create(service())
    seen = await api.until("True")
    for status, image in ((200, "hello:v2"), (409, "hello:v3")):
        seen["spec"]["template"]["spec"]["containers"][0]["image"] = image
        answer = await api.http.put(api.path(name="hello"), json=seen)
        assert answer.status_code == status, answer.text
    assert answer.json()["reason"] == "Conflict"
    assert "has been modified" in answer.json()["message"]
    twice = await api.http.post(api.path(), json=service())
    assert (twice.status_code, twice.json()["reason"]) == (409, "AlreadyExists")


async def test_a_dry_run_refuses_what_the_write_would_and_writes_nothing(api: Client, players: Players) -> None:
    dry, own = {"dryRun": "All"}, "/apis/ebb.dev/v1/projects"
    assert (await api.http.post(api.path(), json=service("ghost"), params=dry)).status_code == 201
    assert (await api.http.get(api.path(name="ghost"))).status_code == 404
    await api.create(service(template={"metadata": {"name": "hello-one"}, "spec": {"containers": [{"image": "hello:v1"}]}}))
    seen = await api.until("True")
    assert (await api.http.post(api.path(), json=service(), params=dry)).json()["reason"] == "AlreadyExists"
    seen["spec"]["template"]["spec"]["containers"][0]["image"] = "hello:v2"
    taken = await api.http.put(api.path(name="hello"), json=seen, params=dry)
    assert (taken.status_code, taken.json()["reason"]) == (422, "Invalid"), "another template under a name that is taken"
    seen["spec"]["template"]["metadata"].pop("name")
    assert (await api.http.put(api.path(name="hello"), json=seen, params=dry)).status_code == 200
    assert (await api.get())["metadata"]["generation"] == 1
    assert (await api.http.post(own, json={"name": "full", "quota": {"services": 1}})).status_code == 201
    full = api.path().replace("/default/", "/full/")
    assert (await api.http.post(full, json=service("one"))).status_code == 201

    async def refused() -> bool:
        answer = await api.http.post(full, json=service("two"), params=dry)
        return answer.status_code == 403 and "services is limited to 1" in answer.text

    await eventually_async(refused)
    config = {"metadata": {"name": "c"}, "data": {"a": "b"}}
    for params, code in ((dry, 201), ({}, 201), (dry, 409)):
        answer = await api.http.post("/api/v1/namespaces/default/configmaps", json=config, params=params)
        assert answer.status_code == code


async def test_patches_without_a_version_all_arrive(api: Client, players: Players) -> None:
    await api.create(service())

    async def label(number: int) -> int:
        patch = {"metadata": {"labels": {f"l{number}": "x"}}}
        answer = await api.http.patch(
            api.path(name="hello"), json=patch, headers={"Content-Type": "application/merge-patch+json"}
        )
        return answer.status_code

    assert set(await asyncio.gather(*(label(n) for n in range(8)))) <= {200, 409}
    done = await api.get()
    assert len(done["metadata"]["labels"]) >= 4


@pytest.mark.parametrize(
    ("traffic", "expected"),
    [
        ([{"tag": "current", "revisionName": "hello-00001", "percent": 100}], {"hello-00001": 100}),
        (
            [
                {"tag": "current", "revisionName": "hello-00001", "percent": 50},
                {"tag": "candidate", "revisionName": "hello-00002", "percent": 50},
            ],
            {"hello-00001": 50, "hello-00002": 50},
        ),
        (
            [
                {"tag": "current", "revisionName": "hello-00001", "percent": 100},
                {"tag": "candidate", "revisionName": "hello-00002"},
                {"tag": "latest", "latestRevision": True},
            ],
            {"hello-00001": 100},
        ),
        (
            [
                {"tag": "current", "revisionName": "hello-00002", "percent": 100},
                {"tag": "latest", "latestRevision": True, "percent": 0},
            ],
            {"hello-00002": 100},
        ),
        ([{"latestRevision": True, "percent": 60}, {"revisionName": "hello-00002", "percent": 40}], {"hello-00002": 100}),
    ],
)
async def test_traffic_goes_by_percent_and_tag(
    api: Client, players: Players, store: Store, traffic: list[dict[str, Any]], expected: dict[str, int]
) -> None:
    await api.create(service())
    await api.until("True")
    await api.http.put(api.path(name="hello"), json=service(image="hello:v2"))
    await api.until("True")
    answer = await api.http.put(api.path(name="hello"), json=service(image="hello:v2", traffic=traffic))
    assert answer.status_code == 200, answer.text
    after = await api.until("True")
    assert await shares(store) == expected
    for wanted, said in zip(traffic, after["status"]["traffic"], strict=True):
        assert said["percent"] == wanted.get("percent", 0)
        assert said["revisionName"] == wanted.get("revisionName", "hello-00002")
        if "tag" in wanted:
            host = f"{wanted['tag']}-hello.default.localhost"
            assert said["url"] == f"http://{host}:8080"
            assert await shares(store, host=host) == {said["revisionName"]: 100}


async def test_a_revision_that_does_not_exist_is_said_and_traffic_stays(api: Client, players: Players, store: Store) -> None:
    await api.create(service())
    await api.until("True")
    traffic = [{"revisionName": "hello-00077", "percent": 100}]
    await api.http.put(api.path(name="hello"), json=service(traffic=traffic))
    after = await api.until("False")
    assert ready(after)["reason"] == "RevisionMissing"
    assert "hello-00077" in ready(after)["message"]
    assert await shares(store) == {"hello-00001": 100}


async def test_a_given_revision_name_is_kept_and_cannot_be_used_for_another_template(api: Client, players: Players) -> None:
    body = service()
    body["spec"]["template"]["metadata"] = {"name": "hello-blue"}
    await api.create(body)
    after = await api.until("True")
    assert after["status"]["latestReadyRevisionName"] == "hello-blue"
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "hello:v2"
    answer = await api.http.put(api.path(name="hello"), json=body)
    assert answer.status_code == 422
    cause = answer.json()["details"]["causes"][0]
    assert cause["field"] == "spec.template.metadata.name"
    assert "hello-blue" in cause["message"]


async def test_a_missing_image_and_an_app_that_exits_are_said_and_recover(api: Client, players: Players, store: Store) -> None:
    await api.create(service("bad", "missing:v1"))
    await api.create(service("dies", "exits:v1"))
    bad, dies = await api.until("False", "bad"), await api.until("False", "dies")
    assert ready(bad)["reason"] == "RevisionFailed"
    assert "no such tag" in ready(bad)["message"]
    assert "code 5" in ready(dies)["message"]
    assert "no config file" in ready(dies)["message"]
    for name in ("bad", "dies"):
        assert ready(await api.get(name, "routes"))["status"] != "True"
        assert ready(await api.get(f"{name}-00001", "revisions"))["status"] == "False"
        assert ready(await api.get(name, "configurations"))["status"] == "False"
    players.found.add("missing:v1")
    players.cured.add("exits:v1")
    entry = await store.get(keys.revision("default", "dies-00001"))
    assert entry is not None
    await players.play(decode(Revision, entry.value))
    await api.until("True", "bad")
    await api.until("True", "dies")


async def test_an_image_that_the_projects_policy_does_not_take_is_refused_and_said(api: Client, players: Players) -> None:
    only = {"name": "default", "policy": {"registries": ["registry.example/acme"]}}
    answer = await api.http.post("/apis/ebb.dev/v1/projects", json=only)
    assert answer.status_code in (200, 201), answer.text
    await api.create(service(image="hello:v1"))
    refused = ready(await api.until("False"))
    assert "registry.example/acme" in refused["message"]
    await api.create(service("allowed", image="registry.example/acme/hello:v1"))
    await api.until("True", name="allowed")


async def test_without_any_node_the_service_says_so(api: Client) -> None:
    await api.create(service())
    after = await api.until("False")
    assert "no node agent answered" in ready(after)["message"]


async def test_deleting_a_service_deletes_all_it_owns(api: Client, players: Players, store: Store) -> None:
    await api.create(service())
    await api.until("True")
    await api.http.put(api.path(name="hello"), json=service(image="hello:v2"))
    await api.until("True")
    answer = await api.http.request("DELETE", api.path(name="hello"), json={"propagationPolicy": "Foreground"})
    assert (answer.status_code, answer.json()["status"]) == (200, "Success")
    for prefix in (keys.OBJECTS, keys.REVISIONS, keys.ROUTES):
        assert (await store.list(prefix)).entries == ()
    assert (await api.http.get(api.path(name="hello"))).status_code == 404


async def test_only_a_revision_out_of_use_can_be_deleted(api: Client, players: Players, store: Store) -> None:
    await api.create(service())
    await api.until("True")
    latest = await api.http.delete(api.path("revisions", "hello-00001"))
    assert latest.status_code == 409
    await api.http.put(api.path(name="hello"), json=service(image="hello:v2"))
    await api.until("True")
    gone = await api.http.delete(api.path("revisions", "hello-00001"))
    assert gone.status_code == 200, gone.text
    assert await store.get(keys.revision("default", "hello-00001")) is None
    for method in ("PUT", "PATCH"):
        answer = await api.http.request(method, api.path("revisions", "hello-00002"), json={})
        assert answer.status_code == 405


async def test_bad_input_is_answered_with_what_and_where(api: Client) -> None:
    body = service(traffic=[{"latestRevision": True, "percent": 50}])
    body["spec"]["template"]["spec"]["containers"][0]["iamge"] = "x"
    body["metadata"]["name"] = "Hello"
    answer = await api.http.post(api.path(), json=body)
    assert answer.status_code == 422
    assert answer.json()["reason"] == "Invalid"
    fields = {cause["field"] for cause in answer.json()["details"]["causes"]}
    assert fields == {"metadata.name", "spec.traffic", "spec.template.spec.containers[0].iamge"}
    huge = await api.http.post(api.path(), content=b"a: " + b"x" * 10_000_000, headers={"Content-Type": "application/yaml"})
    assert huge.status_code == 413
    assert "1.5 MiB" in huge.json()["message"]
    for content, code in ((b"{", 400), (b"", 400), (b"[1]", 422), (b'"x"', 422)):
        answer = await api.http.post(api.path(), content=content)
        assert (answer.status_code, answer.json()["kind"]) == (code, "Status"), answer.text
    for path, code in ((f"{API}/namespaces/default/pods", 404), (api.path(name="nope"), 404), ("/nothing", 404)):
        answer = await api.http.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (code, "NotFound")
    answer = await api.http.get(api.path(name="nope"))
    assert answer.json()["message"] == 'services.serving.knative.dev "nope" not found'
    answer = await api.http.get(api.path(), params={"limit": "many"})
    assert answer.status_code == 400
    answer = await api.http.post(f"{API}/namespaces/No_Project/services", json=service())
    assert answer.status_code == 404


async def test_lists_select_and_continue(api: Client, players: Players) -> None:
    for number in range(5):
        body = service(f"s{number}")
        body["metadata"]["labels"] = {"odd": str(number % 2 == 1).lower()}
        await api.create(body)
    odd = (await api.http.get(api.path(), params={"labelSelector": "odd=true"})).json()
    assert [item["metadata"]["name"] for item in odd["items"]] == ["s1", "s3"]
    one = (await api.http.get(f"{API}/services", params={"fieldSelector": "metadata.name=s2"})).json()
    assert [item["metadata"]["name"] for item in one["items"]] == ["s2"]
    names, token = [], ""
    while True:
        page = (await api.http.get(api.path(), params={"limit": 2, "continue": token})).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"s{n}" for n in range(5)]


async def test_fifty_services_at_once_are_ready_in_seconds(api: Client, players: Players, store: Store) -> None:
    before = (await store.list(keys.ROOT + "nothing/")).store_rev
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(api.create(service(f"s{n:02d}")) for n in range(50)))
    await asyncio.gather(*(api.until("True", f"s{n:02d}") for n in range(50)))
    took_s = loop.time() - began
    writes = (await store.list(keys.ROOT + "nothing/")).store_rev - before
    assert took_s < 25, f"{took_s:.1f} s"
    assert writes < 50 * 8, f"{writes} store writes for 50 services"


async def test_another_registry_takes_over_and_either_serves(
    api: Client, players: Players, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = make_registry(tmp_path / "second", etcd.address, nats.url)
    second.spawn()
    try:
        await second.answering()
        other = Client(second.url)
        await other.create(service())
        await api.until("True")
        api.server.kill()  # type: ignore[attr-defined]
        await other.create(service("next"))
        await other.until("True", "next")
        await other.http.aclose()
    finally:
        second.stop()


async def test_openapi_health_and_metrics_are_served(api: Client) -> None:
    schema = (await api.http.get("/openapi.json")).json()
    assert f"{API}/namespaces/{{ns}}/{{plural}}" in schema["paths"]
    admin = f"http://127.0.0.1:{api.server.admin_port}"  # type: ignore[attr-defined]
    assert (await api.http.get(f"{admin}/healthz")).status_code == 200
    await api.http.get(api.path(name="nope"))
    metrics = (await api.http.get(f"{admin}/metrics")).text
    assert 'code="404"' in metrics
    assert "nope" not in metrics
    assert json.loads((await api.http.get("/version")).text)["major"] == "1"
