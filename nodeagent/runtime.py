"""Which OCI runtime this machine has: crun where it really works, else runc. Found out by running a container."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from typing import Any

from nodeagent.containerd import errors
from nodeagent.containerd.client import Containerd
from nodeagent.tasks import Tasks
from process import logs
from process.ids import short_id

TRIAL = "trial-"
"""Begins the names of containers that are not instances."""
TRIAL_S = 10.0
CHOICES = ("auto", "crun", "runc")

log = logs.get("runtime")


class NoRuntime(Exception):
    """No OCI runtime works here; the message says what each one said."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runtime to use: its path, and whether what it created can be started without it (`waiting`)."""

    path: str
    direct: bool


async def choose(containerd: Containerd, wanted: str, cgroup_parent: str) -> Chosen:
    """`wanted`: auto, crun or runc. Raises NoRuntime, and ValueError for another word."""
    if wanted not in CHOICES:
        raise ValueError(f"--runtime {wanted!r}: want one of {', '.join(CHOICES)}")
    said = []
    names = ("crun", "runc") if wanted == "auto" else (wanted,)
    for name, direct in [(name, direct) for name in names for direct in (True, False) if name == "crun" or not direct]:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin")
        if path is None:
            said.append(f"{name}: not installed")
            continue
        try:
            await try_out(containerd, path, cgroup_parent, direct)
        except (errors.ContainerdError, TimeoutError) as error:
            said.append(f"{name}: {error}")
            log.info("runtime does not work here", runtime=name, direct=direct, error=str(error))
            continue
        log.info("runtime chosen", runtime=name, path=path, direct=direct)
        return Chosen(path, direct)
    raise NoRuntime("no OCI runtime works: " + "; ".join(said) + ". Install crun or runc (apt-get install crun runc)")


async def clear(containerd: Containerd) -> None:
    """Take away what an agent that was killed in the midst of a trial left. Raises ContainerdError."""
    tasks = Tasks(containerd, "")
    for name in [name for name in await tasks.list() if name.startswith(TRIAL)]:
        await tasks.delete_task(name)
        await tasks.delete_container(name)


async def try_out(containerd: Containerd, binary: str, cgroup_parent: str, direct: bool = False) -> None:
    """Create, start and delete a container that runs /bin/true of this machine. Raises ContainerdError, TimeoutError, also when it is
    to be started directly (`waiting`) and is not."""
    tasks, name = Tasks(containerd, binary), f"{TRIAL}{short_id()}"
    try:
        async with asyncio.timeout(TRIAL_S):
            mounts = await tasks.prepare(name, "")
            for place in ("dev", "proc", "tmp", "bin", "lib", "lib64", "usr"):  # crun insists on the first, gVisor on all
                os.mkdir(os.path.join(mounts[0].source, place))
            await tasks.create_container(name, {}, _spec(name, cgroup_parent))
            await tasks.create_task(name, "", "")
            if not direct:
                await tasks.start(name)
            elif not tasks.let_go(name):
                raise TimeoutError("where it waits for its start cannot be seen from here")
            await tasks.wait(name)
    finally:
        async with asyncio.timeout(TRIAL_S):
            try:
                await tasks.delete_task(name)
            finally:
                await tasks.delete_container(name)


def _spec(name: str, cgroup_parent: str) -> dict[str, Any]:
    binds = [
        {"destination": f"/{top}", "type": "bind", "source": f"/{top}", "options": ["rbind", "ro"]}
        for top in ("bin", "lib", "lib64", "usr")
        if os.path.isdir(f"/{top}")
    ]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *binds],
        "linux": {
            "cgroupsPath": f"{cgroup_parent}/{name}",
            "resources": {"pids": {"limit": 1024}},
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
        },
    }
