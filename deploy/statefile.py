"""`<run>/state.json`: which processes belong to this engine. Written by the supervisor, read by everybody else."""

import os
from pathlib import Path

import msgspec

from deploy.settings import Engine
from process.pids import Pid


class ChildState(msgspec.Struct, kw_only=True):
    """One supervised process as `ebb status` shows it."""

    name: str
    state: str = "waiting"
    pid: int = 0
    ticks: int = 0
    restarts: int = 0
    since: float = 0
    """Wall seconds when `state` began."""
    last_exit: str = ""
    argv: list[str] = []
    log: str = ""
    ready_url: str = ""
    """Answers 200 when the component is well; empty where being alive is all that can be asked."""

    @property
    def who(self) -> Pid | None:
        return Pid(self.pid, self.ticks) if self.pid else None


class EngineState(msgspec.Struct, kw_only=True):
    """The whole engine. `phase`: starting, up, stopping, failed."""

    v: int = 1
    phase: str = "starting"
    message: str = ""
    """Why it failed, or the last thing worth telling."""
    supervisor: Pid
    engine: Engine
    started_at: float = 0
    rolls: int = 0
    """How often the front door's workers were started anew, one after another."""
    roll_error: str = ""
    """Why the last time failed."""
    children: list[ChildState] = []


def read(path: Path) -> EngineState | None:
    """The state, or None when there is none or it is not readable as one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=EngineState)
    except (OSError, msgspec.DecodeError):
        return None


def write(path: Path, state: EngineState) -> None:
    """Replace the state in one step: a reader sees the old or the new one, whole."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    os.chmod(fresh, 0o644)
    fresh.replace(path)
