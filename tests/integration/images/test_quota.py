"""The bytes of images that a project may hold on a node: of those it pulls, and of those it imports."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from nodeagent.images import admin_routes, errors
from process.admin import Admin
from tests import archives
from tests.integration.images.fake import fake_registry
from tests.integration.images.world import World, world

pytestmark = pytest.mark.real

FIRST, SECOND = archives.busybox("first\n"), archives.busybox("second\n")


def size(image: archives.Image) -> int:
    return sum(len(image.blobs[layer]) for layer in image.layers)


BOTH = size(FIRST) + len(SECOND.blobs[SECOND.layers[1]])
"""They have a layer in common."""


def limited(project: str) -> int:
    """`shop` may have one of the two, `mall` both, others anything."""
    return {"shop": BOTH - 1, "mall": BOTH}.get(project, 0)


async def body(image: archives.Image, name: str) -> AsyncIterator[bytes]:
    yield archives.oci_tar(image, name)


async def names(here: World, project: str) -> list[str]:
    return [image.name.partition("@")[0] for image in await here.images.list() if image.project == project]


async def test_an_import_over_the_quota_is_refused_and_leaves_nothing() -> None:
    async with world(quota=limited) as here:
        await here.images.import_archive(body(FIRST, "first:v1"), project="shop")
        await here.images.import_archive(body(FIRST, "first:v1"), project="shop")
        with pytest.raises(errors.OverQuota) as refused:
            await here.images.import_archive(body(SECOND, "second:v1"), project="shop")
        assert f"may have {BOTH - 1} bytes" in refused.value.message
        await here.collect_garbage()
        assert await here.contents() == set(FIRST.blobs)
        await here.images.import_archive(body(SECOND, "second:v1"), project="other")
        await here.images.import_archive(body(SECOND, "second:v1"))
        for image, name in ((FIRST, "first:v1"), (SECOND, "second:v1")):
            await here.images.import_archive(body(image, name), project="mall")
        await here.images.remove("first:v1", "shop")
        await here.images.import_archive(body(SECOND, "second:v1"), project="shop")
        assert set(await names(here, "shop")) == {"docker.io/library/second", "docker.io/library/second:v1"}


async def test_over_http_the_refusal_is_a_403_with_its_reason() -> None:
    async with world(quota=lambda project: 1) as here:
        admin = Admin({}, admin_routes.routes(here.images, frozenset))
        await admin.start("127.0.0.1:0")
        try:
            url = f"http://127.0.0.1:{admin.port}/images/import?project=shop"
            async with aiohttp.ClientSession() as session, session.post(url, data=body(FIRST, "first:v1")) as answer:
                assert (answer.status, (await answer.json())["reason"]) == (403, "QuotaExceeded")
        finally:
            await admin.stop()


async def test_a_pull_over_the_quota_is_refused_before_a_layer_is_fetched_while_what_is_here_is_used() -> None:
    used = set[str]()
    async with fake_registry(first=FIRST, second=SECOND) as fake, world(quota=limited, in_use=lambda: used) as here:
        first = f"{fake.host}/first@{FIRST.manifest}"
        used.add(first)
        await here.images.ensure(first, project="shop")
        with pytest.raises(errors.OverQuota):
            await here.images.ensure(f"{fake.host}/second@{SECOND.manifest}", project="shop")
        assert fake.asked[f"GET {SECOND.layers[1]}"] == 0
        assert here.images.cached(first, "shop") is not None
        assert here.told[-1].state == "failed"


async def test_a_pull_lets_what_the_project_no_longer_uses_go() -> None:
    async with fake_registry(first=FIRST, second=SECOND) as fake, world(quota=limited) as here:
        first, second = f"{fake.host}/first@{FIRST.manifest}", f"{fake.host}/second@{SECOND.manifest}"
        await here.images.ensure(first, project="shop")
        await here.images.ensure(first, project="other")
        await here.images.ensure(second, project="shop")
        assert await names(here, "shop") == [f"{fake.host}/second"]
        assert here.images.cached(first, "shop") is None
        assert here.images.cached(first, "other") is not None


async def test_two_pulls_at_once_are_not_both_the_last_one() -> None:
    async with fake_registry(first=FIRST, second=SECOND) as fake, world(quota=limited) as here:
        fake.gate = asyncio.Event()
        asking = [
            asyncio.ensure_future(here.images.ensure(f"{fake.host}/{name}@{image.manifest}", project="shop"))
            for name, image in (("first", FIRST), ("second", SECOND))
        ]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        fake.gate.set()
        assert [type(task.exception()) for task in done] == [errors.OverQuota]
        await asyncio.wait(asking, timeout=10)
        assert sum(task.exception() is None for task in asking) == 1
