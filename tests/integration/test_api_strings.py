"""Strings and bodies that mean harm, everywhere in the API: an answer, never a 5xx."""

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests import real
from tests.integration.registry_world import API, AUTH, make_registry, service

pytestmark = pytest.mark.real
STRINGS = (
    "../../etc/passwd",
    "a\0b",
    "ＡＢＣ",
    "é" * 300,
    "x" * 5000,
    "${jndi:x}",
    "%2e%2e%2f",
    "\u202e",
    "a\r\nb: c",
    "\ud800",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that nobody else uses, without limits of rate."""
    with real.blocking(real.make_etcd) as etcd, real.blocking(real.make_nats) as nats:
        flags = ("--principal-per-s", "0", "--address-per-s", "0")
        server = make_registry(tmp_path_factory.mktemp("fuzzed"), etcd.address, nats.url, *flags)
        server.spawn()
        try:
            server.await_answer()
            yield server.url
        finally:
            server.stop()


@pytest.mark.parametrize("text", STRINGS, ids=ascii)
def test_no_string_anywhere_makes_the_api_fail_or_escape(served: str, text: str) -> None:
    """In a path, a query and every string of a body: an answer, never a 5xx, and nothing kept under such a name."""
    with httpx.Client(base_url=served, headers=AUTH, timeout=30) as http:
        plain = text.encode("utf-8", "replace").decode()
        for path in (
            f"{API}/namespaces/{quote(plain, safe='')}/services",
            f"{API}/namespaces/default/services/{quote(plain, safe='')}",
        ):
            assert http.get(path).status_code in (400, 404), path
            assert http.delete(path).status_code in (400, 404, 405), path
        for name in ("labelSelector", "fieldSelector", "continue", "limit", "resourceVersion"):
            assert http.get(f"{API}/services", params={name: plain}).status_code < 500
        for where in (("metadata", "name"), ("metadata", "namespace"), ("spec", "template", "metadata", "name"), ("kind",)):
            body: dict[str, Any] = service("ok")
            inner = body
            for step in where[:-1]:
                inner = inner.setdefault(step, {})
            inner[where[-1]] = plain
            answer = http.post(f"{API}/namespaces/default/services", json=body)
            assert answer.status_code in (400, 422), (where, answer.text)
        for path, body in (("projects", {"name": plain}), ("users", {"principal": plain}), ("tokens", {"role": plain})):
            assert http.post(f"/apis/ebb.dev/v1/{path}", json=body).status_code in (400, 422)


@pytest.mark.parametrize("said", ["-5 x", "0 x", "99999999 x", "9" * 30 + " x", "1_0 x", "٣ x", "x"], ids=ascii)
def test_a_continue_token_that_was_never_given_is_refused(served: str, said: str) -> None:
    token = base64.urlsafe_b64encode(said.encode()).decode()
    with httpx.Client(base_url=served, headers=AUTH, timeout=30) as http:
        for text in (token, f"!{token}"):
            answer = http.get(f"{API}/services", params={"continue": text})
            assert (answer.status_code, "continue token" in answer.text) == (400, True), answer.text


def test_what_the_engine_has_no_part_for_is_refused_for_good_not_for_now(served: str) -> None:
    """A registry without key files: 409 that names the flag, and no 503, after which clients try again."""
    with httpx.Client(base_url=served, headers=AUTH, timeout=30) as http:
        certificates = http.get("/apis/ebb.dev/v1/namespaces/default/certificates")
        token = http.post("/apis/ebb.dev/v1/identity-tokens", json={"audience": "https://pay.example"})
        assert (certificates.status_code, "--https" in certificates.json()["message"]) == (409, True), certificates.text
        assert (token.status_code, "--identity-key-file" in token.json()["message"]) == (409, True), token.text
        assert not {"retry-after"} & {*certificates.headers, *token.headers}


@pytest.mark.parametrize("media", ["application/merge-patch+json", "application/apply-patch+yaml"])
@pytest.mark.parametrize("said", [5, {"labels": 5}, {"annotations": [1]}], ids=repr)
def test_metadata_that_is_none_is_refused_not_passed_over(served: str, said: Any, media: str) -> None:
    with httpx.Client(base_url=served, headers=AUTH, timeout=30) as http:
        for path, body in (
            (f"{API}/namespaces/default/services", service("there")),
            ("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "there"}}),
        ):
            assert http.post(path, json=body).status_code in (201, 409)
            answer = http.patch(f"{path}/there", json={"metadata": said}, headers={"content-type": media})
            assert (answer.status_code, "metadata" in answer.json()["message"]) == (422, True), (path, answer.text)
        none = http.patch(f"{path}/none", json=[], headers={"content-type": "application/apply-patch+yaml"})
        assert none.status_code == 400, none.text


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")], ids=["lists", "mappings"])
def test_what_is_nested_too_deeply_is_refused_however_deep(served: str, open_: str, close: str) -> None:
    for depth in (65, 1000, 100_000):
        data = open_ * depth + "1" + close * depth
        answer = httpx.post(f"{served}{API}/namespaces/default/services", content=data, headers=AUTH, timeout=30)
        assert (answer.status_code, "deep" in answer.text) == (400, True), answer.text[:200]
