"""gVisor on this node: `runsc` behind containerd's runc shim, found out by running a container with it.

The shim takes any program that is called as runc is. runsc is called through a two-line script, since the shim passes no flags:
the instance's network namespace is its own already, so gVisor uses that network stack (`--network=host`) and its firewall holds. The
system-call filter is kept inside as well (`--oci-seccomp`), so that an app meets the same refusals as elsewhere.
"""

import shutil
from pathlib import Path

from nodeagent import runtime
from nodeagent.containerd import errors
from nodeagent.containerd.client import Containerd
from process import logs

PLATFORMS = ("systrap", "ptrace")
"""How gVisor catches system calls, the quicker first; which ones there are is a matter of its age."""

log = logs.get("runtime")


async def find(containerd: Containerd, root: Path, cgroup_parent: str) -> str:
    """The program to give the shim, written into `root`; empty when runsc is not installed or does not work here."""
    runsc = shutil.which("runsc") or shutil.which("runsc", path="/usr/sbin:/usr/local/sbin:/usr/local/bin")
    if runsc is None:
        return ""
    for platform in PLATFORMS:
        script = root / f"runsc-{platform}"
        script.write_text(f'#!/bin/sh\nexec "{runsc}" --platform={platform} --network=host --oci-seccomp "$@"\n')
        script.chmod(0o755)
        try:
            await runtime.try_out(containerd, str(script), cgroup_parent)
        except (errors.ContainerdError, TimeoutError) as error:
            log.info("gVisor does not work here this way", platform=platform, error=str(error))
            script.unlink()
            continue
        log.info("gVisor works here", platform=platform)
        return str(script)
    return ""
