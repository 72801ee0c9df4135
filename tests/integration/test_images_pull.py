"""Pulling, from a real registry and from one that misbehaves, into a real containerd."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from deploy.ports import free_port
from nodeagent.images import errors, facade, ingest
from nodeagent.images.challenge import Credential
from tests import archives, real
from tests.eventually import eventually
from tests.integration.images_registry import FakeRegistry, fake_registry
from tests.integration.images_world import HERE, World, world

pytestmark = pytest.mark.real

HELLO = archives.busybox()
# The password is `secret`.
HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with fake_registry(hello=HELLO) as made:
        yield made


def archive(tmp: Path, image: archives.Image = HELLO) -> str:
    file = tmp / "image.tar"
    file.write_bytes(archives.oci_tar(image))
    return f"oci-archive:{file}"


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


async def test_one_tenants_secret_is_not_anothers(fake: FakeRegistry) -> None:
    """While one pulls with a credential, another who has none is asked for his own."""
    async with world(credentials=_only_for_mine) as here:
        fake.basic = Credential("me", "secret").basic()
        exact = f"{fake.host}/hello@{HELLO.manifest}"
        mine, other = await asyncio.gather(
            here.images.ensure(exact, project="a", pull_secrets=["mine"]),
            here.images.ensure(exact, project="b"),
            return_exceptions=True,
        )
        assert isinstance(mine, facade.ReadyImage)
        assert isinstance(other, errors.Unauthorized)


async def test_what_one_project_pulled_is_not_anothers(fake: FakeRegistry) -> None:
    """Also when every byte of it is here, and in the next life of the agent."""
    async with world(credentials=_only_for_mine) as here:
        fake.basic = Credential("me", "secret").basic()
        exact = f"{fake.host}/hello@{HELLO.manifest}"
        await here.images.ensure(exact, project="a", pull_secrets=["mine"])
        for ask in (here.images.ensure, here.images.resolve):
            with pytest.raises(errors.Unauthorized):
                await ask(exact, project="b")
        assert here.images.cached(exact, "b") is None
        again = facade.ImageStore(
            here.engine, node="n1", spool=here.real.root / "spool", outbound=HERE, credentials=_only_for_mine
        )
        await again.load()
        assert again.cached(exact, "a") is not None
        with pytest.raises(errors.Unauthorized):
            await again.ensure(exact, project="b")
        blobs = fake.asked.total()
        assert (await again.ensure(exact, project="b", pull_secrets=["mine"])).digest == HELLO.manifest
        assert fake.asked.total() - blobs <= 2, "the registry is asked for rights, not for layers that are here"
        await again.close()


async def test_a_right_that_was_taken_away_ends_with_the_next_deploy(fake: FakeRegistry) -> None:
    exact = f"{fake.host}/hello@{HELLO.manifest}"
    async with world() as here:
        await here.images.ensure(exact, project="a")
        assert await here.images.resolve(exact, project="a") == exact
        fake.basic = Credential("me", "secret").basic()
        with pytest.raises(errors.Unauthorized):
            await here.images.resolve(exact, project="a")
        assert here.images.cached(exact, "a") is not None, "what runs goes on"


async def test_an_image_that_is_here_can_be_deployed_while_its_registry_is_away() -> None:
    async with world() as here:
        async with fake_registry(hello=HELLO) as gone:
            exact = f"{gone.host}/hello@{HELLO.manifest}"
            await here.images.ensure(exact, project="a")
        assert await here.images.resolve(exact, project="a") == exact
        with pytest.raises(errors.RegistryUnavailable):
            await here.images.resolve(exact, project="b")


async def _only_for_mine(project: str, secrets: Sequence[str], host: str) -> Credential | None:
    return Credential("me", "secret") if list(secrets) == ["mine"] else None


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


async def test_basic_auth_needs_the_right_credential(tmp_path: Path) -> None:
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(HTPASSWD)
    known: list[Credential] = []

    async def credentials(project: str, secrets: Sequence[str], host: str) -> Credential | None:
        return known[0] if known and list(secrets) == ["mine"] else None

    async with real.registry(htpasswd=htpasswd) as server, world(credentials=credentials) as here:
        name = f"{server.address}/hello:v1"
        await asyncio.to_thread(archives.copy, archive(tmp_path), f"docker://{name}", "--dest-creds", "me:secret")
        with pytest.raises(errors.Unauthorized, match="no credential"):
            await here.images.resolve(name)
        known.append(Credential("me", "wrong"))
        with pytest.raises(errors.Unauthorized, match="user 'me' was refused"):
            await here.images.resolve(name, pull_secrets=["mine"])
        known[0] = Credential("me", "secret")
        exact = await here.images.resolve(name, pull_secrets=["mine"])
        assert (await here.images.ensure(exact, pull_secrets=["mine"])).digest == HELLO.manifest


async def test_a_bearer_token_is_fetched_once_for_all_layers(here: World, fake: FakeRegistry) -> None:
    fake.token = "t0ken"
    await here.images.ensure(f"{fake.host}/hello")
    assert fake.token_queries == [{"service": "fake", "scope": "repository:hello:pull"}]


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


async def test_blobs_may_be_elsewhere_and_the_password_does_not_go_there(here: World, fake: FakeRegistry) -> None:
    async with fake_registry(hello=HELLO) as elsewhere:
        fake.token = "t0ken"
        fake.blobs_at = f"http://{elsewhere.host}"
        await here.images.ensure(f"{fake.host}/hello")
        assert elsewhere.seen_authorization
        assert set(elsewhere.seen_authorization) == {""}


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
