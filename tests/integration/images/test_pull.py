"""Pulling, from a real registry and from one that misbehaves, into a real containerd."""

import asyncio
import os
from pathlib import Path

import pytest

from deploy.ports import free_port
from nodeagent.images import errors, facade, ingest
from tests import archives, real
from tests.eventually import eventually
from tests.integration.images.fake import FakeRegistry
from tests.integration.images.world import HELLO, HERE, World, archive, world

pytestmark = pytest.mark.real


async def test_a_tag_and_a_digest_are_pulled_from_a_real_registry(here: World, tmp_path: Path) -> None:
    async with real.registry() as server:
        name = f"{server.address}/team/hello:v1"
        await asyncio.to_thread(archives.copy, archive(tmp_path), f"docker://{name}")
        exact = await here.images.resolve(name)
        assert exact == f"{server.address}/team/hello@{HELLO.manifest}"
        ready = await here.images.ensure(exact)
        assert ready.digest == HELLO.manifest
        assert ready.config.entrypoint == archives.SERVE
        assert ready.config.env == (("PATH", "/bin"), ("GREETING", "hello"))
        assert ready.config.working_dir == "/www"
        assert await here.file(ready.chain_id, "www/index.html") == b"hello\n"
        assert (await here.images.ensure(name)) == ready
    assert await here.leases() == []
    assert next(step.state for step in here.told) == "resolving"
    assert here.told[-1].state == "done"
    assert [(done, total) for _, done, total in here.told[-1].layers] == [
        (len(HELLO.blobs[layer]), len(HELLO.blobs[layer])) for layer in HELLO.layers
    ]


async def test_a_tag_that_moved_is_followed(here: World, fake: FakeRegistry) -> None:
    assert (await here.images.ensure(f"{fake.host}/hello")).digest == HELLO.manifest
    newer = fake.images["hello:latest"] = archives.busybox("newer\n")
    assert (await here.images.ensure(f"{fake.host}/hello")).digest == newer.manifest


async def test_a_full_disk_is_said_so_and_leaves_nothing(fake: FakeRegistry) -> None:
    filler = archives.layer({"big": os.urandom(6_000_000)})
    fake.images["big:latest"] = archives.image([filler], squeeze=False)
    async with world(disk_bytes=8_000_000) as here:
        with pytest.raises(errors.DiskFull, match="no room"):
            await here.images.ensure(f"{fake.host}/big")
        assert await here.leases() == []
        await here.collect_garbage()
        assert await here.contents() == set()
        assert (await here.images.ensure(f"{fake.host}/hello")).digest == HELLO.manifest


async def test_zstd_layers_and_docker_manifests_unpack_to_the_same_files(here: World, tmp_path: Path) -> None:
    plain = archives.image([archives.layer({"www": None, "www/index.html": b"small\n"})], squeeze=False)
    async with real.registry() as server:
        for tag, made, text, flags, said in (
            ("zstd", plain, b"small\n", ("--dest-compress", "--dest-compress-format", "zstd"), b"layer.v1.tar+zstd"),
            ("docker", HELLO, b"hello\n", ("--format", "v2s2"), b"docker.distribution.manifest.v2+json"),
        ):
            name = f"{server.address}/hello:{tag}"
            await asyncio.to_thread(archives.copy, archive(tmp_path, made), f"docker://{name}", *flags)
            ready = await here.images.ensure(name)
            assert said in await ingest.read(here.engine, ready.digest, 10**6)
            assert await here.file(ready.chain_id, "www/index.html") == text


async def test_layers_that_are_not_compressed_are_taken_as_they_are(here: World, fake: FakeRegistry) -> None:
    fake.images["plain:latest"] = archives.image([archives.layer({"www": None, "www/index.html": b"plain"})], squeeze=False)
    ready = await here.images.ensure(f"{fake.host}/plain")
    assert await here.file(ready.chain_id, "www/index.html") == b"plain"


async def test_an_image_that_does_not_exist_is_said_so(here: World, fake: FakeRegistry) -> None:
    with pytest.raises(errors.ImageNotFound, match="nothing:latest"):
        await here.images.resolve(f"{fake.host}/nothing")
    with pytest.raises(errors.ImageNotFound):
        await here.images.ensure(f"{fake.host}/hello@sha256:{'0' * 64}")
    assert await here.leases() == []


async def test_a_registry_that_is_not_there_is_unavailable(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.images.registry.BACKOFF_S", 0.001)
    with pytest.raises(errors.RegistryUnavailable, match="5 tries"):
        await here.images.resolve(f"127.0.0.1:{free_port()}/hello")


async def test_a_cut_layer_goes_on_where_it_was_cut(here: World, fake: FakeRegistry) -> None:
    base = HELLO.layers[0]
    fake.cut[base] = 600_000
    ready = await here.images.ensure(f"{fake.host}/hello")
    assert ready.digest == HELLO.manifest
    [wanted] = fake.ranges
    assert 0 < int(wanted.removeprefix("bytes=").rstrip("-")) <= 600_000


async def test_a_cut_layer_starts_over_where_ranges_are_ignored(here: World, fake: FakeRegistry) -> None:
    fake.cut[HELLO.layers[0]] = 600_000
    fake.ignore_range = True
    assert (await here.images.ensure(f"{fake.host}/hello")).digest == HELLO.manifest
    assert len(fake.ranges) == 1


async def test_wrong_bytes_are_refused_and_leave_nothing(here: World, fake: FakeRegistry) -> None:
    good = HELLO.blobs[HELLO.layers[0]]
    for bad in (good[:-1] + b"x", good[:-1], good + b"x"):
        fake.replaced[HELLO.layers[0]] = bad
        with pytest.raises(errors.BadDigest, match=HELLO.layers[0]):
            await here.images.ensure(f"{fake.host}/hello")
    assert here.told[-1].state == "failed"
    await here.collect_garbage()
    assert await here.contents() == set()
    assert await here.snapshots() == set()
    fake.replaced.clear()
    assert (await here.images.ensure(f"{fake.host}/hello")).digest == HELLO.manifest


async def test_a_wrong_manifest_is_refused(here: World, fake: FakeRegistry) -> None:
    fake.replaced[HELLO.manifest] = HELLO.blobs[HELLO.manifest] + b" "
    with pytest.raises(errors.BadDigest, match=HELLO.manifest):
        await here.images.ensure(f"{fake.host}/hello@{HELLO.manifest}")


async def test_a_registry_that_recovers_is_asked_again(here: World, fake: FakeRegistry) -> None:
    fake.answers = [503, 429]
    assert (await here.images.ensure(f"{fake.host}/hello")).digest == HELLO.manifest
    assert fake.answers == []


async def test_a_redirect_in_a_circle_ends(here: World, fake: FakeRegistry) -> None:
    fake.blobs_at = f"http://{fake.host}"
    with pytest.raises(errors.RegistryUnavailable, match="more than 5 times"):
        await here.images.ensure(f"{fake.host}/hello")


async def test_an_index_gives_this_platform(here: World, fake: FakeRegistry) -> None:
    other = archives.image([archives.layer({"other": b"1"})], architecture="arm64")
    many = archives.index({"linux/arm64/v8": other, "linux/amd64": HELLO})
    fake.images["many:latest"] = many
    ready = await here.images.ensure(f"{fake.host}/many")
    assert ready.digest == many.manifest
    assert await here.file(ready.chain_id, "www/index.html") == b"hello\n"
    await here.collect_garbage()
    assert await here.contents() == {many.manifest, *HELLO.blobs}
    here.images.forget(f"{fake.host}/many@{many.manifest}")
    assert await here.images.ensure(f"{fake.host}/many@{many.manifest}") == ready


async def test_another_platform_is_refused_with_what_there_is(here: World, fake: FakeRegistry) -> None:
    other = archives.image([archives.layer({"other": b"1"})], architecture="arm64")
    fake.images["single:latest"] = other
    fake.images["index:latest"] = archives.index({"linux/arm64/v8": other})
    for name in ("single", "index"):
        with pytest.raises(errors.WrongPlatform, match=r"linux/arm64.*this node is linux/amd64"):
            await here.images.ensure(f"{fake.host}/{name}")
    assert await here.leases() == []


async def test_a_layer_that_is_not_what_the_config_says_is_refused(here: World, fake: FakeRegistry) -> None:
    fake.images["liar:latest"] = archives.image([archives.layer({"a": b"1"})], diff_ids=["sha256:" + "1" * 64])
    with pytest.raises(errors.BadDigest, match="the image config says"):
        await here.images.ensure(f"{fake.host}/liar")
    await here.collect_garbage()
    assert await here.snapshots() == set()


async def test_a_layer_that_is_no_tar_is_a_bad_image(here: World, fake: FakeRegistry) -> None:
    fake.images["junk:latest"] = archives.image([b"\x01" * 2048])
    with pytest.raises(errors.BadImage, match="is no tar"):
        await here.images.ensure(f"{fake.host}/junk")


async def test_an_image_over_the_limit_is_refused_before_its_layers_come(fake: FakeRegistry) -> None:
    async with world(max_bytes=100_000) as here:
        with pytest.raises(errors.TooLarge, match="at most 100000"):
            await here.images.ensure(f"{fake.host}/hello")
    assert not [path for path in fake.asked if path.endswith(HELLO.layers[0])]


async def test_many_who_ask_at_once_make_one_pull(here: World, fake: FakeRegistry) -> None:
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    all_ready = await asyncio.gather(*(here.images.ensure(exact) for _ in range(20)))
    assert len(set(all_ready)) == 1
    for layer in HELLO.layers:
        assert fake.asked[f"GET {layer}"] == 1


async def test_two_images_that_share_a_layer_fetch_and_unpack_it_once(here: World, fake: FakeRegistry) -> None:
    fake.images["second:latest"] = archives.busybox("second\n")
    first, second = await asyncio.gather(here.images.ensure(f"{fake.host}/hello"), here.images.ensure(f"{fake.host}/second"))
    assert fake.asked[f"GET {HELLO.layers[0]}"] == 1
    assert len(await here.snapshots()) == 3
    assert await here.file(first.chain_id, "www/index.html") == b"hello\n"
    assert await here.file(second.chain_id, "www/index.html") == b"second\n"


async def test_a_waiter_that_gives_up_leaves_the_others_alone(here: World, fake: FakeRegistry) -> None:
    fake.gate = asyncio.Event()
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    impatient = asyncio.create_task(here.images.ensure(exact))
    patient = asyncio.create_task(here.images.ensure(exact))
    await eventually(lambda: any("GET sha256" in path for path in fake.asked), "a blob is asked for")
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    fake.gate.set()
    assert (await patient).digest == HELLO.manifest


async def test_the_last_waiter_to_give_up_ends_the_pull(here: World, fake: FakeRegistry) -> None:
    fake.gate = asyncio.Event()
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    only = asyncio.create_task(here.images.ensure(exact))
    await eventually(lambda: any("GET sha256" in path for path in fake.asked), "a blob is asked for")
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    fake.gate.set()
    assert (await here.images.ensure(exact)).digest == HELLO.manifest
    assert await here.leases() == []


async def test_what_is_in_use_outlives_containerds_collector(here: World, fake: FakeRegistry) -> None:
    ready = await here.images.ensure(f"{fake.host}/hello")
    await here.collect_garbage()
    assert await here.contents() == set(HELLO.blobs)
    assert ready.chain_id in await here.snapshots()


async def test_the_collector_in_mid_pull_takes_nothing(here: World, fake: FakeRegistry) -> None:
    pull = asyncio.create_task(here.images.ensure(f"{fake.host}/hello"))
    while not pull.done():
        await here.collect_garbage()
    assert await here.file(pull.result().chain_id, "www/index.html") == b"hello\n"


async def test_images_nobody_uses_are_collected_and_their_room_is_free(here: World, fake: FakeRegistry) -> None:
    fake.images["second:latest"] = archives.busybox("second\n")
    kept = f"{fake.host}/hello@{HELLO.manifest}"
    await here.images.ensure(kept)
    await here.images.ensure(f"{fake.host}/second")
    later = 1e12
    assert len(await here.images.collect({kept}, 3600, later)) == 1
    await here.collect_garbage()
    assert await here.contents() == set(HELLO.blobs)
    assert [image.name for image in await here.images.list()] == [kept]
    assert len(await here.images.collect(set(), 3600, later + 4000)) == 1
    await here.collect_garbage()
    assert await here.contents() == set()
    assert await here.snapshots() == set()


async def test_what_is_already_here_needs_no_registry_after_a_restart(here: World, fake: FakeRegistry) -> None:
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    ready = await here.images.ensure(exact)
    assert here.images.cached(exact) is ready
    again = facade.ImageStore(here.engine, node="n1", spool=here.real.root / "spool", outbound=HERE)
    fake.asked.clear()
    await again.load()
    assert again.cached(exact) == ready
    assert again.unpacked_digests == [HELLO.manifest]
    assert await again.ensure(exact) == ready
    assert not fake.asked
    await again.close()


async def test_an_unpacked_image_that_vanished_is_pulled_anew(here: World, fake: FakeRegistry) -> None:
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    ready = await here.images.ensure(exact)
    await here.images.remove(exact)
    await here.collect_garbage()
    assert await here.snapshots() == set()
    assert await here.images.ensure(exact) == ready
    assert await here.file(ready.chain_id, "www/index.html") == b"hello\n"


async def test_containerd_away_is_said_so_and_passes(here: World, fake: FakeRegistry) -> None:
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    here.real.kill()
    with pytest.raises(errors.EngineUnavailable):
        await here.images.ensure(exact)
    await here.real.start()
    await here.engine.ready(10)
    assert (await here.images.ensure(exact)).digest == HELLO.manifest
