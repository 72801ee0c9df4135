"""Services that call each other by the engine's inner names, with identity, and that the world does not reach."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.engine import Engine, until

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity"


@pytest.fixture
def pay(engine: Engine, app: str) -> Iterator[str]:
    """A second service, private and internal."""
    yield f"{app}-p"
    engine.delete(f"{app}-p")


def fetched(engine: Engine, app: str, url: str, **headers: str) -> dict[str, Any]:
    """What `app` gets for `url`: status and body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = engine.get(app, f"/fetch?{urlencode({'url': url, **named})}")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_a_service_calls_a_private_one_inside_and_nobody_else_does(engine: Engine, app: str, pay: str) -> None:
    engine.ebb("deploy", app, "--image", "test/testapp:v1")
    flags = ["--ingress", "internal", "--no-allow-unauthenticated", "--invoker", f"service:default/{app}"]
    done = engine.ebb("deploy", pay, "--image", "test/testapp:v1", *flags)
    inner = f"http://{pay}.default.svc.cluster.local"
    assert done.stdout.strip() == inner

    for host in (f"{pay}.default.svc.cluster.local", engine.host(pay)):
        assert engine.front.get("/", headers={"Host": host}).status_code == 404
    token = until(lambda: _token(fetched(engine, app, f"{METADATA}?audience={inner}", Metadata_Flavor="Google")), "a token")
    called = fetched(engine, app, f"{inner}/headers", Authorization=f"Bearer {token}")
    assert called["status"] == 200
    assert ["X-Ebb-Principal", f"service:default/{app}"] in json.loads(called["body"])
    # The node's kernel says who calls, so a token may be left out; one that is wrong proves nothing.
    assert fetched(engine, app, inner)["status"] == 200
    assert fetched(engine, app, inner, Authorization="Bearer eyJ.e30.x")["status"] == 401
    stranger = engine.ebb("deploy", pay, "--invoker", f"service:default/{app}-", "--invoker", "user:ana")
    assert stranger.returncode == 0
    until(lambda: fetched(engine, app, inner)["status"] == 403, "the invoker is another")

    # Beside the doors there is nothing: not the front door as the world has it, not the engine's own ports.
    gateway = engine.up_flags[engine.up_flags.index("--subnet") + 1].replace(".0.0/16", ".0.1")
    for port in (engine.http_port, engine.port_base, engine.port_base + 1, engine.port_base + 3, 22):
        assert engine.get(app, f"/connect?to={gateway}:{port}&s=0.3").json() == {"connected": False, "error": "timed out"}
    assert fetched(engine, app, "http://169.254.169.254/computeMetadata/v1/instance/id")["status"] == 403


def _token(answer: dict[str, Any]) -> str:
    return str(answer["body"]) if answer["status"] == 200 else ""
