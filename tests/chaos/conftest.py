"""Chaos runs against an engine of its own, so that what it breaks is nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import app, images
from tests.e2e.engine import Engine

__all__ = ["app", "images"]


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Path]) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("chaos"))
    made.pressure.write_text("")
    made.up_flags += ["--pressure-file", str(made.pressure)]
    made.up()
    try:
        for name in ("static", "testapp"):
            made.import_image(f"test/{name}:v1", images[name])
        yield made
    finally:
        made.down()
        made.close()
