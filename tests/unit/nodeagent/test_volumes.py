"""Secrets and ConfigMaps as files: written once, changed in one step, gone with their instance."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nodeagent.volumes import NoMemory, Volumes, layout, place_of, replace
from process.run import Jobs
from store import keys
from store.model import Revision
from store.volumes import Item, Volume
from tests.eventually import eventually

SHM = Path("/dev/shm")
DB = Volume(path="/secrets", secret="db", mode=0o400)


class Stored:
    """What the store holds, by the name of the Secret or ConfigMap."""

    def __init__(self, **values: Mapping[str, bytes]) -> None:
        self.values = values

    async def read(self, project: str, volume: Volume) -> Mapping[str, bytes]:
        return self.values[volume.secret or volume.config]

    def known(self, key: str) -> Mapping[str, bytes] | None:
        return self.values.get(key.rpartition("/")[2])


class Node:
    """A node's volumes, over one life of the agent after the other."""

    def __init__(self, where: Path) -> None:
        self.where, self.stored = where, Stored(db={"user": b"ana", "password": b"one"}, conf={"mode": b"fast", "more": b"x"})
        self.volumes = self.begin()

    def begin(self) -> Volumes:
        self.volumes = Volumes(self.where, self.stored.read, self.stored.known, Jobs("test"))
        self.volumes.start()
        return self.volumes


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(SHM / f"ebb-test-{tmp_path.parent.name}-{tmp_path.name}")
    yield made
    made.volumes.stop()


def revision(*volumes: Volume) -> Revision:
    return Revision(project="p", name="r", image="i", volumes=list(volumes))


def files(mode: int = 0o644, **values: bytes) -> dict[str, tuple[bytes, int]]:
    return {path.replace("__", "/"): (value, mode) for path, value in values.items()}


def test_a_reader_sees_the_old_or_the_new_values_and_never_some_of_each(tmp_path: Path) -> None:
    assert replace(tmp_path, files(a=b"1", deep__b=b"1"), 0)
    opened = (tmp_path / "..data").resolve()
    with (tmp_path / "deep/b").open() as held:
        assert replace(tmp_path, files(0o600, a=b"2", deep__b=b"2", c=b"2"), 0)
        assert not opened.exists()
        assert held.read() == "1", "what was opened before stays what it was"
    assert {(tmp_path / path).read_text() for path in ("a", "deep/b", "c")} == {"2"}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert replace(tmp_path, files(c=b"3"), 0)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["c"]
    assert len(list(tmp_path.glob("..*"))) == 2, "one directory and the link to it"
    assert not replace(tmp_path, files(c=b"3"), 0), "what is so already is not touched"


def test_what_a_change_that_was_cut_off_left_is_tidied_by_the_next(tmp_path: Path) -> None:
    replace(tmp_path, files(a=b"1"), 0)
    (tmp_path / "..cutoff").mkdir()
    (tmp_path / "..data_new").symlink_to("..cutoff")
    assert replace(tmp_path, files(a=b"2"), 0)
    assert (tmp_path / "a").read_bytes() == b"2"
    assert len(list(tmp_path.glob("..*"))) == 2


def test_items_choose_keys_and_modes_and_what_is_optional_may_be_missing() -> None:
    held = {"a": b"1", "b": b"2", "..data": b"3"}
    assert layout(DB, held) == files(0o400, a=b"1", b=b"2")
    twice = Volume(path="/x", secret="s", items=[Item(key="a", path="x"), Item(key="a", path="y/z", mode=0)])
    assert layout(twice, held) == {"x": (b"1", 0o644), "y/z": (b"1", 0)}
    wants = [Item(key="a", path="a"), Item(key="none", path="n")]
    assert layout(Volume(path="/x", secret="s", items=wants), held) is None
    assert layout(Volume(path="/x", secret="s", items=wants, optional=True), held) == files(a=b"1")


async def test_an_instance_gets_the_keys_it_asked_for_in_its_own_roots_name_and_in_memory(node: Node) -> None:
    conf = Volume(path="/conf", config="conf", items=[Item(key="mode", path="deep/mode.txt")])
    (secrets, at), (configs, _) = await node.volumes.place("a-1", revision(DB, conf), 200_000)
    file = Path(secrets) / "password"
    assert (at, file.read_bytes()) == ("/secrets", b"one")
    assert (Path(configs) / "deep/mode.txt").read_bytes() == b"fast"
    assert not (Path(configs) / "more").exists()
    assert (file.stat().st_mode & 0o777, file.stat().st_uid, file.parent.stat().st_uid) == (0o400, 200_000, 200_000)
    top = file.parent.parent
    assert (top.stat().st_mode & 0o777, top.stat().st_uid) == (0o700, 0), "other users of the machine stay out"
    node.volumes.drop("a-1")
    assert not top.exists()


async def test_secrets_never_come_to_a_disk(node: Node, tmp_path: Path) -> None:
    assert place_of(SHM / "run/containerd/containerd.sock", "x") == SHM / "run/files-x"
    assert place_of(Path("/var/lib/nowhere/containerd/containerd.sock"), "x") == Path("/dev/shm/ebb-files-x")
    node.volumes.stop()
    node.where = Path("/var/tmp") / tmp_path.name
    with pytest.raises(NoMemory, match="mount a tmpfs there"):
        await node.begin().place("a-1", revision(DB), 0)
    assert not await node.volumes.hide("a-1", {})


async def test_without_volumes_nothing_is_made(node: Node) -> None:
    assert await node.volumes.place("a-1", revision(), 0) == ()
    assert list(node.where.iterdir()) == []


async def test_a_change_reaches_who_uses_it_also_after_the_agent_began_anew(node: Node) -> None:
    [(secrets, _)] = await node.volumes.place("a-1", revision(DB), 0)
    file = Path(secrets) / "password"
    node.stored.values["db"] = {"password": b"two"}
    for other in (keys.secret("p", "other"), keys.secret("q", "db"), keys.config("p", "db")):
        await node.volumes.changed(other)
    assert file.read_bytes() == b"one"
    node.volumes.hear(keys.secret("p", "db"))
    await eventually(lambda: file.read_bytes() == b"two")
    node.stored.values["db"] = {"password": b"three"}
    node.begin().keep({"a-1"})
    await asyncio.gather(node.volumes.follow(), node.volumes.changed(keys.secret("p", "db")))
    assert file.read_bytes() == b"three"
    del node.stored.values["db"]
    await node.volumes.changed(keys.secret("p", "db"))
    assert file.read_bytes() == b"three", "who runs keeps what was there when its Secret is deleted"
    node.begin().keep(set())
    assert not file.exists()


async def test_a_placement_that_is_tried_again_finds_its_place(node: Node) -> None:
    first = await node.volumes.place("a-1", revision(DB), 0)
    assert await node.volumes.place("a-1", revision(DB), 0) == first


async def test_a_spec_with_secrets_is_kept_for_root_alone_and_goes_with_its_instance(node: Node) -> None:
    assert await node.volumes.hide("a-1", {"process": {"env": ["A=secret"]}})
    file = node.where / "a-1" / "config.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert b"secret" in (node.begin().hidden("a-1") or b"")
    assert node.volumes.hidden("other") is None
    node.volumes.keep(set())
    assert node.volumes.hidden("a-1") is None
