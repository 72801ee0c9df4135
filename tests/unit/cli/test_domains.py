"""`ebb domain`."""

from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import commands, domains
from cli.errors import Refused
from cli.main import app
from tests.unit.cli.fake import FakeApi, status

PATH = "/apis/serving.knative.dev/v1beta1/namespaces/default/domainmappings"


def mapping(ready: str = "True", **said: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "shop.example", "namespace": "default", "generation": 1, "annotations": {"ebb.dev/paths": "/api=api"},
                     "creationTimestamp": "2026-11-23T13:00:00Z"},
        "spec": {"ref": {"kind": "Service", "name": "shop"}},
        "status": {"observedGeneration": 1, "url": "http://shop.example", "conditions": [{"type": "Ready", "status": ready, **said}]},
    }  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    made = FakeApi(**{f"POST {PATH}": {}, f"GET {PATH}/shop.example": mapping()})
    monkeypatch.setattr(commands, "connect", lambda address, project: made.api())
    return made


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["domain", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_add_writes_the_mapping_and_prints_the_url_once_it_is_ready(fake: FakeApi) -> None:
    said = run(
        "add", "shop.example", "--service", "shop", "--path", "/api=api", "--path", "/img=img:strip", "--tls-secret", "cert"
    )
    assert said == "http://shop.example\n"
    body = fake.asked[0][1]
    assert body["metadata"] == {"name": "shop.example", "annotations": {"ebb.dev/paths": "/api=api /img=img:strip"}}
    assert (body["spec"]["ref"]["name"], body["spec"]["tls"]) == ("shop", {"secretName": "cert"})


def test_one_that_exists_is_replaced(fake: FakeApi) -> None:
    def there(_: httpx.Request) -> httpx.Response:
        return status(409, "AlreadyExists", "exists")

    fake.set(f"POST {PATH}", there)
    fake.set(f"PUT {PATH}/shop.example", {})
    assert "written" in run("add", "shop.example", "--ref", "shop", "--no-wait")


def test_one_that_belongs_to_somebody_else_is_an_error_that_says_so(fake: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains, "SETTLED_S", 0.0)
    taken = mapping("False", reason="DomainAlreadyClaimed", message="the domain 'shop.example' belongs to another project")
    fake.set(f"GET {PATH}/shop.example", taken)
    with pytest.raises(Refused, match="belongs to another project"):
        run("add", "shop.example", "--service", "shop")


def test_a_list_shows_where_hosts_lead_and_delete_lets_them_go(fake: FakeApi) -> None:
    fake.set(f"GET {PATH}", {"items": [mapping()]})
    words = run("list").split()
    assert words[:6] == ["HOST", "LEADS", "TO", "PATHS", "READY", "AGE"]
    assert words[6:10] == ["shop.example", "default/shop", "/api=api", "True"]
    fake.set(f"DELETE {PATH}/shop.example", {})
    assert run("delete", "shop.example") == "deleted domain shop.example\n"
