"""The node agent and Secrets, on real etcd and containerd: also one that changed while the agent was dead."""

import os
import re
from pathlib import Path

import pytest

from nodeagent.volumes import in_memory
from store import keys
from store.backend import Store
from store.lifecycle import Phase
from store.model import EnvRef, Goal, Private, Probe, Values, encode
from store.seal import Keyring, add_key
from store.volumes import Item, Volume
from tests import real
from tests.integration.agent_world import fetch, world

pytestmark = pytest.mark.real
PASSWORDS = re.compile(rb"PASSWORD=(first|second)")
SHOW = "echo \"$PASSWORD\" > /www/seen; busybox httpd -f -p $PORT -h /www & trap 'kill $!; exit 0' TERM; wait"
REFS = [EnvRef(name="PASSWORD", secret="db", key="password")]


async def put(store: Store, ring: Keyring, password: str) -> None:
    sealed = ring.seal(encode(Private(data={"password": password.encode()})), bound_to="default/db")
    meta = {"name": "db", "namespace": "default"}
    await store.put(keys.secret("default", "db"), encode(Values(metadata=meta, type="Opaque", sealed=sealed)))


async def keyed(store: Store, directory: Path) -> tuple[Keyring, tuple[str, str]]:
    """The keys that Secrets are sealed with, and the agent's flag for them; the password is `first`."""
    add_key(directory / "key")
    ring = Keyring(directory / "key")
    await put(store, ring, "first")
    return ring, ("--secret-key-file", str(directory / "key"))


async def test_a_parked_instance_with_an_old_value_stops_also_when_it_changed_while_the_agent_was_dead(
    store: Store, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> None:
    ring, flags = await keyed(store, tmp_path)
    async with world(store, etcd, nats, *flags) as node:
        probe = Probe(kind="exec", command=["/bin/busybox", "sh", "-c", 'test -n "$PASSWORD"'], timeout_s=5)
        await node.revision(script=SHOW, env_refs=REFS, readiness_probe=probe)
        for instance in ("runs", "same", "dead"):
            await node.assign(instance, Goal.PARK)
            await node.phase(instance, Phase.PARKED)
        await node.assign("runs", Goal.RUN)
        ready = await node.phase("runs", Phase.READY)
        node.kill()
        await node.start(*flags)
        await node.assign("same", Goal.RUN)  # nothing had changed: it was kept
        assert await fetch((await node.phase("same", Phase.READY)).address, "/seen") == "first\n"
        node.kill()
        await put(store, ring, "second")
        await node.start(*flags)
        stopped = await node.phase("dead", Phase.STOPPED)
        assert stopped.failure is None
        await node.assign("new", Goal.PARK)
        await node.phase("new", Phase.PARKED)
        await node.assign("new", Goal.RUN)
        assert await fetch((await node.phase("new", Phase.READY)).address, "/seen") == "second\n"
        assert await fetch(ready.address, "/seen") == "first\n"
        assert (await node.phase("runs", Phase.READY)).phase == Phase.READY
        kept = [
            Path(directory) / name
            for top in (node.containerd.root, node.containerd.run)
            for directory, _, names in os.walk(top)
            for name in names
        ]
        assert [str(file) for file in kept if file.name == "config.json" and file.is_symlink()], (
            "the runtime reads it in memory"
        )
        # crun keeps a copy of its own beside its state, under /run: memory on usual machines, root's alone on all.
        apart = node.containerd.run / "shims" / "runc"
        told = [file for file in kept if file.is_file() and not in_memory(file.resolve()) and apart not in file.parents]
        assert len(told) > 20
        assert [str(file) for file in told if PASSWORDS.search(_held(file))] == []
        for instance in ("runs", "same", "dead", "new"):
            await node.withdraw(instance)
            await node.gone(instance)


def _held(file: Path) -> bytes:
    """What is in it; what went away since it was listed holds nothing."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


FILES = [
    Volume(path="/etc/db", secret="db", mode=0o400),
    Volume(path="/www/conf", config="conf", items=[Item(key="mode", path="deep/mode.txt")]),
]
ASK = """
mkdir -p /www/cgi-bin; cat > /www/cgi-bin/see <<'END'
#!/bin/busybox sh
echo; cat /etc/db/password; echo; ls -ln /etc/db/..data/password; echo x > /etc/db/new 2>/dev/null && echo written
END
chmod +x /www/cgi-bin/see; exec busybox httpd -f -p $PORT -h /www
"""


async def test_files_follow_what_is_stored_in_parked_running_and_frozen_instances_also_while_the_agent_was_dead(
    store: Store, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> None:
    ring, flags = await keyed(store, tmp_path)
    await store.put(keys.config("default", "conf"), encode(Values(metadata={"name": "conf"}, data={"mode": "fast"})))
    async with world(store, etcd, nats, *flags) as node:
        await node.revision(script=ASK, volumes=FILES)
        for instance in ("runs", "parked", "frozen"):
            await node.assign(instance, Goal.PARK)
            await node.phase(instance, Phase.PARKED)
        addresses = {}
        for instance in ("runs", "frozen"):
            await node.assign(instance, Goal.RUN)
            addresses[instance] = (await node.phase(instance, Phase.READY)).address
        first = await fetch(addresses["runs"], "/cgi-bin/see")
        assert first.split()[:2] == ["first", "-r--------"], first
        assert first.split()[3:5] == ["0", "0"], "root inside owns them"
        assert "written" not in first
        assert await fetch(addresses["runs"], "/conf/deep/mode.txt") == "fast"
        await node.assign("frozen", Goal.FREEZE)
        await node.phase("frozen", Phase.FROZEN)

        async def says(word: str) -> bool:
            return (await fetch(addresses["runs"], "/cgi-bin/see")).split()[0] == word

        await put(store, ring, "second")
        await node.until(lambda: says("second"), "the file of the instance that runs")
        node.kill()
        await put(store, ring, "third")
        await node.start(*flags)
        await node.until(lambda: says("third"), "the file, after the agent began anew")
        for instance in ("parked", "frozen"):
            await node.assign(instance, Goal.RUN)
            address = (await node.phase(instance, Phase.READY)).address
            assert (await fetch(address, "/cgi-bin/see")).split()[0] == "third", instance
        assert len(list(node.files.iterdir())) == 3
        for instance in ("runs", "parked", "frozen"):
            await node.withdraw(instance)
            await node.gone(instance)
        assert list(node.files.iterdir()) == []


async def test_a_missing_secret_and_a_missing_key_are_named(
    store: Store, etcd: real.Server, nats: real.Server, tmp_path: Path
) -> None:
    add_key(tmp_path / "other")
    async with world(store, etcd, nats) as node:
        await node.revision(env_refs=REFS)
        await node.assign("missing")
        failed = await node.phase("missing", Phase.FAILED)
        assert failed.failure is not None
        assert failed.failure.reason == "SecretMissing"
        assert "Secret default/db does not exist" in failed.failure.message
        await put(store, Keyring(tmp_path / "other"), "first")
        await node.assign("sealed")
        failed = await node.phase("sealed", Phase.FAILED)
        assert failed.failure is not None
        assert failed.failure.reason == "SecretSealed"
        for instance in ("missing", "sealed"):
            await node.withdraw(instance)
            await node.gone(instance)
