"""The users' own clients of the API: kubectl, Python's kubernetes package, and kn by the requests it was recorded to send."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import kubernetes
import pytest
import yaml
from kubernetes.dynamic import DynamicClient

from store.backend import Store
from store.bus import Bus
from tests import real
from tests.eventually import eventually_async
from tests.integration.kubectl import Kubectl, kubectl_of
from tests.integration.registry_world import AUTH, TOKEN, Client, make_tls_registry, playing, ready, service

pytestmark = pytest.mark.real
T = TypeVar("T")
GROUP = ("serving.knative.dev", "v1", "default", "services")


@pytest.fixture
async def api(store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path) -> AsyncIterator[Client]:
    server, url, ca = make_tls_registry(tmp_path, etcd.address, nats.url)
    server.spawn()
    try:
        await server.answering()
        client = Client(url, ca=ca)
        async with playing(store, bus):
            yield client
        await client.http.aclose()
    finally:
        server.stop()
        print(server.log()[-20_000:])


async def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """A blocking client, beside the players' event loop."""
    return await asyncio.wait_for(asyncio.to_thread(call, *args, **kwargs), 30)


# -- kubectl ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(api: Client, tmp_path: Path) -> Kubectl:
    return kubectl_of(api.base, tmp_path)


async def test_kubectl_applies_gets_patches_and_deletes(api: Client, kubectl: Kubectl) -> None:
    text = yaml.safe_dump(service())
    assert "created" in await kubectl("apply", "-f", "-", stdin=text)
    await api.until("True")
    await kubectl("apply", "-f", "-", stdin=text)
    table = await kubectl("get", "ksvc")
    assert table.splitlines()[0].split()[:3] == ["NAME", "URL", "LATESTCREATED"]
    assert "http://hello.default.localhost:8080" in table
    assert "True" in table
    assert json.loads(await kubectl("get", "ksvc", "hello", "-o", "json"))["metadata"]["generation"] == 1
    assert "hello-00001" in await kubectl("get", "rev")
    assert "hello" in await kubectl("get", "ksvc", "-A")
    assert "Ready" in await kubectl("describe", "ksvc", "hello")
    patch = {"spec": {"template": {"spec": {"containers": [{"image": "hello:v2"}]}}}}
    await kubectl("patch", "ksvc", "hello", "--type", "merge", "-p", json.dumps(patch))
    await kubectl("wait", "ksvc", "hello", "--for=condition=Ready", "--timeout=20s")
    assert (await api.until("True"))["status"]["latestReadyRevisionName"] == "hello-00002"
    await kubectl("delete", "ksvc", "hello", "--timeout=20s")
    assert "NotFound" in await kubectl("get", "ksvc", "hello", code=1)


async def test_kubectl_applies_on_the_server_and_labels_and_says_what_is_wrong(api: Client, kubectl: Kubectl) -> None:
    await kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(service()))
    await api.until("True")
    await kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(service()))
    assert (await api.get())["metadata"]["generation"] == 1
    await kubectl("label", "ksvc", "hello", "team=blue")
    assert "hello" in await kubectl("get", "ksvc", "-l", "team=blue", "-o", "name")
    wrong = service(traffic=[{"latestRevision": True, "percent": 7}])
    said = await kubectl("apply", "-f", "-", stdin=yaml.safe_dump(wrong), code=1)
    assert "the percents sum to 7" in said
    assert "conflict" not in said.lower()


async def test_kubectl_watches(api: Client, kubectl: Kubectl) -> None:
    watching = asyncio.create_task(kubectl("get", "ksvc", "-w", "--request-timeout=4s", "-o", "name"))
    await api.create(service())
    await api.until("True")
    assert "hello" in await watching


# -- Python -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kubernetes_client(api: Client, tmp_path: Path) -> Any:
    config = kubernetes.client.Configuration()
    config.host, config.ssl_ca_cert = api.base, str(tmp_path / "ca.crt")
    config.api_key = {"authorization": f"Bearer {TOKEN}"}
    with kubernetes.client.ApiClient(config) as client:
        yield client


async def test_the_custom_objects_api_creates_reads_replaces_watches_and_deletes(api: Client, kubernetes_client: Any) -> None:
    custom = kubernetes.client.CustomObjectsApi(kubernetes_client)
    made = await in_thread(custom.create_namespaced_custom_object, *GROUP, service())

    def watch() -> str:
        watcher = kubernetes.watch.Watch()
        version = made["metadata"]["resourceVersion"]
        for event in watcher.stream(custom.list_namespaced_custom_object, *GROUP, resource_version=version, timeout_seconds=10):
            if ready(event["object"])["status"] == "True":
                watcher.stop()
                return str(event["type"])
        return "none"

    assert await in_thread(watch) == "MODIFIED"
    obj = await in_thread(custom.get_namespaced_custom_object, *GROUP, "hello")
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = "hello:v2"
    await in_thread(custom.replace_namespaced_custom_object, *GROUP, "hello", obj)
    await api.until("True")
    with pytest.raises(kubernetes.client.ApiException, match="Conflict"):
        await in_thread(custom.replace_namespaced_custom_object, *GROUP, "hello", obj)
    patch = [{"op": "replace", "path": "/spec/template/spec/containerConcurrency", "value": 5}]
    patched = await in_thread(custom.patch_namespaced_custom_object, *GROUP, "hello", patch)
    assert patched["spec"]["template"]["spec"]["containerConcurrency"] == 5
    assert (await in_thread(custom.get_namespaced_custom_object_status, *GROUP, "hello"))["status"]
    listed = await in_thread(custom.list_namespaced_custom_object, *GROUP, label_selector="x=y", limit=5)
    assert listed["items"] == []
    body = kubernetes.client.V1DeleteOptions(propagation_policy="Foreground")
    await in_thread(custom.delete_namespaced_custom_object, *GROUP, "hello", body=body)
    with pytest.raises(kubernetes.client.ApiException, match="not found"):
        await in_thread(custom.get_namespaced_custom_object, *GROUP, "hello")


async def test_the_dynamic_client_discovers_and_applies(api: Client, kubernetes_client: Any) -> None:
    def use() -> list[str]:
        client = DynamicClient(kubernetes_client)
        services = client.resources.get(api_version="serving.knative.dev/v1", kind="Service")
        services.server_side_apply(body=service(), name="hello", namespace="default", field_manager="me")
        services.server_side_apply(body=service(), name="hello", namespace="default", field_manager="me")
        assert services.get(name="hello", namespace="default").metadata.generation == 1
        return [item.metadata.name for item in services.get(namespace="default").items]

    assert await in_thread(use) == ["hello"]


# -- kn, as recorded ----------------------------------------------------------------------------------------------------------


class Kn:
    """The requests of Knative's command line, in its order, and what it makes of the answers."""

    def __init__(self, api: Client, tls: ssl.SSLContext) -> None:
        headers = {"Accept": "application/json", **AUTH}
        self._api, self._http = api, httpx.Client(base_url=api.base, timeout=20, headers=headers, verify=tls)

    def close(self) -> None:
        self._http.close()

    def body(self, **container: Any) -> dict[str, Any]:
        """What `kn service create hello --image …` posts: empty name, status {} and null timestamps included."""
        annotations = {
            "client.knative.dev/updateTimestamp": "2026-11-23T13:00:00Z",
            "client.knative.dev/user-image": "hello:v1",
        }
        one = {"name": "", "image": "hello:v1", "env": [{"name": "A", "value": "b"}], "resources": {}, **container}
        template = {"metadata": {"creationTimestamp": None, "annotations": annotations}, "spec": {"containers": [one]}}
        return {
            "kind": "Service",
            "apiVersion": "serving.knative.dev/v1",
            "metadata": {"name": "hello", "namespace": "default", "creationTimestamp": None},
            "spec": {"template": template},
            "status": {},
        }

    def get(self, name: str = "hello", plural: str = "services") -> httpx.Response:
        return self._http.get(self._api.path(plural, name))

    def create(self, body: dict[str, Any]) -> None:
        missing = self.get()
        assert missing.status_code == 404
        assert missing.json()["message"] == 'services.serving.knative.dev "hello" not found'
        assert self._http.post(self._api.path(), json=body).status_code == 201

    def wait(self) -> dict[str, Any]:
        """GET; when not Ready, watch from there for a MODIFIED event that is; GET again."""
        obj = self.get().json()
        if ready(obj)["status"] != "True" or obj["status"].get("observedGeneration") != obj["metadata"]["generation"]:
            params = {
                "watch": "true",
                "fieldSelector": "metadata.name=hello",
                "resourceVersion": obj["metadata"]["resourceVersion"],
                "timeout": "10m30s",
                "timeoutSeconds": "630",
            }
            with self._http.stream("GET", self._api.path(), params=params) as answer:
                for line in answer.iter_lines():
                    event = json.loads(line)
                    seen = event["object"]
                    assert seen["kind"] == "Service"
                    if event["type"] != "MODIFIED" or seen["metadata"]["generation"] != seen["status"]["observedGeneration"]:
                        continue
                    assert ready(seen)["status"] != "False", seen["status"]
                    if ready(seen)["status"] == "True":
                        break
        return self.get().json()  # type: ignore[no-any-return]

    def apply_again(self, body: dict[str, Any]) -> bool:
        """`kn service apply` of what is there: a merge patch; whether kn thinks that something changed."""
        patch = {"spec": body["spec"], "metadata": {"annotations": {"x": None}}}
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = self._http.patch(self._api.path(name="hello"), content=json.dumps(patch), headers=headers)
        assert answer.status_code == 200, answer.text
        obj = answer.json()
        return bool(obj["metadata"]["generation"] != obj["status"]["observedGeneration"])

    def update(self, image: str) -> None:
        """GET service, GET its latest revision, PUT the whole object, image pinned as kn does."""
        obj = self.get().json()
        revision = self.get(obj["status"]["latestCreatedRevisionName"], "revisions").json()
        assert "@sha256:" in revision["status"]["containerStatuses"][0]["imageDigest"]
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
        assert self._http.put(self._api.path(name="hello"), json=obj).status_code == 200

    def revisions(self) -> list[str]:
        params = {"labelSelector": "serving.knative.dev/service=hello"}
        items = self._http.get(self._api.path("revisions"), params=params).json()["items"]
        assert all("serving.knative.dev/configurationGeneration" in item["metadata"]["labels"] for item in items)
        return [item["metadata"]["name"] for item in items]

    def delete_and_wait(self) -> None:
        """A watch from the GET's version until DELETED, and the DELETE."""
        version = self.get().json()["metadata"]["resourceVersion"]
        params = {"watch": "true", "fieldSelector": "metadata.name=hello", "resourceVersion": version}
        with self._http.stream("GET", self._api.path(), params=params) as answer:
            options = {"kind": "DeleteOptions", "apiVersion": "serving.knative.dev/v1", "propagationPolicy": "Foreground"}
            gone = self._http.request("DELETE", self._api.path(name="hello"), json=options)
            assert gone.status_code == 200
            for line in answer.iter_lines():
                if json.loads(line)["type"] == "DELETED":
                    return
        raise AssertionError("no DELETED event")


@pytest.fixture
def kn(api: Client, tmp_path: Path) -> Any:
    client = Kn(api, ssl.create_default_context(cafile=tmp_path / "ca.crt"))
    yield client
    client.close()


async def test_kn_creates_waits_applies_updates_splits_and_deletes(api: Client, kn: Kn) -> None:
    body = kn.body()
    await in_thread(kn.create, body)
    obj = await in_thread(kn.wait)
    assert obj["status"]["url"]
    assert obj["status"]["latestReadyRevisionName"] == "hello-00001"
    assert await in_thread(kn.apply_again, body) is False
    await in_thread(kn.update, "hello:v2")
    obj = await in_thread(kn.wait)
    assert obj["status"]["latestReadyRevisionName"] == "hello-00002"
    assert await in_thread(kn.revisions) == ["hello-00001", "hello-00002"]
    assert (await in_thread(kn.get, obj["status"]["traffic"][0]["revisionName"], "revisions")).status_code == 200
    await in_thread(kn.delete_and_wait)
    assert (await in_thread(kn.get)).status_code == 404


DOMAINS = "/apis/serving.knative.dev/v1beta1/namespaces/{}/domainmappings"


def domain_mapping(project: str = "default", host: str = "shop.example") -> dict[str, Any]:
    """What `kn domain create shop.example --ref hello` posts."""
    ref = {"kind": "Service", "namespace": project, "name": "hello", "apiVersion": "serving.knative.dev/v1"}
    meta = {"name": host, "namespace": project, "creationTimestamp": None}
    kind = {"kind": "DomainMapping", "apiVersion": "serving.knative.dev/v1beta1"}
    return {**kind, "metadata": meta, "spec": {"ref": ref}, "status": {}}


async def claimed(api: Client, project: str, status: str) -> dict[str, Any]:
    """The mapping of shop.example once its DomainClaimed is `status`."""
    path = DOMAINS.format(project) + "/shop.example"

    async def told() -> bool:
        return bool(ready((await api.http.get(path)).json(), "DomainClaimed")["status"] == status)

    await eventually_async(told, f"DomainClaimed of {project} is {status}")
    return (await api.http.get(path)).json()  # type: ignore[no-any-return]


async def test_a_domain_is_the_firsts_and_goes_to_the_second_when_the_first_lets_go(api: Client, kubectl: Kubectl) -> None:
    await api.create(service())
    await api.until("True")
    assert (await api.http.post(DOMAINS.format("default"), json=domain_mapping())).status_code == 201
    mapping = await claimed(api, "default", "True")
    assert mapping["status"]["url"] == "http://shop.example:8080"
    assert {c["type"]: c["status"] for c in mapping["status"]["conditions"]} == {
        "CertificateProvisioned": "True", "DomainClaimed": "True", "Ready": "True", "ReferenceResolved": "True",
    }  # fmt: skip
    assert (await api.http.post(DOMAINS.format("other"), json=domain_mapping("other"))).status_code == 201
    second = await claimed(api, "other", "False")
    assert "default" not in ready(second, "DomainClaimed")["message"], "whose it is, is nobody's business"
    assert "shop.example" in await kubectl("get", "domainmappings")
    assert "True" in await kubectl("get", "dm", "shop.example")
    await kubectl("delete", "domainmapping", "shop.example")
    await claimed(api, "other", "True")
    for host in ("hello.default.localhost", "*", "shop.example:80"):
        refused = await api.http.post(DOMAINS.format("default"), json=domain_mapping(host=host))
        assert refused.status_code == 422
        assert refused.json()["details"]["causes"][0]["field"] == "metadata.name"
    assert (await api.http.get("/apis/serving.knative.dev/v1/namespaces/default/domainmappings")).status_code == 404
