"""What is asked of a node before an image gets a digest, and what is refused without asking."""

import asyncio
from collections.abc import Sequence

from process.clock import SystemClock
from process.run import Jobs
from registry.conditions import Resolution
from registry.digests import Digests
from registry.plan import Wanted
from store.memory_bus import MemoryHub
from store.messages import IMAGE_RESOLVE, ResolvedImage, ResolveImage
from store.model import Values, decode, encode
from store.projects import Policy

EXACT = f"ghcr.io/acme/app@sha256:{'0' * 64}"


async def resolved(image: str, policy: Policy) -> tuple[Resolution, list[ResolveImage]]:
    asked: list[ResolveImage] = []
    done = asyncio.Event()

    async def node(data: bytes) -> bytes:
        asked.append(decode(ResolveImage, data))
        return encode(ResolvedImage(image=EXACT))

    bus, stop = MemoryHub().client(), asyncio.Event()
    await bus.respond(IMAGE_RESOLVE, node)
    jobs = Jobs("test", stop)

    async def secrets(project: str, names: Sequence[str]) -> list[Values]:
        return [Values(metadata={"name": name}) for name in names]

    digests = Digests(bus, SystemClock(), jobs, lambda _: done.set(), secrets, {"shop": policy}.__getitem__)
    digests.want(Wanted("shop", "app-00001", "u1", image, ("login",)))
    async with asyncio.timeout(5):
        await done.wait()
    await jobs.cancel()
    found = digests.known("u1")
    assert found is not None
    return found, asked


async def test_an_image_from_elsewhere_than_the_project_allows_is_refused_before_any_node_is_asked() -> None:
    found, asked = await resolved("nginx", Policy(registries=("ghcr.io/acme",)))
    assert (found.image, found.reason, asked) == ("", "ImageNotAllowed", [])
    assert "ghcr.io/acme" in found.message


async def test_where_origins_or_signatures_are_asked_for_the_node_is_told() -> None:
    found, [asked] = await resolved("ghcr.io/acme/app", Policy(registries=("ghcr.io/acme",), signature_keys=("PEM",)))
    assert found.image == EXACT
    assert (asked.own_imports, asked.signature_keys, [each.metadata["name"] for each in asked.pull_secrets]) == (
        False,
        ["PEM"],
        ["login"],
    )


async def test_without_a_policy_all_images_may_run() -> None:
    found, [asked] = await resolved("nginx", Policy())
    assert found.image == EXACT
    assert (asked.own_imports, asked.signature_keys) == (True, [])
