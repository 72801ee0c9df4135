"""What an instance can do, profile by profile: a probe runs as a deployed service, and its table is the one on record.

`EBB_RECORD=1` writes the record anew (`profiles_golden.json`); docs/security.md shows it and explains what the default allows.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from store.backend import Store
from store.lifecycle import Phase
from store.model import GVISOR
from tests import real
from tests.e2e import images
from tests.integration.agent_world import World, fetch, imported, world

pytestmark = pytest.mark.real

PROBE = Path(__file__).with_name("sandbox_probe.py")
GOLDEN = Path(__file__).with_name("profiles_golden.json")
PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    "hardened": {"profile": "hardened", "user": "1000"},
    "sandboxed": {"runtime": GVISOR, "memory_limit_bytes": 512 << 20},
}
REFUSED_BY_ALL_BUT_GVISOR = """unshare user, mount, keyctl, vsock, bpf, perf_event_open, io_uring_setup, raw socket, packet socket,
device node, write /proc/sys"""


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        made.image = await imported(made.containerd, images.archives()["testapp"].read_bytes())
        yield made


async def table(node: World, profile: str) -> dict[str, str]:
    """Probe → what came of it: ALLOWED, or how it was refused."""
    command = ["/usr/bin/python3", "-c", PROBE.read_text()]
    name = f"{profile}-00001"
    await node.revision(name, command=command, env=[("PROBE_SERVE", "1")], **PROFILES[profile])
    await node.assign(profile, revision=name)
    said = json.loads(await fetch((await node.phase(profile, Phase.READY, timeout_s=60)).address))
    await node.withdraw(profile)
    return dict(sorted({**said["attempts"], **said["more"]}.items()))


@pytest.mark.timeout(180)
async def test_what_each_profile_allows_is_on_record(node: World) -> None:
    found = {profile: await table(node, profile) for profile in PROFILES}
    if os.environ.get("EBB_RECORD"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    for profile, probes in found.items():
        lines = [f"{profile:10} {name:45} {result}" for name, result in probes.items()]
        print("\n".join(lines))
        allowed = {name for name, result in probes.items() if result == "ALLOWED"}
        on_record = {name for name, result in golden[profile].items() if result == "ALLOWED"}
        assert allowed == on_record, "\n".join(lines)
        assert probes.keys() == golden[profile].keys()


def test_hardened_allows_nothing_that_could_reach_the_machine() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert len(golden["default"]) >= 40
    for name in (part.strip() for part in REFUSED_BY_ALL_BUT_GVISOR.split(",")):
        assert golden["hardened"][name] != "ALLOWED", name
        assert golden["default"][name] != "ALLOWED", name
    extra = {name for name, result in golden["hardened"].items() if result == "ALLOWED"}
    assert extra <= {name for name, result in golden["default"].items() if result == "ALLOWED"}
