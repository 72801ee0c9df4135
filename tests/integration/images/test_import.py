"""Archives, good and malicious, into a real containerd; and the admin routes in front."""

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from nodeagent.images import admin_routes, errors
from nodeagent.server import Server
from process.run import Jobs
from store.messages import ResolvedImage, ResolveImage
from store.model import decode, encode
from tests import archives
from tests.integration.images.world import HELLO, World, world

pytestmark = pytest.mark.real

EXACT = f"docker.io/library/hello@{HELLO.manifest}"


async def stream(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


def old_docker_save(image: archives.Image, name: str) -> bytes:
    """What `docker save` wrote before it knew OCI: a folder a layer, the second one a link to the first one's file."""
    layers = [gzip.decompress(image.blobs[layer]) for layer in image.layers]
    manifest = json.loads(image.blobs[image.manifest])
    config = image.blobs[manifest["config"]["digest"]]
    described = [{"Config": "c0ffee.json", "RepoTags": [name], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    return archives.layer(
        {
            "c0ffee.json": config,
            "one/layer.tar": layers[0],
            "shared/layer.tar": layers[1],
            "two/layer.tar": "../shared/layer.tar",
            "manifest.json": json.dumps(described).encode(),
        }
    )


async def test_an_oci_archive_is_imported_and_found_before_any_registry(here: World) -> None:
    done = await here.images.import_archive(stream(archives.oci_tar(HELLO, "hello:v1")))
    assert done == [("docker.io/library/hello:v1", HELLO.manifest)]
    assert await here.images.resolve("hello:v1") == EXACT
    ready = await here.images.ensure(EXACT)
    assert await here.file(ready.chain_id, "www/index.html") == b"hello\n"
    await here.collect_garbage()
    assert await here.contents() == set(HELLO.blobs)
    assert await here.leases() == []
    assert not list((here.real.root / "spool").iterdir())


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "old docker save", "gzipped"])
async def test_every_form_of_archive_gives_the_same_files(here: World, tmp_path: Path, form: str) -> None:
    data = archives.oci_tar(HELLO, "hello:v1")
    if form == "docker-archive":
        (tmp_path / "in.tar").write_bytes(data)
        source, target = f"oci-archive:{tmp_path}/in.tar:hello:v1", f"docker-archive:{tmp_path}/out.tar:hello:v1"
        await asyncio.to_thread(archives.copy, source, target)
        data = await asyncio.to_thread((tmp_path / "out.tar").read_bytes)
    elif form == "old docker save":
        data = old_docker_save(HELLO, "hello:v1")
    elif form == "gzipped":
        data = gzip.compress(data, 1)
    [(name, digest)] = await here.images.import_archive(stream(data))
    assert name == "docker.io/library/hello:v1"
    ready = await here.images.ensure(f"docker.io/library/hello@{digest}")
    assert ready.config.entrypoint == archives.SERVE
    assert await here.file(ready.chain_id, "www/index.html") == b"hello\n"


async def test_a_name_can_be_given_and_a_nameless_archive_needs_one(here: World) -> None:
    data = archives.oci_tar(HELLO)
    with pytest.raises(errors.BadImage, match="no name"):
        await here.images.import_archive(stream(data))
    assert await here.images.import_archive(stream(data), "mine:v2") == [("docker.io/library/mine:v2", HELLO.manifest)]


async def test_importing_again_moves_the_name(here: World) -> None:
    await here.images.import_archive(stream(archives.oci_tar(HELLO, "hello:v1")))
    newer = archives.busybox("newer\n")
    await here.images.import_archive(stream(archives.oci_tar(newer, "hello:v1")))
    assert await here.images.resolve("hello:v1") == f"docker.io/library/hello@{newer.manifest}"


async def test_imported_images_are_kept_until_they_are_removed(here: World) -> None:
    await here.images.import_archive(stream(archives.oci_tar(HELLO, "hello:v1")))
    assert not await here.images.collect(set(), 0, 1e12)
    assert await here.images.remove("hello:v1")
    assert not await here.images.remove("hello:v1")
    await here.collect_garbage()
    assert await here.contents() == set()
    assert await here.snapshots() == set()


async def test_names_in_an_archive_never_become_paths(here: World, tmp_path: Path) -> None:
    target = tmp_path / "stolen"
    evil = archives.layer(
        {
            "../../../../../../" + str(target): b"out",
            "/" + str(target): b"out",
            "index.json": str(tmp_path / "secret"),
            "manifest.json": "/etc/passwd",
        }
    )
    (tmp_path / "secret").write_text('{"schemaVersion":2,"manifests":[]}')
    with pytest.raises(errors.BadImage, match="holds no image"):
        await here.images.import_archive(stream(evil))
    assert not target.exists()


async def test_nothing_in_a_layer_escapes_its_snapshot(here: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = archives.layer(
        {
            "ok": b"fine",
            "link": str(outside),
            "link/through-link": b"escaped",
            "../" * 12 + str(outside).lstrip("/") + "/dots": b"escaped",
            str(outside) + "/absolute": b"escaped",
        }
    )
    hard = tarfile.TarInfo("shadow")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../../../../../../../etc/passwd"
    for extra in ([], [hard]):
        data = archives.oci_tar(archives.image([_with(evil, extra)]), "evil:v1")
        try:
            [(_, digest)] = await here.images.import_archive(stream(data))
        except errors.BadImage:
            pass
        else:
            ready = await here.images.ensure(f"docker.io/library/evil@{digest}")
            assert await here.file(ready.chain_id, "ok") == b"fine"
        assert list(outside.iterdir()) == []


def _with(tar: bytes, extra: list[tarfile.TarInfo]) -> bytes:
    out = io.BytesIO(tar)
    with tarfile.open(fileobj=out, mode="a") as opened:
        for info in extra:
            opened.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"this is no archive" * 1000, "as a tar"),
        (b"", "as a tar"),
        (b"\x1f\x8b" + b"garbage" * 100, "gzipped and damaged"),
        (archives.layer({"index.json": b"[1,2"}), "cannot be read"),
        (archives.layer({"manifest.json": b'[{"Config":"c","Layers":[]}]'}), "names 'c'"),
        (archives.layer({"some/file": b"x"}), "holds no image"),
    ],
)
async def test_what_is_no_archive_is_said_so(here: World, data: bytes, says: str) -> None:
    with pytest.raises(errors.BadImage, match=says):
        await here.images.import_archive(stream(data), "x:v1")


async def test_a_truncated_archive_and_a_missing_blob_are_refused(here: World) -> None:
    data = archives.oci_tar(HELLO, "hello:v1")
    with pytest.raises(errors.ImageProblem):
        await here.images.import_archive(stream(data[:50_000]))
    del (lame := archives.busybox()).blobs[HELLO.layers[1]]
    with pytest.raises(errors.BadImage, match="not in the archive"):
        await here.images.import_archive(stream(archives.oci_tar(lame, "hello:v1")))
    await here.collect_garbage()
    assert await here.contents() == set()
    assert await here.leases() == []


async def test_an_archive_over_the_limit_is_refused() -> None:
    async with world(max_bytes=200_000) as here:
        for data in (archives.oci_tar(HELLO), gzip.compress(b"\0" * 10**6)):
            with pytest.raises(errors.TooLarge, match="200000"):
                await here.images.import_archive(stream(data))
        assert not list((here.real.root / "spool").iterdir())


async def test_the_admin_routes_import_list_and_remove(here: World) -> None:
    server, jobs = Server(None, admin_routes.routes(here.images, lambda: {EXACT})), Jobs("test")
    await server.start("127.0.0.1:0", jobs)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:
            async with http.post("/images/import?name=hello:v1", data=stream(archives.oci_tar(HELLO))) as answer:
                assert answer.status == 200, await answer.text()
                assert await answer.json() == {"images": [{"name": "docker.io/library/hello:v1", "digest": HELLO.manifest}]}
            async with http.get("/images") as answer:
                rows = await answer.json()
            assert [(row["name"], row["unpacked"], row["in_use"]) for row in rows] == [
                ("docker.io/library/hello:v1", True, True),
                (EXACT, True, True),
            ]
            async with http.post("/images/import", data=b"junk") as answer:
                assert answer.status == 422
                assert (await answer.json())["reason"] == "BadImage"
            for status in (200, 404):
                async with http.delete("/images?name=hello:v1") as answer:
                    assert answer.status == status
    finally:
        await server.stop()


async def test_the_bus_is_answered_with_a_digest_or_a_reason(here: World) -> None:
    await here.images.import_archive(stream(archives.oci_tar(HELLO, "hello:v1")))
    answer = admin_routes.responder(here.images)
    assert decode(ResolvedImage, await answer(encode(ResolveImage(image="hello:v1")))).image == EXACT
    refused = decode(ResolvedImage, await answer(encode(ResolveImage(image="No:Such"))))
    assert refused.reason == "BadImage"
    assert "lower case" in refused.message
    assert decode(ResolvedImage, await answer(b"{")).reason == "BadRequest"


async def test_what_is_imported_for_a_project_only_that_project_can_use(here: World) -> None:
    mine, theirs = HELLO, archives.busybox("theirs\n")
    await here.images.import_archive(stream(archives.oci_tar(mine, "hello:v1")), project="a")
    with pytest.raises(errors.ImageProblem):
        await here.images.resolve("127.0.0.1:1/library/hello:v1", project="b")
    await here.images.import_archive(stream(archives.oci_tar(theirs, "hello:v1")), project="b")
    assert (await here.images.resolve("hello:v1", project="a")).endswith(mine.manifest), (
        "another's import changes nobody's name"
    )
    assert (await here.images.resolve("hello:v1", project="b")).endswith(theirs.manifest)
    assert here.images.cached(f"docker.io/library/hello@{mine.manifest}", "b") is None
    assert await here.images.remove("hello:v1", "b")
    assert [(i.project, i.digest) for i in await here.images.list() if i.name.endswith(":v1")] == [("a", mine.manifest)]
    await here.images.import_archive(stream(archives.oci_tar(theirs, "hello:v2")))
    for project in ("a", "b", "c"):
        assert (await here.images.resolve("hello:v2", project=project)).endswith(theirs.manifest), "imported for all"
