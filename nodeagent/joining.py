"""The program that containerd runs for each task instead of its shim's: it spares what would only be told what is known.

containerd runs the shim's program once to begin with a task and once more when the task is deleted. Of ten tasks that share a shim, nine
are merely told the address of the one that runs, and a deletion that went well leaves nothing to clean up: yet each time a Go program of
10 MB starts, for some 8 ms of CPU. The script answers these two cases itself, in 1 ms, and hands everything else to the shim's own.

An instance that is given Secrets as variables has its whole spec in memory (`Volumes.hide`), and containerd knows one without them. The
script puts a link to the whole one where the OCI runtime reads it.

A shim gets a mount namespace of its own, where its ten instances' roots are mounted: for every create all mounts in sight are read some
ten times, and copied.

What it knows lies in `<instances>/<instance>/shim`: the address that the shim's program gave for this instance; an instance that joins a
settled one is given the same file. When the shim behind it died, the create fails, the file is forgotten and the next try asks the program.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from nodeagent.waiting import STATE

SHIM = "containerd-shim-runc-v2"

_ALONE = "unshare --mount --propagation slave -- "
_SCRIPT = r"""#!/bin/sh
# Ebb: run by containerd for every task, in the task's bundle; see nodeagent/joining.py
before= id= namespace=
for word; do
    case $before in -id) id=$word ;; -namespace) namespace=$word ;; esac
    before=$word
done
known="@INSTANCES@/$id/shim"
case $before in
start)
    [ -f "@HIDDEN@/$id/config.json" ] && ln -sf "@HIDDEN@/$id/config.json" config.json
    if [ -f "$known" ] && read -r address <"$known" && [ -S "${address#unix://}" ]; then
        printf %s "$address" >address
        printf %s "$address"
        exit
    fi
    address=$(@ALONE@"@SHIM@" "$@") || exit
    case $address in
    unix://*) [ -d "@INSTANCES@/$id" ] && printf '%s\n' "$address" >"$known" ;;
    esac
    printf %s "$address"
    exit
    ;;
delete)
    # A DeleteResponse: exit_status 137, exited_at 1970. containerd asks of what it has deleted already.
    if [ ! -d "@STATE@/$namespace/$id" ]; then
        printf '\020\211\001\032\002\010\001'
        exit
    fi
    ;;
esac
exec "@SHIM@" "$@"
"""


class Joining:
    """Writes the script into `root`; `instances` and `hidden` have a directory for each instance."""

    def __init__(self, root: Path, instances: Path, hidden: Path) -> None:
        self._root, self._instances, self._hidden = root, instances, hidden
        self.works = False
        """Whether containerd is given the script."""

    def program(self) -> str:
        """The script's path for containerd; empty when the shim's own is not found. Raises OSError."""
        shim = shutil.which(SHIM) or shutil.which(SHIM, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        if shim is None or any(mark in f"{self._instances}{self._hidden}{shim}" for mark in '"$`\\'):
            return ""
        script = self._root / "shim"
        new = script.with_suffix(".new")
        alone = _ALONE if os.geteuid() == 0 and shutil.which("unshare") else ""
        names = {"INSTANCES": self._instances, "HIDDEN": self._hidden, "SHIM": shim, "STATE": STATE, "ALONE": alone}
        text = _SCRIPT
        for name, path in names.items():
            text = text.replace(f"@{name}@", str(path))
        new.write_text(text)
        new.chmod(0o755)
        new.replace(script)  # containerd may be running the old one
        self.works = True
        return str(script)

    def join(self, instance: str, other: str) -> None:
        """`instance` is to be served by the shim of `other`. Does nothing when that one's address is not known."""
        with suppress(OSError):
            os.link(self._instances / other / "shim", self._instances / instance / "shim")

    def forget(self, instance: str) -> None:
        """Its shim is gone, or it is."""
        (self._instances / instance / "shim").unlink(missing_ok=True)
