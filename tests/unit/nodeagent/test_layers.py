"""Where layers are is asked once, and what was found and went is not believed."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf import timestamp_pb2

from nodeagent.containerd import errors
from nodeagent.containerd.client import Containerd
from nodeagent.layers import Layers
from nodeagent.pb import snapshots_pb2, types_pb2

CHAIN = "sha256:0"


class Snapshots:
    """containerd's snapshots, of one image that was unpacked `times` times."""

    def __init__(self) -> None:
        self.times, self.made, self.there = 1, 0, True
        self.standing = set[str]()

    async def Stat(self, request: Any) -> Any:
        if not self.there:
            raise errors.NotFound(request.key)
        return snapshots_pb2.StatSnapshotResponse(
            info=snapshots_pb2.Info(created_at=timestamp_pb2.Timestamp(seconds=self.times))
        )

    async def Prepare(self, request: Any) -> Any:
        if not self.there:
            raise errors.NotFound(request.parent)
        self.made += 1
        self.standing.add(request.key)
        options = [f"lowerdir=/s/{self.times}/fs", "upperdir=/s/9/fs", "workdir=/s/9/work", "index=off"]
        return snapshots_pb2.PrepareSnapshotResponse(
            mounts=[types_pb2.Mount(type="overlay", source="overlay", options=options)]
        )

    async def Remove(self, request: Any) -> None:
        self.standing.remove(request.key)


@pytest.fixture
def snapshots() -> Snapshots:
    return Snapshots()


@pytest.fixture
def layers(snapshots: Snapshots) -> Layers:
    return Layers(cast(Containerd, SimpleNamespace(snapshots=snapshots)))


async def test_layers_are_looked_for_once_and_nothing_stands_on_them(layers: Layers, snapshots: Snapshots) -> None:
    found = [await layers.find(CHAIN) for _ in range(3)]
    assert list(found[2].options) == ["lowerdir=/s/1/fs", "index=off"]
    assert (snapshots.made, snapshots.standing) == (1, set())
    await layers.check(CHAIN)


async def test_what_went_and_came_again_is_looked_for_anew(layers: Layers, snapshots: Snapshots) -> None:
    await layers.find(CHAIN)
    snapshots.times = 2
    with pytest.raises(errors.NotFound, match="before a container held it"):
        await layers.check(CHAIN)
    assert "lowerdir=/s/2/fs" in (await layers.find(CHAIN)).options
    await layers.check(CHAIN)


async def test_what_is_gone_is_not_found(layers: Layers, snapshots: Snapshots) -> None:
    await layers.find(CHAIN)
    snapshots.there = False
    for ask in (layers.check, layers.find):
        with pytest.raises(errors.NotFound):
            await ask(CHAIN)
