"""The whole API by its own description: requests that fit it and requests that do not, as schemathesis thinks of them, from an admin,
a viewer and nobody. Every answer is one that the document has; none is a 5xx.

`EBB_EXAMPLES=200` plays more of each operation, `EBB_SEED=7` others; the same ones each time.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from registry.api.doors import OPEN
from store import keys
from store.backend import Store
from store.bus import Bus
from store.messages import WHY, Why
from store.model import Node, encode
from store.seal import add_key
from tests import real
from tests.integration.access_world import OWN, bearer, made, person
from tests.integration.played_agent import Agent
from tests.integration.registry_world import API, AUTH, make_registry, playing, service

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")]
EXAMPLES, SEED = int(os.environ.get("EBB_EXAMPLES", "5")), int(os.environ.get("EBB_SEED", "54"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = ("/top", "/images:progress")
LASTING = ("watch", "follow")
"""Queries that make an answer endless."""
THERE = {
    "ns": ["shop", "empty"],
    "name": ["hello", "hello-00001", "kept", "shop.example", "nothing"],
    "principal": ["user:other", "allUsers", "service:shop/hello"],
    "role": ["viewer", "developer", "admin", "invoker", "platform-admin"],
    "about": ["hello-00001", "nothing"],
}
"""What a parameter of a path is when it fits: some of it leads to what is there."""


@pytest.fixture
async def http(
    store: Store, bus: Bus, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A registry with all that it can have, something in it, and a node and an autoscaler that answer it."""
    flags = ["--principal-per-s", "0", "--address-per-s", "0", "--upload-max-bytes", "100000"]
    for what in ("identity", "secret", "certificate"):
        add_key(tmp_path / what)
        flags += [f"--{what}-key-file", str(tmp_path / what)]
    server, agent = make_registry(tmp_path, etcd.address, nats.url, *flags), Agent("n2")
    server.spawn()
    try:
        address = await agent.start()
        await server.answering()
        await bus.respond(WHY, _why)
        async with playing(store, bus), httpx.AsyncClient(base_url=server.url, timeout=20, headers=AUTH) as client:
            await store.put(keys.node("n2"), encode(Node(node="n2", cpu_m=4000, memory_bytes=2**33, address=address)))
            await _fill(client)
            yield client
    finally:
        server.stop()
        await agent.stop()
        print(server.log()[-8000:])


async def _why(_: bytes) -> bytes:
    return encode(Why())


async def _fill(http: httpx.AsyncClient) -> None:
    await made(await http.post(f"{OWN}/projects", json={"name": "shop"}))
    await made(await http.post(f"{API}/namespaces/shop/services", json=service("hello")))
    mapping = {"metadata": {"name": "shop.example"}, "spec": {"ref": {"name": "hello"}}}
    await made(await http.post(f"{API.replace('v1', 'v1beta1')}/namespaces/shop/domainmappings", json=mapping))
    await made(await http.post(f"{OWN}/users", json={"principal": "user:other"}))
    for plural, field in (("secrets", "stringData"), ("configmaps", "data")):
        await made(await http.post(f"/api/v1/namespaces/shop/{plural}", json={"metadata": {"name": "kept"}, field: {"a": "b"}}))
    async with asyncio.timeout(10):
        while not (await http.get(f"{OWN}/identity-keys")).json()["keys"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while (await http.get(f"{OWN}/images")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.timeout(600)
async def test_the_api_answers_all_that_its_description_leads_to_as_it_says_and_never_with_a_5xx(
    http: httpx.AsyncClient,
) -> None:
    _, viewer = await person(http, "some-viewer", "viewer")
    callers = {"nobody": {}, "viewer": bearer(viewer), "platform-admin": AUTH}
    document = (await http.get("/openapi.json")).json()
    operations = {(method, path) for path, methods in document["paths"].items() for method in methods}
    answers, wrong = await asyncio.to_thread(_played, document, str(http.base_url), callers)
    assert not wrong, f"{len(wrong)} (EBB_SEED={SEED}):\n" + "\n".join(wrong)
    assert {(method, path) for method, path, who, _ in answers if who == "platform-admin"} == operations
    good = {(method, path) for method, path, _, code in answers if code < 300}
    assert len(good) > 0.7 * len(operations), f"hardly ever answered well: {sorted(operations - good)}"
    passed = [each for each in answers if each[2] == "nobody" and each[1] not in OPEN and each[3] not in (401, 429)]
    assert not passed, f"answered to who has no token: {passed}"
    assert (await http.get(f"{API}/namespaces/shop/services")).status_code == 200


Answer = tuple[str, str, str, int]
"""Method, path of the document, who asked, status."""


def _played(document: dict[str, Any], base: str, callers: Mapping[str, dict[str, str]]) -> tuple[set[Answer], list[str]]:
    """What was answered, and all that was wrong with it."""
    schema = schemathesis.openapi.from_dict(_with_names(document))
    answers: set[Answer] = set()
    wrong: list[str] = []
    for result in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                _play(result.ok(), mode, base, callers, answers)
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, "what takes nothing cannot be asked wrongly; all else can"
            except (Exception, BaseExceptionGroup) as error:
                wrong += [f"{result.ok().label}: {each}" for each in _leaves(error)]
    return answers, wrong


def _leaves(error: BaseException) -> list[str]:
    """What is wrong, each with its answer and the curl that asks for it again."""
    if isinstance(error, BaseExceptionGroup) and not isinstance(error, FailureGroup):
        return [text for each in error.exceptions for text in _leaves(each)]
    return [f"{type(error).__name__}: {error}"[:1500]]


def _play(operation: Any, mode: GenerationMode, base: str, callers: Mapping[str, dict[str, str]], answers: set[Answer]) -> None:
    """Each case for every caller."""

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        case.query = {name: value for name, value in (case.query or {}).items() if name not in LASTING}
        for who, headers in callers.items():
            asked = case.as_transport_kwargs(base_url=base, headers=headers)
            with requests.Session() as session:
                answer = session.request(**asked, timeout=10, stream=operation.path.endswith(ENDLESS))
                if operation.path.endswith(ENDLESS) and answer.ok:
                    answer._content = b""  # the head is what can be judged of an answer that has no end
            answers.add((operation.method, operation.path, who, answer.status_code))
            case.validate_response(answer, checks=CHECKS)

    one()


@schemathesis.serializer("application/x-tar")
def _archive(_: Any, value: Any) -> bytes:
    """An archive as it is sent; what schemathesis thinks of is no tar, and small."""
    return value if isinstance(value, bytes) else repr(value).encode()


def _with_names(document: dict[str, Any]) -> dict[str, Any]:
    """The document, with THERE for the parameters of paths."""
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] in THERE:
                    parameter["schema"] = {"type": "string", "enum": THERE[parameter["name"]]}
    return document
