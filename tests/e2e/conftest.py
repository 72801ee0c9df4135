"""One engine for all end-to-end tests of a run, with the test images imported; each test deploys services of its own names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from process.ids import short_id
from tests.e2e.engine import Engine
from tests.e2e.images import archives


@pytest.fixture(scope="session")
def images() -> dict[str, Path]:
    return archives()


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Path]) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"))
    made.up()
    try:
        for name, archive in images.items():
            made.import_image(f"test/{name}:v1", archive)
        yield made
    finally:
        made.down()
        made.close()


@pytest.fixture
def app(engine: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A service name of the test's own, deleted when the test ends."""
    words = request.node.name.removeprefix("test_").partition("[")[0].replace("_", "-")[:34].strip("-").lower()
    name = f"{words}-{short_id(4)}"
    yield name
    engine.delete(name)
