"""What a project holds of images is limited, whether it imports or pulls them, and who is refused reads why."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from process.ids import short_id
from tests import archives, real
from tests.e2e.engine import Engine

pytestmark = pytest.mark.real


@pytest.fixture
def project(engine: Engine) -> Iterator[str]:
    """Of a thousand bytes."""
    name = f"small-{short_id(4)}"
    engine.ebb("project", "create", name, "--quota", "image_bytes=1000")
    yield name
    engine.ebb("delete", "app", "-n", name, check=False)
    engine.ebb("image", "delete", "app:v1", "-n", name, check=False)
    engine.ebb("project", "delete", name, check=False)


def test_an_import_over_the_quota_is_403_until_the_quota_is_raised(engine: Engine, project: str, tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(archives.oci_tar(archives.busybox(), "app:v1"))
    arguments = ("image", "import", str(tmp_path / "app.tar"), "-n", project)
    refused = engine.ebb(*arguments, check=False)
    assert refused.returncode != 0
    for said in ("1000 bytes", "image_bytes", f"ebb project set {project}"):
        assert said in refused.stderr.replace("\n", " ")
    engine.ebb("project", "set", project, "--quota", "image_bytes=10000000")
    assert "imported" in engine.ebb(*arguments).stderr


def test_a_deploy_whose_pull_is_over_the_quota_says_so_in_its_condition(engine: Engine, project: str, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(archives.oci_tar(archives.busybox()))
    with real.blocking(real.make_registry) as server:
        image = f"{server.address}/team/app:v1"
        archives.copy(f"oci-archive:{tmp_path}/image.tar", f"docker://{image}")
        engine.deploy("app", image, project=project, wait_s=0)
        assert f"project {project} may have 1000 bytes" in engine.wait_failed("app", project=project)["message"]
        assert engine.condition("app-00001", "revisions", "ResourcesAvailable", project)["reason"] == "QuotaExceeded"
