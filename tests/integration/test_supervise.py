"""The supervisor with real processes: readiness, restarts, adoption, ordered stop."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from process import pids
from process.supervise import Child, Spec, StartFailed, Supervisor
from tests.eventually import eventually

PATIENT = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
POLITE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"
)


class World:
    """Specs of children that are ready once they have said `up`, and what happened, in order."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.told: list[tuple[str, str]] = []
        self.supervisors: list[Supervisor] = []

    def spec(self, name: str, code: str = POLITE, **more: float) -> Spec:
        log = self.home / f"{name}.log"

        async def ready() -> str | None:
            return None if log.exists() and b"up" in log.read_bytes() else "has not said so"

        options = {"stop_timeout_s": 5.0, "start_timeout_s": 20.0, **more}
        return Spec(name=name, argv=(sys.executable, "-c", code), log=log, ready=ready, **options)  # type: ignore[arg-type]

    def supervise(self, *specs: Spec) -> Supervisor:
        made = Supervisor(specs, lambda child, message: self.told.append((child.spec.name, message)))
        self.supervisors.append(made)
        return made

    def who(self, child: Child) -> pids.Pid:
        assert child.who is not None
        return child.who

    def order(self, word: str) -> list[str]:
        return [name for name, message in self.told if message.startswith(word)]


def session_nice(pid: int) -> str:
    """What the kernel weighs the session by; empty where it does not group by session."""
    path = Path(f"/proc/{pid}/autogroup")
    return path.read_text().split()[-1] if path.exists() else ""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    for supervisor in made.supervisors:
        await supervisor.stop()


async def test_stages_start_in_order_and_stop_in_theirs(world: World) -> None:
    supervisor = world.supervise(
        world.spec("door", stage=1, stop_stage=0),
        world.spec("store", stage=0, stop_stage=2),
        world.spec("work", stage=1, stop_stage=1),
    )
    await supervisor.start({})
    ready = world.order("ready")
    assert ready[0] == "store"
    assert sorted(ready[1:]) == ["door", "work"]
    alive = [world.who(child) for child in supervisor.children.values()]
    await supervisor.stop()
    assert world.order("stopped") == ["door", "work", "store"]
    assert not any(pids.alive(who) for who in alive)


async def test_a_killed_child_is_started_again_and_it_is_said(world: World) -> None:
    supervisor = world.supervise(world.spec("one"))
    await supervisor.start({})
    child = supervisor.children["one"]
    first = world.who(child)
    pids.send(first, signal.SIGKILL)
    await eventually(lambda: child.restarts.total == 1 and child.state == "running", "the child runs again")
    assert world.who(child) != first
    assert ("one", "died (killed by SIGKILL); starting again in 0.2 s") in world.told


async def test_children_are_added_replaced_and_removed_while_the_others_run(world: World) -> None:
    supervisor = world.supervise(world.spec("one"))
    await supervisor.start({})
    first = world.who(supervisor.children["one"])
    await supervisor.add(world.spec("more"))
    await supervisor.replace("one")
    assert not pids.alive(first)
    assert supervisor.children["one"].state == "running"
    more = world.who(supervisor.children["more"])
    await supervisor.remove("more")
    assert not pids.alive(more)
    assert list(supervisor.children) == ["one"]
    pids.send(world.who(supervisor.children["one"]), signal.SIGKILL)
    await eventually(lambda: supervisor.children["one"].restarts.total == 1, "the new one is watched too")


async def test_one_that_cannot_be_added_is_gone(world: World) -> None:
    supervisor = world.supervise(world.spec("one"))
    await supervisor.start({})
    with pytest.raises(StartFailed, match="bad ended"):
        await supervisor.add(world.spec("bad", "import sys; sys.exit(1)"))
    assert list(supervisor.children) == ["one"]


async def test_a_child_that_cannot_start_fails_the_start_with_its_last_words(world: World) -> None:
    supervisor = world.supervise(world.spec("bad", "import sys; sys.exit('the disk is on fire')"))
    with pytest.raises(StartFailed, match=r"bad ended before it was ready \(exit code 1\)(.|\n)*the disk is on fire"):
        await supervisor.start({})


async def test_a_child_that_is_never_ready_fails_the_start_with_what_was_missing(world: World) -> None:
    supervisor = world.supervise(world.spec("mute", "import time; time.sleep(600)", start_timeout_s=0.5))
    with pytest.raises(StartFailed, match=r"mute was not ready after 0\.5 s: has not said so"):
        await supervisor.start({})


async def test_a_child_that_ignores_sigterm_is_killed_after_its_time(world: World) -> None:
    supervisor = world.supervise(world.spec("deaf", PATIENT, stop_timeout_s=0.3))
    await supervisor.start({})
    who = world.who(supervisor.children["deaf"])
    await supervisor.stop()
    assert not pids.alive(who)
    assert world.order("killed") == ["deaf"]


async def test_what_a_killed_supervisor_left_is_adopted_watched_and_stopped(world: World) -> None:
    with open(world.home / "one.log", "ab") as log:  # noqa: ASYNC230
        left = await asyncio.create_subprocess_exec(sys.executable, "-c", POLITE, stdout=log)
    who = pids.identify(left.pid)
    assert who is not None
    supervisor = world.supervise(world.spec("one"))
    await supervisor.start({"one": who})
    child = supervisor.children["one"]
    assert world.who(child) == who
    assert child.restarts.total == 0
    pids.send(who, signal.SIGKILL)
    await eventually(lambda: child.restarts.total == 1 and child.state == "running", "an adopted child that died is replaced")
    await left.wait()


async def test_a_pid_that_now_belongs_to_somebody_else_is_not_adopted(world: World) -> None:
    other = await asyncio.create_subprocess_exec("sleep", "60")
    now = pids.identify(other.pid)
    assert now is not None
    supervisor = world.supervise(world.spec("one"))
    await supervisor.start({"one": pids.Pid(now.pid, now.ticks - 1)})
    assert world.who(supervisor.children["one"]).pid != other.pid
    await supervisor.stop()
    assert pids.alive(now)
    other.kill()
    await other.wait()


async def test_what_is_to_go_first_does_and_again_when_it_was_started_anew(world: World) -> None:
    supervisor = world.supervise(world.spec("door", nice=-5), world.spec("clerk", nice=5), world.spec("other"))
    await supervisor.start({})

    def priorities() -> list[int]:
        return [os.getpriority(os.PRIO_PROCESS, world.who(supervisor.children[n]).pid) for n in ("door", "clerk", "other")]

    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert priorities() == [-5, 5, mine]
    assert session_nice(world.who(supervisor.children["door"]).pid) in ("-5", "")
    before = world.who(supervisor.children["door"])
    pids.send(before, signal.SIGKILL)
    await eventually(lambda: (who := supervisor.children["door"].who) is not None and who != before, "it is back")
    assert priorities() == [-5, 5, mine]
