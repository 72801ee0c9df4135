"""`ebb secret`, and the flags of `ebb deploy` that name Secrets."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import commands, manifest, secrets
from cli.errors import BadUsage, Refused
from cli.main import app
from cli.manifest import Wanted
from tests.unit.cli.fake import FakeApi, status

SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    made = FakeApi()
    monkeypatch.setattr(commands, "connect", lambda address, project: made.api())
    return made


def run(*words: str, stdin: str = "") -> str:
    done = CliRunner().invoke(app, ["secret", *words], input=stdin, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_values_come_from_words_files_and_stdin(fake: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("pem")
    fake.set(f"POST {SECRETS}", {})
    assert run("create", "db", "a=1=2", "--from-file", f"c={tmp_path}/cert", "--from-file", "in=-", stdin="typed") == (
        "created secret db\n"
    )
    assert fake.asked[-1][1]["data"] == {"a": b64("1=2"), "c": b64("pem"), "in": b64("typed")}


def test_a_registrys_login_takes_its_password_from_stdin(fake: FakeApi) -> None:
    fake.set(f"POST {SECRETS}", {})
    run("create", "pull", "--docker-server", "r.example", "--docker-username", "me", "--docker-password-stdin", stdin="p w\n")
    body = fake.asked[-1][1]
    assert body["type"] == "kubernetes.io/dockerconfigjson"
    assert json.loads(body["stringData"][".dockerconfigjson"])["auths"]["r.example"]["auth"] == b64("me:p w")


def test_one_that_exists_is_written_over_only_when_asked_to(fake: FakeApi) -> None:
    def there(_: httpx.Request) -> httpx.Response:
        return status(409, "AlreadyExists", 'secrets "db" already exists')

    fake.set(f"POST {SECRETS}", there)
    fake.set(f"PUT {SECRETS}/db", {})
    with pytest.raises(Refused, match="--replace"):
        run("create", "db", "a=1")
    assert run("create", "db", "a=1", "--replace") == "replaced secret db\n"


def test_an_immutable_secret_is_made_as_one_that_kubernetes_means(fake: FakeApi) -> None:
    fake.set(f"POST {SECRETS}", {})
    run("create", "db-v1", "a=1", "--immutable")
    run("create", "db", "a=1")
    assert [body.get("immutable") for _, body in fake.asked] == [True, None]


def test_a_list_shows_keys_and_deletion_and_rotation_say_what_they_did(fake: FakeApi) -> None:
    meta = {"name": "db", "creationTimestamp": "2026-11-23T13:00:00Z", "annotations": {"ebb.dev/keys": "a b"}}
    fake.set(f"GET {SECRETS}", {"items": [{"metadata": meta, "type": "Opaque"}]})
    assert run("list").split()[:7] == ["NAME", "TYPE", "KEYS", "AGE", "db", "Opaque", "a,"]
    fake.set(f"DELETE {SECRETS}/db", {})
    assert run("delete", "db") == "deleted secret db\n"
    fake.set("POST /apis/ebb.dev/v1/secrets:rotate", {"key": "k2-ab", "resealed": 3, "secrets": 3})
    assert run("rotate") == "3 of 3 secrets sealed anew with key k2-ab\n"
    fake.set("POST /apis/ebb.dev/v1/secrets:rotate", {"key": "k2-ab", "resealed": 3, "secrets": 3, "retired": ["k1-cd"]})
    assert "retired: k1-cd; take these lines out" in run("rotate", "--retire")


@pytest.mark.parametrize("words", [[], ["canary"], ["=canary"]])
def test_what_is_no_value_is_refused_without_showing_it(words: list[str]) -> None:
    with pytest.raises(BadUsage) as refused:
        secrets.data(words, [])
    assert "canary" not in str(refused.value)


def test_set_secrets_makes_references_beside_what_is_there() -> None:
    old: dict[str, Any] = manifest.service("a", Wanted(image="i", env=["A=1", "P=plain"]), None, "t")
    made = manifest.service("a", Wanted(secrets=["P=db:password,Q=db:q"], pull_secrets=["pull"]), old, "t")
    spec = made["spec"]["template"]["spec"]
    reference = {"secretKeyRef": {"name": "db", "key": "password"}}
    assert spec["containers"][0]["env"][:2] == [{"name": "A", "value": "1"}, {"name": "P", "valueFrom": reference}]
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    again = manifest.service("a", Wanted(env=["P-"]), made, "t")
    assert [item["name"] for item in again["spec"]["template"]["spec"]["containers"][0]["env"]] == ["A", "Q"]
    with pytest.raises(BadUsage, match="ENV=SECRET:KEY"):
        manifest.service("a", Wanted(secrets=["P=db"]), old, "t")


def test_versions_are_shown_with_which_is_the_latest(fake: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1795438810.0)
    item = {"secret": "db-v2", "number": 2, "createdAt": "2026-11-23T13:00:00Z", "keys": ["a", "b"], "state": "latest"}
    items = [item, {**item, "secret": "db-v1", "number": 1, "state": "earlier"}]
    fake.set("GET /apis/ebb.dev/v1/namespaces/default/secrets/db/versions", {"items": items})
    assert run("versions", "db") == (
        "VERSION  SECRET  KEYS  STATE    AGE\n2        db-v2   a, b  latest   10s\n1        db-v1   a, b  earlier  10s\n"
    )
