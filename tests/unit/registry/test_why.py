"""The API's route to the autoscaler's reasons: asked of who leads, for the service's revisions, newest first."""

import json
from typing import Any

import pytest

from registry.api.problems import ApiError
from registry.api.why import WhyRoutes
from store.memory_bus import MemoryBus, MemoryHub
from store.messages import WHY, AskWhy, Why, WhyRevision
from store.model import Revision, decode, encode


class Known:
    """What is observed: revisions alone."""

    def __init__(self, *revisions: Revision) -> None:
        self.revisions = {revision.key: revision for revision in revisions}


def revision(name: str, service: str, at: float) -> Revision:
    return Revision(project="p", name=name, service=service, image="i@sha256:1", created_at=at)


def routes(bus: MemoryBus) -> WhyRoutes:
    known: Any = Known(revision("a-1", "a", 1), revision("a-2", "a", 2), revision("b-1", "b", 3))
    return WhyRoutes(known, bus)


async def test_the_services_revisions_are_asked_for_newest_first() -> None:
    hub = MemoryHub()

    async def scaler(question: bytes) -> bytes:
        return encode(Why(revisions=[WhyRevision(revision=key, ready=1) for key in decode(AskWhy, question).revisions]))

    await hub.client().respond(WHY, scaler)
    said = json.loads((await routes(hub.client()).why("p", "a")).content)
    assert [each["revision"] for each in said["revisions"]] == ["p/a-2", "p/a-1"]
    assert said["revisions"][0]["ready"] == 1


async def test_an_unknown_service_and_a_missing_autoscaler_are_named() -> None:
    with pytest.raises(ApiError) as unknown:
        await routes(MemoryBus()).why("q", "a")
    assert unknown.value.code == 404
    with pytest.raises(ApiError) as alone:
        await routes(MemoryBus()).why("p", "a")
    assert alone.value.code == 503
    assert "ebb status" in str(alone.value)
