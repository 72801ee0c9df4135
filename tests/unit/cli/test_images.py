"""Images from files, and deploying straight from one."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from cli import commands, images
from cli.errors import BadUsage, Refused
from cli.manifest import Wanted
from cli.rollout import pull_text
from cli.show import Form
from tests.unit.cli.fake import FakeApi, status

BASE = "/apis/serving.knative.dev/v1/namespaces/default"
IMPORT = "POST /apis/ebb.dev/v1/namespaces/default/images"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "app.tar"
    file.write_bytes(b"x" * 600_000)
    return file


def test_an_archive_is_sent_whole_under_the_name_asked_for(capsys: Captured, archive: Path) -> None:
    got: list[Any] = []

    def imported(request: httpx.Request) -> httpx.Response:
        got.append((request.url.params["name"], len(request.content)))
        return httpx.Response(200, json={"images": [{"name": "docker.io/library/app:v1", "digest": "sha256:12"}]})

    fake = FakeApi()
    fake.set(IMPORT, imported)
    images.import_(fake.api(), archive, "app:v1", "default", Form.TABLE)
    assert got == [("app:v1", 600_000)]
    assert capsys.readouterr().out == "NAME                      DIGEST\ndocker.io/library/app:v1  sha256:12\n"


def test_deploying_an_archive_runs_what_was_imported(capsys: Captured, archive: Path) -> None:
    fake = FakeApi()
    fake.set(IMPORT, {"images": [{"name": "docker.io/library/hello:import-1", "digest": "sha256:12"}]})
    commands.deploy(fake.api(), "hello", Wanted(), archive, tag="", wait_s=5, form=Form.TABLE)
    written = [body for key, body in fake.asked if key.startswith("PUT")][-1]
    assert written["spec"]["template"]["spec"]["containers"][0]["image"] == "docker.io/library/hello:import-1"
    assert "imported hello:import-1 (600.0 kB)" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_a_service_that_is_refused_leaves_no_image_behind(there: bool, archive: Path) -> None:
    fake = FakeApi()
    fake.set(IMPORT, {"images": [{"name": "docker.io/library/hello:import-1", "digest": "sha256:12"}]})
    asked: list[str] = []

    def refused(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("dryRun", ""))
        return status(422, "Invalid", "spec.template.spec.containers[0].ports[0].containerPort: 70000")

    fake.set(f"PUT {BASE}/services/hello", refused)
    fake.set(f"POST {BASE}/services", refused)
    name = "hello" if there else "fresh"
    with pytest.raises(Refused, match="containerPort: 70000"):
        commands.deploy(fake.api(), name, Wanted(port=70000), archive, tag="", wait_s=5, form=Form.TABLE)
    assert asked == ["All"], "it is tried before anything is sent, and not written"
    assert IMPORT not in [key for key, _ in fake.asked]


def test_a_bad_archive_is_refused_with_the_nodes_words(archive: Path) -> None:
    fake = FakeApi()
    fake.set(IMPORT, lambda _: status(400, "BadArchive", "node n1: app.tar is not an OCI archive"))
    with pytest.raises(Refused, match=r"node n1: app\.tar is not an OCI archive"):
        images.import_(fake.api(), archive, "", "default", Form.TABLE)


def test_a_missing_file_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="no such file"):
        images.import_(FakeApi().api(), tmp_path / "nope.tar", "", "default", Form.TABLE)


def test_a_pull_is_shown_layer_by_layer() -> None:
    item = {"state": "pulling", "node": "n1", "layers": [["sha256:aaaabbbbcccc", 50, 200], ["sha256:ddddeeeeffff", 100, 100]]}
    assert pull_text(item) == "pulling on n1: 150 B of 300 B [aaaabbbb 25%, ddddeeee 100%]"
    assert pull_text({"state": "resolving", "node": "n1"}) == "resolving on n1"
