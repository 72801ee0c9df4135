"""TLS as a user has it: the engine's own authority, and certificates of one's own, through `ebb` and curl."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.certificates import World
from tests.e2e.engine import SERVING, Engine, until

pytestmark = pytest.mark.real


def curl(engine: Engine, authority: Path, host: str, *more: str) -> str:
    """What curl prints for a verified https request to `host`."""
    where = ["--cacert", str(authority), "--connect-to", f"::127.0.0.1:{engine.https_port}"]
    argv = ["curl", "-sS", "--max-time", "30", *where, *more, f"https://{host}:{engine.https_port}/"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_service_answers_by_tls_and_one_may_bring_a_certificate(engine: Engine, app: str, tmp_path: Path) -> None:
    engine.deploy(app, "test/testapp:v1")
    assert curl(engine, engine.root / "ca.crt", engine.host(app), "-i").startswith("HTTP/2 200")
    world = World(tmp_path)
    brought = world.authority.issue((engine.host(app),), time.time())
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text(brought.chain)
    key.write_bytes(brought.key)
    said = engine.ebb("cert", "add", f"{app}-tls", "--cert", str(chain), "--key", str(key)).stdout
    assert f"served for {engine.host(app)} until " in said
    assert curl(engine, world.ca, engine.host(app), "-i", "--http1.1").startswith("HTTP/1.1 200")
    assert f"{app}-tls  secret" in engine.ebb("cert", "list").stdout
    engine.ebb("cert", "delete", f"{app}-tls")


def test_a_service_may_send_plain_http_to_tls(engine: Engine, app: str) -> None:
    engine.deploy(app, "test/testapp:v1")
    assert engine.get(app).status_code == 200
    patch = {"metadata": {"annotations": {"networking.knative.dev/http-protocol": "Redirected"}}}
    path, kind = f"{SERVING}/namespaces/default/services/{app}", {"Content-Type": "application/merge-patch+json"}
    assert engine.api.patch(path, content=json.dumps(patch), headers=kind).status_code == 200
    url = f"https://{engine.host(app)}:{engine.https_port}"
    until(lambda: engine.service(app)["status"]["url"] == url, "the URL is the one of TLS")
    answer = until(lambda: (a := engine.get(app, "/a?b=c")).status_code == 301 and a, "it redirects")
    assert answer.headers["location"] == f"{url}/a?b=c"
    assert engine.front.post("/", headers={"Host": engine.host(app)}).status_code == 308
    assert curl(engine, engine.root / "ca.crt", engine.host(app), "-i").startswith("HTTP/2 200")
