"""Runs an engine in this process: checks, starts, supervises until told to stop, stops, leaves nothing behind."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from deploy import (
    bytecode,
    components,
    containerd_config,
    handover,
    kubeconfig,
    leftovers,
    logintoken,
    owners,
    preflight,
    readiness,
    statefile,
)
from deploy.issued import Issued
from deploy.settings import Engine
from deploy.statefile import ChildState, EngineState
from process import pids
from process.supervise import Child, Spec, StartFailed, Supervisor
from registry import authority
from store.seal import SealError, add_key

Tell = Callable[[str], None]


class Runner:
    """One engine's life. `tell(line)` gets everything worth saying to a person."""

    def __init__(self, engine: Engine, tell: Tell) -> None:
        self.engine = engine
        self._tell = tell
        me = pids.identify(os.getpid())
        assert me is not None
        self.state = EngineState(supervisor=me, engine=engine, started_at=time.time())
        self._supervisor: Supervisor | None = None
        self._locks: list[int] = []
        self._rolling: asyncio.Task[None] | None = None

    def prepare(self) -> dict[str, pids.Pid]:
        """All checks, the locks, and what a killed predecessor left: returns which children to adopt. Raises Refused."""
        engine = self.engine
        preflight.root_user()
        preflight.open_files()
        preflight.binaries()
        preflight.users(engine)
        for flag, path in (("--root", Path(engine.root)), ("--run", Path(engine.run))):
            preflight.directory(flag, path)
            self._locks.append(preflight.lock(path / "lock", flag))
        preflight.room("--root", Path(engine.root))
        os.chmod(engine.root, 0o711)
        os.chmod(engine.run, 0o755)
        old = statefile.read(engine.state_file)
        alive = {child.name: child.who for child in (old.children if old else []) if child.who and pids.alive(child.who)}
        same = old is not None and old.engine == engine
        if alive and not same:
            raise preflight.Refused(
                f"an engine with other settings was left running in {engine.run} ({', '.join(alive)}); "
                f"stop it first: ebb down --run {engine.run}"
            )
        (Path(engine.root) / "run-dir").write_text(engine.run + "\n")
        preflight.ports(engine, {who.pid for who in alive.values()})
        return alive

    async def run(self, stop: asyncio.Event, adopt: dict[str, pids.Pid], on_up: Callable[[], None]) -> None:
        """Start all, `on_up()`, wait for `stop`, stop all. Raises StartFailed, after what had started was stopped again."""
        engine = self.engine
        if not adopt and (stuck := leftovers.remove(engine)):
            raise preflight.Refused("left by an earlier run and not removable: " + "; ".join(stuck))
        config = containerd_config.write(Path(engine.root) / "containerd", engine.containerd_socket.parent)
        _keys(engine)
        if worse := handover.begin(Path(engine.run)):
            self._tell(worse)
        specs = components.specs(engine, config)
        wanted = {spec.name: spec for spec in specs}
        for name in [name for name, who in adopt.items() if not _same(wanted.get(name), who)]:
            self._tell(f"{name:<11} runs with other flags than it would be started with now: starting it anew")
            await _end(adopt.pop(name), 15)
        # After what ran as another user has ended, and writes no more.
        issued = Issued(engine, owned=True)
        issued.renew()
        bytecode.compile()
        supervisor = self._supervisor = Supervisor(specs, self._changed)
        self._save()
        stopped = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(supervisor.start(adopt))
        renewing = asyncio.create_task(issued.renew_for_ever(lambda: self._reload("nats")), name="renew identities")
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                kubeconfig.write(engine.kubeconfig, engine.api, engine.admin_token, engine.local_ca)
                self.state.phase, self.state.message = "up", ""
                self._save()
                on_up()
                await stopped
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            self.state.phase = "stopping"
        except StartFailed as error:
            self.state.phase, self.state.message = "failed", str(error)
            raise
        finally:
            stopped.cancel()
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if self._rolling is not None:
                self._rolling.cancel()
                await asyncio.gather(self._rolling, return_exceptions=True)
            await self._stop(supervisor)

    def _reload(self, name: str) -> None:
        """Have a child read its configuration and certificates anew."""
        child = self._supervisor.children.get(name) if self._supervisor is not None else None
        if child is not None and child.who is not None:
            pids.send(child.who, signal.SIGHUP)

    def roll(self) -> None:
        """Begin to start the front door's workers anew, one after another; there is always one more than usual that accepts."""
        if self._supervisor is not None and self.state.phase == "up" and (self._rolling is None or self._rolling.done()):
            self._rolling = asyncio.get_running_loop().create_task(self._roll(self._supervisor))

    async def _roll(self, supervisor: Supervisor) -> None:
        spare = components.spare_door(self.engine)
        self.state.roll_error = ""
        handover.begin(Path(self.engine.run))  # Another engine that has stopped may have put it back.
        try:
            if spare.name not in supervisor.children:
                await supervisor.add(spare)
            for door in components.doors(self.engine):
                await supervisor.replace(door.name)
            await supervisor.remove(spare.name)
        except StartFailed as error:
            # With a worker missing, the one more stays; the next roll takes it away.
            self.state.roll_error = str(error)
            self._tell(f"the front door's workers were not all started anew: {error}")
        self.state.rolls += 1
        self._save()

    async def problems(self) -> dict[str, str]:
        """What each component that can be asked says is wrong."""
        return await problems(self.state)

    async def _stop(self, supervisor: Supervisor) -> None:
        self._save()
        await supervisor.stop()
        stuck = await asyncio.to_thread(leftovers.remove, self.engine)
        for line in stuck:
            self._tell(f"left behind: {line}")
        if self.state.phase != "failed":
            self.engine.state_file.unlink(missing_ok=True)
        else:
            self._save()

    def release(self) -> None:
        """Give up the locks. Called last."""
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()

    def _changed(self, child: Child, message: str) -> None:
        if message:
            self._tell(f"{child.spec.name:<11} {message}")
        self._save()

    def _save(self) -> None:
        if self._supervisor is not None:
            self.state.children = [_state_of(self.engine, child) for child in self._supervisor.children.values()]
        with contextlib.suppress(OSError):  # a full disk must not stop the supervising
            statefile.write(self.engine.state_file, self.state)


def _keys(engine: Engine) -> None:
    """Make the keys of Secrets and of certificates, the first admin's token and the local authority, at the first start.

    Raises Refused.
    """
    try:
        for keys in (engine.secret_keys, engine.certificate_keys, engine.identity_keys):
            if not keys.exists():
                add_key(keys)
        if not engine.admin_token.exists():
            logintoken.write(engine.admin_token)
        if not authority.fits(engine.local_ca, engine.domain, time.time()):
            authority.make(engine.local_ca, engine.local_ca_key, engine.domain, time.time())
        for source, name in ((engine.oidc_file, "oidc.toml"), (engine.acme_ca_file, "acme-ca.pem")):
            if source:
                owners.copy(source, engine.given(name))
    except (SealError, authority.NoAuthority) as error:
        raise preflight.Refused(str(error)) from None
    except OSError as error:
        raise preflight.Refused(f"{error.filename}: {error.strerror}") from None


async def problems(state: EngineState) -> dict[str, str]:
    """What each running component says is wrong, by name; components that are well are left out."""
    asked = [child for child in state.children if child.ready_url and pids.alive(child.who)]
    answers = await asyncio.gather(*(readiness.get(child.ready_url) for child in asked))
    return {child.name: answer for child, answer in zip(asked, answers, strict=True) if answer is not None}


async def stop_leftovers(state: EngineState, tell: Tell) -> list[str]:
    """Stop, in order, the children that a killed supervisor left; returns what could not be removed."""
    engine = state.engine
    specs = [*components.specs(engine, Path("/nonexistent")), components.spare_door(engine)]
    stages = {spec.name: spec for spec in specs}
    order = sorted({spec.stop_stage for spec in stages.values()})
    for stage in order:
        group = [c for c in state.children if c.name in stages and stages[c.name].stop_stage == stage]
        await asyncio.gather(*(_stop_one(child, stages[child.name].stop_timeout_s, tell) for child in group))
    stuck = await asyncio.to_thread(leftovers.remove, engine)
    engine.state_file.unlink(missing_ok=True)
    return stuck


async def _stop_one(child: ChildState, timeout_s: float, tell: Tell) -> None:
    who = child.who
    if who is None or not pids.alive(who):
        return
    in_time = await _end(who, timeout_s)
    tell(f"{child.name:<11} {'stopped' if in_time else f'killed: it had not stopped after {timeout_s:g} s'}")


async def _end(who: pids.Pid, timeout_s: float) -> bool:
    """SIGTERM, and SIGKILL when that was not enough: False then."""
    pids.send(who, signal.SIGTERM)
    if await pids.ended(who, timeout_s):
        return True
    pids.send(who, signal.SIGKILL)
    await pids.ended(who, 5)
    return False


def _state_of(engine: Engine, child: Child) -> ChildState:
    return ChildState(
        name=child.spec.name,
        state=child.state,
        pid=child.who.pid if child.who else 0,
        ticks=child.who.ticks if child.who else 0,
        restarts=child.restarts.total,
        since=child.since,
        last_exit=child.last_exit,
        argv=list(child.spec.argv),
        log=str(child.spec.log),
        ready_url=components.ready_url(engine, child.spec.name),
    )


def _same(spec: Spec | None, who: pids.Pid) -> bool:
    """Whether `who` was started as this engine would start it now (containerd has taken its shell's place)."""
    if spec is None or pids.user(who.pid) != (0 if spec.user is None else spec.user.uid):
        return False
    running, argv = pids.command(who.pid), spec.argv
    return running == list(argv) or bool(running and argv and argv[0] == "unshare" and running[0].endswith("containerd"))
