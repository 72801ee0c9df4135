"""A node's images on an empty containerd, and a registry that misbehaves on request."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.images.fake import FakeRegistry, fake_registry
from tests.integration.images.world import HELLO, World, world


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with fake_registry(hello=HELLO) as made:
        yield made
