"""Archives are looked at, never unpacked."""

import gzip
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.images import archive
from nodeagent.images.errors import ImageProblem, TooLarge
from tests import archives

SMALL = archives.image([archives.layer({"a": b"1"}), archives.layer({"b": b"2"})])


def opened(tmp_path: Path, data: bytes) -> archive.Archive:
    file = tmp_path / "x.tar"
    file.write_bytes(data)
    return archive.open_archive(file)


async def blob(found: archive.Archive, digest: str, offset: int = 0) -> bytes:
    async with found.blob(digest, offset) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


async def test_a_layout_gives_its_images_and_their_blobs(tmp_path: Path) -> None:
    found = opened(tmp_path, archives.oci_tar(SMALL, "x:v1"))
    assert found.images == [archive.Found("x:v1", SMALL.manifest)]
    assert (await found.manifest(SMALL.manifest))[0] == SMALL.blobs[SMALL.manifest]
    for digest, data in SMALL.blobs.items():
        assert await blob(found, digest) == data
        assert await blob(found, digest, 5) == data[5:]
    found.close()


async def test_an_old_saved_image_gets_a_manifest_of_its_own(tmp_path: Path) -> None:
    layer, config = archives.layer({"a": b"1"}), b'{"os":"linux"}'
    saved = [{"Config": "c.json", "RepoTags": ["x:1", "x:2"], "Layers": ["l/layer.tar", "z/layer.tar"]}]
    files: dict[str, bytes | str | None] = {"c.json": config, "l/layer.tar": layer, "z/layer.tar": gzip.compress(layer)}
    found = opened(tmp_path, archives.layer({**files, "manifest.json": json.dumps(saved).encode()}))
    assert [image.name for image in found.images] == ["x:1", "x:2"]
    body = json.loads((await found.manifest(found.images[0].digest))[0])
    assert [each["mediaType"].rpartition(".")[2] for each in body["layers"]] == ["tar", "tar+gzip"]
    assert await blob(found, archives.digest(layer)) == layer
    assert await blob(found, archives.digest(config)) == config
    found.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    good = bytearray(archives.oci_tar(SMALL, "x:v1"))
    for _ in range(data.draw(st.integers(1, 5))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with suppress(ImageProblem):
        opened(tmp_path, bytes(good[:cut])).close()


async def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield gzip.compress(b"\0" * 50_000_000)

    with pytest.raises(TooLarge, match="more than 1000000 bytes"):
        async with archive.spooled(stream(), tmp_path, 1_000_000):
            raise AssertionError("not reached")
    assert os.listdir(tmp_path) == []
