"""The profiles of instances: who may be in them, and how much room they give."""

from typing import Any

import pytest

from nodeagent import ocispec, profiles
from nodeagent.profiles import Fence, NotAllowed, Writable
from nodeagent.uids import FIRST_ID
from nodeagent.userdb import ResolvedUser
from store.model import GVISOR, Revision
from tests.unit.nodeagent.test_ocispec import build, revision


def room(**fields: Any) -> Writable:
    return profiles.writable(Revision(project="p", name="r", image="i", **fields))


def test_who_asks_for_nothing_writes_to_memory_of_its_own_and_at_most_half_of_it() -> None:
    assert room() == Writable(1 << 30, 1 << 16)
    assert room(memory_limit_bytes=64 << 20).size_bytes == 32 << 20
    assert room(memory_limit_bytes=16 << 30).size_bytes == 1 << 30
    assert room(memory_limit_bytes=4 << 20).size_bytes == 16 << 20


def test_who_asks_for_room_gets_a_disk_of_that_size() -> None:
    assert room(disk_limit_bytes=4 << 30, memory_limit_bytes=64 << 20) == Writable(4 << 30, 1 << 18, on_disk=True)
    assert room(disk_request_bytes=64 << 20) == Writable(64 << 20, 1 << 16, on_disk=True)


@pytest.mark.parametrize("user", [ResolvedUser(65_536), ResolvedUser(1, 65_536), ResolvedUser(1, 1, (70_000,))])
def test_a_user_beyond_the_ids_of_a_project_is_refused(user: ResolvedUser) -> None:
    with pytest.raises(NotAllowed, match="below 65536"):
        profiles.admit(Fence(FIRST_ID), user)
    profiles.admit(Fence(), user)  # the machine's own ids have room


def test_hardened_refuses_root_with_the_cure() -> None:
    with pytest.raises(NotAllowed, match=r"runAsUser, or USER"):
        profiles.admit(Fence(FIRST_ID, hardened=True), ResolvedUser())
    profiles.admit(Fence(FIRST_ID, hardened=True), ResolvedUser(1000))


def test_hardened_has_no_capability_in_any_set_a_root_of_only_reading_and_a_tmp() -> None:
    spec = build(revision(), user=ResolvedUser(1000), fence=Fence(FIRST_ID, hardened=True))
    assert set(spec["process"]["capabilities"]) >= {"bounding", "effective", "permitted"}
    assert not any(spec["process"]["capabilities"].values())
    assert spec["root"]["readonly"]
    assert [mount for mount in spec["mounts"] if mount["destination"] == "/tmp"]


def test_root_inside_is_the_first_id_of_the_project_and_sees_no_hardware() -> None:
    spec = build(revision(), fence=Fence(FIRST_ID))
    assert {"type": "user"} in spec["linux"]["namespaces"]
    assert spec["linux"]["uidMappings"] == [{"containerID": 0, "hostID": FIRST_ID, "size": 65_536}]
    assert spec["linux"]["gidMappings"] == spec["linux"]["uidMappings"]
    assert not [mount for mount in spec["mounts"] if mount["type"] == "sysfs"]


def test_every_memory_that_an_instance_can_write_files_to_has_a_size_and_a_number_of_files() -> None:
    for fence in (Fence(FIRST_ID), Fence(FIRST_ID, hardened=True), Fence()):
        for mount in build(revision(runtime=GVISOR if not fence.first_id else ""), fence=fence)["mounts"]:
            if mount["type"] == "tmpfs":
                assert any(option.startswith("size=") for option in mount["options"]), mount
                assert any(option.startswith("nr_inodes=") for option in mount["options"]), mount


def test_capabilities_are_those_of_the_default_and_no_more() -> None:
    given = ocispec.capabilities(revision(), ResolvedUser(), Fence(FIRST_ID))
    assert all(tuple(held) == ocispec.CAPABILITIES for held in given.values())
