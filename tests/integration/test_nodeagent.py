"""The node agent on real etcd, NATS and containerd."""

import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from store import keys, messages
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
from store.model import Goal, Instance, Member, Probe, decode, encode
from tests import real
from tests.eventually import eventually
from tests.integration.agent_world import NODE, SERVE, World, fetch, world

pytestmark = pytest.mark.real


@pytest.fixture
async def node(store: Store, etcd: real.Server, nats: real.Server) -> AsyncIterator[World]:
    async with world(store, etcd, nats) as made:
        yield made


async def test_a_parked_instance_runs_answers_and_is_forgotten(node: World) -> None:
    await node.revision()
    await node.assign("app-1", Goal.PARK)
    parked = await node.phase("app-1", Phase.PARKED)
    assert parked.address
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert ready.seq > parked.seq
    assert await fetch(ready.address) == "hello\n"
    await node.withdraw("app-1")
    await node.gone("app-1")


async def test_a_herd_on_one_app_does_not_delay_anothers_first_start(node: World) -> None:
    await node.revision("herd-00001")
    await node.revision("other-00001")
    names = [f"herd-{number}" for number in range(30)]
    for name in names:
        await node.assign(name, Goal.RUN, "herd-00001")
    asked = time.time()
    await node.assign("other", Goal.RUN, "other-00001")
    other = await node.phase("other", Phase.READY)
    herd = [await node.phase(name, Phase.READY) for name in names]
    before = sum(asked < each.at < other.at for each in herd)
    assert before <= 15, f"{before} of the herd came first"


async def test_an_instance_runs_without_being_parked_first(node: World) -> None:
    await node.revision()
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert await fetch(ready.address) == "hello\n"
    assert {"pull", "network", "snapshot", "create", "start", "probe"} <= ready.phases_ms.keys()
    assert ready.cause_id == "c-test"


async def test_draining_waits_for_the_ingress_and_then_stops(node: World, bus: Bus) -> None:
    await node.store.put(keys.member("ingress", "door-1"), encode(Member(role="ingress", member="door-1")))
    await node.revision()
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    await node.assign("app-1", Goal.DRAIN)
    await node.phase("app-1", Phase.DRAINING)
    assert await fetch(ready.address) == "hello\n"
    bus.publish(messages.drained(NODE), encode(messages.Drained(instance="app-1", sender="door-1")))
    await node.phase("app-1", Phase.STOPPED, timeout_s=5)
    await node.withdraw("app-1")
    await node.gone("app-1")


async def test_draining_ends_with_the_timeout_when_an_ingress_is_silent(node: World) -> None:
    await node.store.put(keys.member("ingress", "door-1"), encode(Member(role="ingress", member="door-1")))
    await node.revision(timeout_s=1)
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
    await node.assign("app-1", Goal.DRAIN)
    draining = await node.phase("app-1", Phase.DRAINING)
    stopped = await node.phase("app-1", Phase.STOPPED)
    assert stopped.at - draining.at >= 1


@pytest.mark.parametrize(
    ("script", "changes", "reason", "words"),
    [
        ("echo out of luck; exit 3", {}, "ExitCode3", "exited with code 3"),
        ("true", {}, "ExitCode0", "must keep running"),
        ("sleep 600", {"progress_deadline_s": 1}, "NeverReady", "8080"),
        ("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", {"memory_limit_bytes": 16 * 2**20}, "OOMKilled", "16Mi"),
    ],
    ids=["exit-3", "exit-0", "never-listens", "memory"],
)
async def test_a_start_that_cannot_work_says_why(
    node: World, script: str, changes: dict[str, Any], reason: str, words: str
) -> None:
    await node.revision(script=script, **changes)
    await node.assign("app-1", Goal.RUN)
    failed = await node.phase("app-1", Phase.FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == reason, failed.failure
    assert words in failed.failure.message
    if reason == "ExitCode3":
        assert failed.failure.log_tail == ["out of luck"]
        assert failed.failure.exit_code == 3
    await node.until(node.nothing_in_containerd, "its remains are gone")
    await node.withdraw("app-1")
    await node.gone("app-1")


async def test_a_command_that_is_not_there_is_named(node: World) -> None:
    await node.revision(command=["/bin/no-such-thing", "--flag"])
    await node.assign("app-1", Goal.RUN)
    failed = await node.phase("app-1", Phase.FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == "StartFailed"
    assert "/bin/no-such-thing" in failed.failure.message
    assert "not found" in failed.failure.message


async def test_an_image_that_is_nowhere_fails_with_the_registrys_word(node: World) -> None:
    async with real.registry() as registry:
        await node.revision(image=f"{registry.address}/none/such@sha256:{'0' * 64}")
        await node.assign("app-1", Goal.RUN)
        failed = await node.phase("app-1", Phase.FAILED)
    assert failed.failure is not None
    assert failed.failure.reason == "ImageNotFound"


async def test_an_app_that_listens_late_becomes_ready_when_it_does(node: World) -> None:
    await node.revision(script=f"sleep 1; {SERVE}")
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert ready.phases_ms["probe"] >= 900


async def test_a_crash_in_service_is_reported_within_a_moment(node: World) -> None:
    await node.revision()
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
    os.kill(await node.task_pid("app-1"), signal.SIGKILL)
    failed = await node.phase("app-1", Phase.FAILED, timeout_s=2)
    assert failed.failure is not None
    assert failed.failure.reason == "Signal"
    assert "SIGKILL" in failed.failure.message
    assert set(failed.failure.log_tail) == {"serving", "beside"}


async def test_whoever_sends_to_an_instance_hears_of_its_death_within_100_ms(node: World, bus: Bus) -> None:
    """In the second best of seven, for the others may have waited for a core; the front door takes it out of its choice as it hears it."""
    heard: dict[str, float] = {}

    def hear(subject: str, data: bytes) -> None:
        told = decode(Instance, data)
        if told.phase == Phase.FAILED:
            heard.setdefault(told.instance, time.monotonic())

    await bus.handle(messages.INSTANCES, hear)
    await node.revision()
    names = [f"app-{n}" for n in range(7)]
    for name in names:
        await node.assign(name, Goal.RUN)
    took = []
    for name in names:
        await node.phase(name, Phase.READY)
        pid = await node.task_pid(name)
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda name=name: name in heard, "its death is told")  # type: ignore[misc]
        took.append(heard[name] - begun)
    assert sorted(took)[1] < 0.1, took


async def test_an_exec_probe_runs_in_the_instance(node: World) -> None:
    probe = Probe(kind="exec", command=["/bin/busybox", "test", "-f", "/tmp/ready"], period_s=0.2)
    await node.revision(script=f"(sleep 0.5; busybox touch /tmp/ready) & {SERVE}", readiness_probe=probe)
    await node.assign("app-1", Goal.RUN)
    ready = await node.phase("app-1", Phase.READY)
    assert ready.phases_ms["probe"] >= 400


async def test_logs_are_tagged_kept_and_followed(node: World) -> None:
    await node.revision(script=f"(sleep 0.3; echo later) & {SERVE}")
    await node.assign("app-1", Goal.RUN)
    await node.phase("app-1", Phase.READY)
    lines = await node.follow_logs("project=default&service=app&follow=true", 3)
    assert {(line.stream, line.line) for line in lines} == {("stdout", "serving"), ("stderr", "beside"), ("stdout", "later")}
    await node.withdraw("app-1")
    await node.gone("app-1")
    kept = await node.get("/logs?project=default&service=app&tail=1")
    assert "later" in kept
    assert await node.get("/logs?project=other&service=app") == ""
