"""Which OCI runtime this machine has: crun where it really works, else runc. Found out by running a container."""

import asyncio
import base64
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nodeagent import seccomp
from nodeagent.containerd import errors
from nodeagent.containerd.client import Containerd
from nodeagent.layers import LOOK
from nodeagent.ocispec import FILTER
from nodeagent.tasks import Tasks
from process import logs
from process.ids import short_id

TRIAL = "trial-"
"""Begins the names of containers that are not instances."""
TRIAL_S = 10.0
_FILTERED = "until grep -q Seccomp:.2 /proc/1/status; do sleep 0.01; done; exec grep -q Seccomp:.2 /proc/self/status"
"""Ends well where the system calls of the container's first process are filtered, and its own."""
CHOICES = ("auto", "crun", "runc")

log = logs.get("runtime")


class NoRuntime(Exception):
    """No OCI runtime works here; the message says what each one said."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runtime to use: its path, whether what it created can be started without it (`waiting`), and what the filter of system
    calls is compiled to, where it takes that."""

    path: str
    direct: bool
    filter: str = ""


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
        compiled = await compile_filter(containerd, path, cgroup_parent) if direct else ""
        log.info("runtime chosen", runtime=name, path=path, direct=direct, compiled_filter=bool(compiled))
        return Chosen(path, direct, compiled)
    raise NoRuntime("no OCI runtime works: " + "; ".join(said) + ". Install crun or runc (apt-get install crun runc)")


async def clear(containerd: Containerd) -> None:
    """Take away what an agent that was killed in the midst of a trial, or of a look for layers, left. Raises ContainerdError."""
    tasks = Tasks(containerd, "")
    there = await tasks.bare_snapshots() | (await tasks.list()).keys()
    for name in sorted(name for name in there if name.startswith((TRIAL, LOOK))):
        await tasks.delete_task(name)
        await tasks.delete_container(name)


async def try_out(containerd: Containerd, binary: str, cgroup_parent: str, direct: bool = False) -> None:
    """Create, start and delete a container that runs /bin/true of this machine. Raises ContainerdError, TimeoutError, also when it is
    to be started directly (`waiting`) and is not."""
    tasks = Tasks(containerd, binary)
    async with _created(tasks, cgroup_parent, ["/bin/true"]) as name:
        if not direct:
            await tasks.start(name)
        elif not tasks.let_go(name):
            raise TimeoutError("where it waits for its start cannot be seen from here")
        await tasks.wait(name)


async def compile_filter(containerd: Containerd, binary: str, cgroup_parent: str) -> str:
    """The filter of system calls (`seccomp`) as crun compiles it, in base64; given back as `FILTER`, it need not be compiled for each
    instance (2 ms). Empty when it is not seen to hold what is given so: a first process, and what is executed beside it."""
    tasks = Tasks(containerd, binary)
    try:
        async with _created(
            tasks, cgroup_parent, ["/bin/true"], filtered={"seccomp": seccomp.profile(os.uname().machine)}
        ) as name:
            compiled = base64.b64encode(await asyncio.to_thread(tasks.compiled_filter, name)).decode()
        given = {FILTER: compiled}
        async with _created(tasks, cgroup_parent, ["/bin/sleep", str(TRIAL_S)], annotations=given) as name:
            tasks.let_go(name)
            ended = await tasks.exec_(name, ["/bin/sh", "-c", _FILTERED], TRIAL_S / 2)
    except (errors.ContainerdError, TimeoutError, OSError) as error:
        log.info("filter of system calls is compiled for each instance", error=str(error))
        return ""
    return compiled if compiled and ended == 0 else ""


@asynccontextmanager
async def _created(
    tasks: Tasks,
    cgroup_parent: str,
    args: Sequence[str],
    *,
    filtered: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """The name of a container of this machine's files whose task waits to be started; deleted afterwards. `filtered`: more of "linux".
    Raises ContainerdError, TimeoutError."""
    name = f"{TRIAL}{short_id()}"
    spec = _spec(name, cgroup_parent, args)
    spec["linux"] |= filtered or {}
    spec["annotations"] = dict(annotations or {})
    try:
        async with asyncio.timeout(TRIAL_S):
            mounts = await tasks.prepare(name, "")
            for place in ("dev", "proc", "tmp", "bin", "lib", "lib64", "usr"):  # crun insists on the first, gVisor on all
                os.mkdir(os.path.join(mounts[0].source, place))
            await tasks.create_container(name, {}, spec)
            await tasks.create_task(name, "", "")
            yield name
    finally:
        async with asyncio.timeout(TRIAL_S):
            try:
                await tasks.end(name)
                await tasks.delete_task(name)
            finally:
                await tasks.delete_container(name)


def _spec(name: str, cgroup_parent: str, args: Sequence[str]) -> dict[str, Any]:
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
            "args": list(args),
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
