"""Images behind a login: a pull secret opens them, nothing else does, and its password is nowhere to be seen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.engine import Engine
from tests.e2e.values import behind_a_login, log_in

pytestmark = pytest.mark.real
PASSWORD = "secret"
BCRYPT = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """A reference to an image in a registry that wants a login."""
    with behind_a_login(tmp_path, BCRYPT, PASSWORD) as name:
        yield name


def test_an_image_behind_a_login_needs_the_pull_secret_with_the_right_password(engine: Engine, app: str, image: str) -> None:
    engine.deploy(app, image, wait_s=0)
    assert "wants a login and no credential" in engine.wait_failed(app)["message"]
    engine.delete(app)
    wrong, right = f"{app}-w", f"{app}-r"
    log_in(engine, f"{app}-pull", image, "wrong-one")
    engine.deploy(wrong, image, spec={"imagePullSecrets": [{"name": f"{app}-pull"}]}, wait_s=0)
    try:
        said = engine.wait_failed(wrong)["message"]
        assert "user 'me' was refused" in said
        assert "wrong-one" not in said
    finally:
        engine.delete(wrong)
    log_in(engine, f"{app}-pull", image, PASSWORD)
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
