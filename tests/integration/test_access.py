"""The API's gate: every route for everybody there could be, revocation, open streams, limits, quotas and the audit log."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.api.doors import DOORS, OPEN
from store import auditchain
from store.backend import Store
from store.bus import Bus
from store.seal import add_key
from tests import real
from tests.eventually import eventually_async
from tests.integration.access_world import OWN, bearer, made, people, person
from tests.integration.registry_world import API, AUTH, make_registry, playing, service

pytestmark = pytest.mark.real
SERVICES = f"{API}/namespaces/shop/services"


@pytest.fixture
async def http(
    store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    add_key(tmp_path / "identity.keys")
    server = make_registry(tmp_path, etcd.address, nats.url, "--identity-key-file", str(tmp_path / "identity.keys"))
    server.spawn()
    try:
        await server.answering()
        async with playing(store, bus), httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            yield client
    finally:
        server.stop()
        print(server.log()[-8000:])


# -- the matrix -----------------------------------------------------------------------------------------------------------------

UNKNOWN = ("none", "malformed", "of another scheme", "revoked", "expired", "wrong secret")
READERS = ("viewer", "developer", "admin", "platform-admin")
WRITERS = ("developer", "admin", "platform-admin")
MANAGERS = ("admin", "platform-admin")
RULER = ("platform-admin",)
KNOWN = ("viewer", "developer", "admin", "invoker", "platform-admin", "other project's")
INSIDE = {"GET": READERS, "POST": WRITERS, "PUT": WRITERS, "PATCH": WRITERS, "DELETE": WRITERS}


def expected(method: str, path: str) -> tuple[str, ...]:
    """Who gets past the gate at a route of the OpenAPI document: written down here apart from the code that decides it."""
    if path in OPEN:
        return (*KNOWN, *UNKNOWN)
    own, inside = path.removeprefix(OWN), "/namespaces/{ns}" in path
    if path.startswith(("/openapi", "/version", "/schema")) or path in ("/api", "/apis", "/api/v1"):
        return KNOWN
    if own.startswith(("/whoami", "/tokens", "/story", "/identity-tokens")) or (
        path in ("/api/v1/namespaces", f"{OWN}/projects") and method == "GET"
    ):
        return KNOWN
    if path in ("/api/v1/namespaces/{name}", f"{OWN}/projects/{{name}}") and method == "GET":
        return READERS
    if path.startswith("/apis/serving.knative.dev") and path.count("/") <= 3:
        return KNOWN
    if inside and ("/bindings" in path or path.endswith("/audit")):
        return MANAGERS
    if inside and path.endswith("/{name}") and method == "GET" and "api/v1" in path and "serving" not in path:
        return WRITERS  # the values of Secrets; ConfigMaps are asked for apart
    return INSIDE[method] if inside else RULER


def concrete(path: str) -> str:
    """`path` with names in place of parameters: those of project `shop`, and of what is not there."""
    plural = "secrets" if path.startswith("/api/v1") else "domainmappings" if "v1beta1" in path else "services"
    name = "shop" if path.endswith(("/projects/{name}", "v1/namespaces/{name}")) else "nothing"
    values = {"ns": "shop", "plural": plural, "name": name, "principal": "user:nobody", "role": "viewer", "about": "nothing"}
    for parameter, value in values.items():
        path = path.replace("{" + parameter + "}", value)
    assert "{" not in path, f"{path}: say here what its parameter means"
    return path


async def ask(http: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> int:
    """The code of the answer, of a stream's head."""
    async with http.stream(method, path, headers=headers, content=None if method == "GET" else b"{}") as answer:
        return answer.status_code


async def test_every_route_of_the_document_lets_in_whom_it_should_and_nobody_else(http: httpx.AsyncClient) -> None:
    everybody = await people(http)
    await made(await http.post(SERVICES, json=service("keeps-it-full"), headers=AUTH))
    document = (await http.get("/openapi.json", headers=AUTH)).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    routes = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 50
    missing = [route for route in routes if route not in DOORS]
    assert not missing, (
        f"routes that registry/api/doors.py does not know, so that only a platform-admin gets through: {missing}"
    )
    gone = sorted(path for method, path in DOORS if (method, path) not in routes and not path.startswith("/schema"))
    assert not gone, f"doors without a route: {gone}"

    async def over() -> bool:
        return (await http.get(f"{OWN}/whoami", headers=everybody["expired"])).status_code == 401

    await eventually_async(over, "the token that lives for a second has expired")
    wrong = []
    for method, path in routes:
        allowed = expected(method, path)
        for who, headers in everybody.items():
            code = await ask(http, method, concrete(path), headers)
            inside = "{ns}" in path or (path.endswith("/{name}") and "/tokens" not in path)
            past = code not in (401, 403, 429) and not (code == 404 and who == "other project's" and inside)
            if past != (who in allowed) or (code >= 500 and code != 503):
                wrong.append(f"{method} {path} by {who}: {code}")
    assert not wrong, "\n".join(wrong)


async def test_another_projects_object_and_one_that_is_not_there_look_the_same(http: httpx.AsyncClient) -> None:
    await made(await http.post(SERVICES, json=service(), headers=AUTH))
    stranger = bearer((await person(http, "stranger", "admin", "other"))[1])
    there, nothing = [await http.get(f"{SERVICES}/{name}", headers=stranger) for name in ("hello", "ghost7")]
    assert there.status_code == nothing.status_code == 404
    assert there.text.replace("hello", "ghost7") == nothing.text
    body = {**service("mine"), "metadata": {"name": "mine", "namespace": "other"}}
    assert (await http.post(SERVICES, json=body, headers=stranger)).status_code == 404, "a body opens no other project"
    body = service("x") | {"metadata": {"name": "x", "namespace": "shop"}}
    inside = await http.post(SERVICES.replace("shop", "other"), json=body, headers=stranger)
    assert inside.status_code == 400
    assert {p["name"] for p in (await made(await http.get(f"{OWN}/projects", headers=stranger)))["items"]} == {"other"}
    assert (await http.get(f"{API}/services", headers=stranger)).status_code == 403


async def lines(http: httpx.AsyncClient, path: str, headers: dict[str, str], begun: asyncio.Event) -> float:
    """Read a stream to its end; when that was, on the loop's clock."""
    async with http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        begun.set()
        async for _ in answer.aiter_lines():
            pass
    return asyncio.get_running_loop().time()


async def test_open_streams_end_within_a_second_of_revocation_expiry_and_loss_of_role(http: httpx.AsyncClient) -> None:
    async def cut(name: str, what: str, path: str, **token: Any) -> float:
        token_id, text = await person(http, name, "viewer", **token)
        begun = asyncio.Event()
        stream = asyncio.create_task(lines(http, path, bearer(text), begun))
        await asyncio.wait_for(begun.wait(), 10)
        if what == "revoked":
            await made(await http.delete(f"{OWN}/tokens/{token_id}", headers=AUTH))
        elif what == "role":
            await made(await http.delete(f"{OWN}/namespaces/shop/bindings/viewer/user:{name}", headers=AUTH))
        elif what == "disabled":
            await made(await http.patch(f"{OWN}/users/user:{name}", json={"disabled": True}, headers=AUTH))
        now = asyncio.get_running_loop().time()
        return await asyncio.wait_for(stream, 10) - now

    watch, top = f"{SERVICES}?watch=true", f"{OWN}/top?project=shop"
    took = [await cut("ana", "revoked", watch), await cut("bob", "role", watch), await cut("eve", "disabled", top)]
    assert max(took) < 2.0, took  # one of them for a machine that has other work
    assert await cut("tim", "expired", watch, ttlS=1) < 3.5


async def test_revoking_a_token_revokes_those_it_made_and_a_limited_one_makes_none(http: httpx.AsyncClient) -> None:
    parent, text = await person(http, "ana", "developer")
    child = await made(await http.post(f"{OWN}/tokens", json={"role": "viewer"}, headers=bearer(text)))
    limited = bearer(child["token"])
    assert (await http.get(SERVICES, headers=limited)).status_code == 200
    assert (await http.post(SERVICES, json=service(), headers=limited)).status_code == 403
    assert (await http.post(f"{OWN}/tokens", json={}, headers=limited)).status_code == 403
    assert (await http.post(f"{OWN}/tokens", json={"principal": "user:admin"}, headers=bearer(text))).status_code == 403
    gone = await made(await http.delete(f"{OWN}/tokens/{parent}", headers=AUTH))
    assert gone["revoked"] == [parent, child["id"]]
    assert [(await http.get(SERVICES, headers=headers)).status_code for headers in (bearer(text), limited)] == [401, 401]
    listed = (await http.get(f"{OWN}/tokens?all=true&ended=true", headers=AUTH)).text
    assert text.rpartition("_")[2] not in listed


async def test_a_projects_admin_gives_roles_there_and_nowhere_else(http: httpx.AsyncClient) -> None:
    boss = bearer((await person(http, "boss", "admin"))[1])
    await made(await http.put(f"{OWN}/namespaces/shop/bindings/developer/user:new", headers=boss))
    assert (await http.put(f"{OWN}/namespaces/other/bindings/developer/user:new", headers=boss)).status_code == 404
    assert (await http.put(f"{OWN}/bindings/platform-admin/user:boss", headers=boss)).status_code == 403
    assert (await http.put(f"{OWN}/namespaces/shop/bindings/platform-admin/user:boss", headers=boss)).status_code == 400
    assert (await http.put(f"{OWN}/namespaces/shop/bindings/developer/allUsers", headers=boss)).status_code == 400
    assert (await http.patch(f"{OWN}/projects/shop", json={"weight": 9}, headers=boss)).status_code == 403


async def test_who_asks_gets_an_identity_token_of_its_own_that_the_open_keys_prove(http: httpx.AsyncClient) -> None:
    path, body = f"{OWN}/identity-tokens", {"audience": "https://pay.shop.example", "principal": "user:admin"}
    caller = bearer((await person(http, "caller", "invoker"))[1])
    async with asyncio.timeout(10):
        while not (jwks := (await http.get(f"{OWN}/identity-keys")).json()["keys"]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    given = await made(await http.post(path, json=body, headers=caller))
    assert given["principal"] == "user:caller"
    assert (await http.get("/.well-known/openid-configuration")).json()["jwks_uri"].endswith("/identity-keys")
    head, payload, _ = given["token"].split(".")
    said = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, payload)]
    assert said[0]["kid"] in {key["kid"] for key in jwks}
    assert (said[1]["sub"], said[1]["aud"]) == ("user:caller", body["audience"])
    limited = bearer((await person(http, "caller", role="", projects=["shop"]))[1])
    assert (await http.post(path, json=body, headers=limited)).status_code == 403
    assert (await http.post(path, json={"audience": "no url"}, headers=caller)).status_code == 400


async def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(http: httpx.AsyncClient) -> None:
    wrong = bearer("ebb_abcdefgh_" + "0" * 64)
    codes = [(await http.get(f"{OWN}/whoami", headers=wrong)) for _ in range(40)]
    assert [answer.status_code for answer in codes[:10]] == [401] * 10
    assert codes[-1].status_code == 429
    assert int(codes[-1].headers["retry-after"]) >= 1
    assert (await http.get(f"{OWN}/whoami", headers=AUTH)).status_code == 200


async def test_a_quota_says_which_limit_and_its_value_also_to_all_who_ask_at_once(http: httpx.AsyncClient) -> None:
    await made(await http.post(f"{OWN}/projects", json={"name": "shop", "quota": {"services": 3, "domains": 1}}, headers=AUTH))
    answers = await asyncio.gather(*(http.post(SERVICES, json=service(f"s{n}"), headers=AUTH) for n in range(10)))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(403)) == (3, 7)
    refused = next(answer.json() for answer in answers if answer.status_code == 403)
    assert (refused["kind"], refused["reason"]) == ("Status", "Forbidden")
    assert "services is limited to 3, there are 3" in refused["message"]
    taken = next(answer.json()["metadata"]["name"] for answer in answers if answer.status_code == 201)
    await made(await http.delete(f"{SERVICES}/{taken}", headers=AUTH))

    async def fits() -> bool:
        return (await http.post(SERVICES, json=service("again"), headers=AUTH)).status_code == 201

    await eventually_async(fits, "a deleted service makes room")
    other = await http.post(SERVICES.replace("shop", "other"), json=service(), headers=AUTH)
    assert other.status_code == 201, "one project's limit is nobody else's"
    await made(await http.patch(f"{OWN}/projects/shop", json={"quota": {"revisions": 1}}, headers=AUTH))

    async def full() -> bool:
        patch = {"spec": {"template": {"spec": {"containers": [{"image": "hello:v2"}]}}}}
        answer = await http.patch(
            f"{SERVICES}/again", json=patch, headers={**AUTH, "content-type": "application/merge-patch+json"}
        )
        return answer.status_code == 403 and "revisions is limited to 1" in answer.text

    await eventually_async(full, "a new template is one revision too many")
    shown = await made(await http.get(f"{OWN}/projects/shop", headers=AUTH))
    assert shown["has"]["services"] == 3


async def test_where_memory_is_bounded_a_service_has_to_say_how_much_it_takes(http: httpx.AsyncClient) -> None:
    """One that says nothing would count as nothing, and the quota would bound nobody."""
    await made(await http.post(SERVICES, json=service("before"), headers=AUTH))
    await made(await http.put(f"{OWN}/projects/shop", json={"name": "shop", "quota": {"memory_bytes": 1 << 30}}, headers=AUTH))
    body = service()

    want = "the quota of project shop bounds memory, so its services have to say how much they take: set resources.requests.memory or"

    async def refused() -> bool:
        answer = await http.post(f"{SERVICES}?dryRun=All", json=body, headers=AUTH)
        return answer.status_code == 403 and want in answer.json()["message"]

    await eventually_async(refused, "the quota is known")
    merge = {**AUTH, "content-type": "application/merge-patch+json"}
    label = {"metadata": {"labels": {"team": "a"}}}
    assert (await http.patch(f"{SERVICES}/before", json=label, headers=merge)).status_code == 200, "what is there stays"
    again = {"spec": {"template": {"spec": {"containers": [{"image": "hello:v2"}]}}}}
    assert (await http.patch(f"{SERVICES}/before", json=again, headers=merge)).status_code == 403
    body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi"}}
    await made(await http.post(SERVICES, json=body, headers=AUTH))


async def test_projects_are_namespaces_and_only_empty_ones_are_deleted(http: httpx.AsyncClient) -> None:
    names = {item["metadata"]["name"] for item in (await made(await http.get("/api/v1/namespaces", headers=AUTH)))["items"]}
    assert "default" in names
    assert (await http.post("/api/v1/namespaces", json={"metadata": {"name": "shop"}}, headers=AUTH)).status_code == 201
    assert (await http.post(f"{OWN}/projects", json={"name": "shop"}, headers=AUTH)).status_code == 409
    wrong = {"name": "b", "weight": 0, "quota": {"cows": 1, "services": -1}, "policy": {"egress": "maybe", "runtime": "x"}}
    answer = await http.post(f"{OWN}/projects", json=wrong, headers=AUTH)
    assert {cause["field"] for cause in answer.json()["details"]["causes"]} == {
        "weight", "quota.cows", "quota.services", "policy.egress", "policy.runtime",
    }  # fmt: skip
    await made(await http.post(SERVICES, json=service(), headers=AUTH))
    assert (await http.delete("/api/v1/namespaces/shop", headers=AUTH)).status_code == 409
    await made(await http.delete(f"{SERVICES}/hello", headers=AUTH))
    await made(await http.delete(f"{OWN}/projects/shop", headers=AUTH))


async def test_the_audit_log_has_who_did_what_and_what_came_of_it_and_no_secret(http: httpx.AsyncClient) -> None:
    began = time.time()
    _, text = await person(http, "ana", "developer")
    ana = bearer(text)
    canary = "canary-7f3a"
    body = service(image="hello:v1")
    body["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": canary}]
    created = await http.post(SERVICES, json=body, headers=ana)
    await http.get(f"{SERVICES}/hello", headers=ana)
    await http.delete(f"{SERVICES.replace('shop', 'other')}/hello", headers=ana)
    await http.post(f"{OWN}/users", json={"principal": "user:mallory"}, headers=ana)
    await http.get(f"{OWN}/nodes", headers=bearer("ebb_wrongwrong_" + "0" * 64))
    answer = await http.get(f"{OWN}/audit", headers=AUTH)
    assert canary not in answer.text
    assert text.rpartition("_")[2] not in answer.text
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert auditchain.check(told)[2] == ""
    mine = [(t["action"], t["kind"], t.get("project"), t.get("name"), t["code"]) for t in told if t.get("who") == "user:ana"]
    assert mine == [
        ("create", "services", "shop", "hello", 201),
        ("delete", "services", "other", "hello", 404),
        ("create", "users", None, None, 403),
    ]
    one = next(t for t in told if t.get("kind") == "services" and t["code"] == 201)
    assert (one["address"], one["cause_id"]) == ("127.0.0.1", created.headers["x-ebb-cause"])
    assert began - 1 < one["at"] < time.time() + 1
    assert told[-1]["code"] == 401
    admin = bearer((await person(http, "boss", "admin"))[1])
    own = [json.loads(line) for line in (await http.get(f"{OWN}/namespaces/shop/audit", headers=admin)).text.splitlines()]
    assert {t["project"] for t in own} == {"shop"}


async def test_the_audit_log_can_be_followed(http: httpx.AsyncClient) -> None:
    async with http.stream("GET", f"{OWN}/audit?tail=1&follow=true", headers=AUTH) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await made(await http.post(SERVICES, json=service("seen"), headers=AUTH))
        async with asyncio.timeout(10):
            while json.loads(await anext(lines)).get("name") != "seen":
                pass
