"""Images behind a login: a pull secret opens them, nothing else does, and its password is nowhere to be seen."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import archives, real
from tests.e2e.engine import Engine

pytestmark = pytest.mark.real
PASSWORD = "secret"
HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """A reference to an image in a registry that wants a login."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "image.tar").write_bytes(archives.oci_tar(archives.busybox()))
    with real.blocking(lambda directory: real.make_registry(directory, htpasswd=tmp_path / "htpasswd")) as server:
        name = f"{server.address}/team/hello:v1"
        archives.copy(f"oci-archive:{tmp_path}/image.tar", f"docker://{name}", "--dest-creds", f"me:{PASSWORD}")
        yield name


def login(engine: Engine, name: str, image: str, password: str) -> None:
    """`kubectl create secret docker-registry`, as its body."""
    config = json.dumps({"auths": {image.partition("/")[0]: {"username": "me", "password": password}}})
    body = {"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}
    path = "/api/v1/namespaces/default/secrets"
    answer = engine.api.put(f"{path}/{name}", json=body)
    answer = engine.api.post(path, json=body) if answer.status_code == 404 else answer
    assert answer.status_code in (200, 201), answer.text


def test_an_image_behind_a_login_needs_the_pull_secret_with_the_right_password(engine: Engine, app: str, image: str) -> None:
    engine.deploy(app, image, wait_s=0)
    assert "wants a login and no credential" in engine.wait_failed(app)["message"]
    engine.delete(app)
    wrong, right = f"{app}-w", f"{app}-r"
    login(engine, f"{app}-pull", image, "wrong-one")
    engine.deploy(wrong, image, spec={"imagePullSecrets": [{"name": f"{app}-pull"}]}, wait_s=0)
    try:
        said = engine.wait_failed(wrong)["message"]
        assert "user 'me' was refused" in said
        assert "wrong-one" not in said
    finally:
        engine.delete(wrong)
    login(engine, f"{app}-pull", image, PASSWORD)
    engine.deploy(
        right, image, spec={"imagePullSecrets": [{"name": "none"}, {"name": f"{app}-pull"}]}, annotations={"window": "6s"}
    )
    try:
        assert engine.get(right, "/index.html").text == "hello\n"
    finally:
        engine.delete(right)


def test_the_command_line_makes_secrets_and_deploys_with_them(engine: Engine, app: str) -> None:
    engine.ebb("secret", "create", f"{app}-s", "password=from-the-command-line")
    try:
        engine.ebb("deploy", app, "--image", "test/testapp:v1", "--set-secrets", f"DB_PASSWORD={app}-s:password")
        assert engine.get(app, "/env").json()["DB_PASSWORD"] == "from-the-command-line"
        listed = engine.ebb("secret", "list").stdout
        assert f"{app}-s" in listed
        assert "from-the-command-line" not in listed
        assert "sealed anew" in engine.ebb("secret", "rotate").stdout
        engine.ebb("secret", "create", f"{app}-s", "password=after-rotation", "--replace")
        engine.ebb("deploy", app, "--env", "AGAIN=1")
        assert engine.get(app, "/env").json()["DB_PASSWORD"] == "after-rotation"
    finally:
        engine.ebb("secret", "delete", f"{app}-s")
