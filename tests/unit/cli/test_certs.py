"""`ebb cert`."""

import base64
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import certs, commands
from cli.errors import BadUsage, Refused
from cli.main import app
from tests.unit.cli.fake import FakeApi

SECRETS = "/api/v1/namespaces/default/secrets"
CERTIFICATES = "/apis/ebb.dev/v1/namespaces/default/certificates"
SHOP = {"name": "shop", "source": "secret", "hosts": ["shop.example"], "madeFrom": "7", "notAfter": "2027-01-01T00:00:00Z"}
OWN = {"name": "default", "source": "local", "hosts": [f"h{n}" for n in range(5)], "problem": "none yet"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    made = FakeApi()
    monkeypatch.setattr(commands, "connect", lambda address, project: made.api())
    made.set(f"GET {CERTIFICATES}", {"items": [SHOP, OWN]})
    made.set(f"GET {SECRETS}/shop", {"metadata": {"name": "shop", "resourceVersion": "7"}, "type": certs.TLS})
    return made


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["cert", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_adding_makes_a_secret_of_type_tls_and_tells_when_it_is_served(fake: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("chain")
    (tmp_path / "k").write_text("key")
    fake.set(f"POST {SECRETS}", {})
    said = run("add", "shop", "--cert", f"{tmp_path}/c", "--key", f"{tmp_path}/k")
    assert said == "created secret shop\nserved for shop.example until 2027-01-01T00:00:00Z\n"
    body = next(body for what, body in fake.asked if what == f"POST {SECRETS}")
    assert body["type"] == "kubernetes.io/tls"
    assert body["data"] == {
        "tls.crt": base64.b64encode(b"chain").decode(),
        "tls.key": base64.b64encode(b"key").decode(),
    }
    with pytest.raises(BadUsage, match=r"--cert .*No such file"):
        run("add", "shop", "--cert", f"{tmp_path}/none", "--key", f"{tmp_path}/k")


def test_the_list_says_where_each_is_from_and_what_is_wrong(fake: FakeApi) -> None:
    lines = run("list").splitlines()
    assert lines[1].split() == ["shop", "secret", "shop.example", "2027-01-01T00:00:00Z"]
    assert lines[2].split() == ["default", "local", "h0,", "h1,", "h2", "and", "2", "more", "none", "yet"]


def test_only_what_was_added_can_be_deleted(fake: FakeApi) -> None:
    fake.set(f"DELETE {SECRETS}/shop", {})
    assert run("delete", "shop") == "deleted certificate shop\n"
    with pytest.raises(Refused, match="the engine issues it by itself"):
        run("delete", "default")
    fake.set(f"GET {SECRETS}/db", {"metadata": {"name": "db"}, "type": "Opaque"})
    with pytest.raises(Refused, match="secret db is no certificate but of type Opaque"):
        run("delete", "db")
