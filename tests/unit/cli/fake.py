"""A fake API over httpx's mock transport: enough of it for the commands, with everything asked kept in order."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from cli.client import Api

SERVICE = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {
        "name": "hello",
        "namespace": "default",
        "generation": 2,
        "resourceVersion": "9",
        "creationTimestamp": "2026-11-23T13:00:00Z",
    },
    "spec": {
        "template": {"spec": {"containers": [{"image": "hello:v1"}]}},
        "traffic": [{"latestRevision": True, "percent": 100}],
    },
    "status": {
        "observedGeneration": 2,
        "url": "http://hello.default.localhost:8080",
        "latestReadyRevisionName": "hello-00002",
        "latestCreatedRevisionName": "hello-00002",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "RoutesReady", "status": "True"}],
        "traffic": [
            {"revisionName": "hello-00001", "percent": 90, "latestRevision": False},
            {"revisionName": "hello-00002", "percent": 10, "tag": "next", "url": "http://next-hello.default.localhost:8080"},
        ],
    },
}


def revision(name: str, **condition: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"serving.knative.dev/service": "hello"}, "creationTimestamp": "2026-11-23T13:00:00Z"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", **condition}],
            "containerStatuses": [{"name": "user-container", "imageDigest": "docker.io/library/hello@sha256:0123456789abcdef"}],
        },
    }  # fmt: skip


def status(code: int, reason: str, message: str) -> httpx.Response:
    return httpx.Response(
        code, json={"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    )


class FakeApi:
    """Answers from `answers` ("METHOD /path" → value, or a function of the request), else 404."""

    def __init__(self, **more: Any) -> None:
        base = "/apis/serving.knative.dev/v1/namespaces/default"
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {
            f"GET {base}/services": {"items": [SERVICE]},
            f"GET {base}/services/hello": SERVICE,
            f"PUT {base}/services/hello": lambda r: httpx.Response(200, json={**SERVICE, **json.loads(r.content)}),
            f"GET {base}/revisions": {"items": [revision("hello-00001"), revision("hello-00002")]},
            f"GET {base}/revisions/hello-00002": revision("hello-00002"),
            "GET /apis/ebb.dev/v1/namespaces/default/instances": {
                "items": [
                    {"instance": "hello-00002-abcd", "project": "default", "revision": "hello-00002", "node": "n1", "phase": "Ready",
                     "address": "10.231.0.2:8080", "phases_ms": {"create": 30.2, "start": 7.4}},
                ]
            },
            **more,
        }  # fmt: skip

    def api(self) -> Api:
        return Api("http://fake", transport=httpx.MockTransport(self._answer))

    def set(self, what: str, answer: Any | Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers[what] = answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        key = f"{request.method} {request.url.path}"
        body = request.read()
        self.asked.append((key, json.loads(body) if body[:1] == b"{" else None))
        found = self.answers.get(key)
        if found is None:
            return status(404, "NotFound", f'"{request.url.path}" not found')
        return found(request) if callable(found) else httpx.Response(200, json=found)
