"""Runs a program as a user of its own, who need not be in /etc/passwd, with no right but those that are named.

It comes to the directories that it needs wherever they are. Where one lies below a directory that only its owner enters (/root, a home
of mode 0700), the program gets a mount namespace in which that directory holds nothing else.
"""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class User:
    """Who a program runs as: `uid`, the group of the same number, further `groups`; `no_new_privs` always."""

    uid: int
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    """All that it can ever have, and has from the start: `net_bind_service`."""
    reaches: tuple[str, ...] = ()
    """Directories that it has to come to. What may be read or written in them, their files' modes say."""
    staging: str = "/mnt"
    """A directory, made when it is not there, at which a namespace is put together; nothing is left in it."""


def command(argv: Sequence[str], user: User) -> list[str]:
    """What to start (as root) so that `argv` runs as `user`; in the end it has the process's place, and /proc shows `argv`."""
    rights = ",".join(["-all", *(f"+{name}" for name in user.capabilities)])
    groups = f"--groups={','.join(map(str, user.groups))}" if user.groups else "--clear-groups"
    words = ["setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", groups, "--no-new-privs"]
    words += [f"--{kind}={rights}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    words += ["--", *argv]
    closed = behind_closed(user.reaches)
    if not closed:
        return words
    # What is unmounted outside goes in here too: nobody's disk is kept busy.
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", _script(closed, user.staging), "sh", *words]


def behind_closed(reaches: Iterable[str]) -> dict[str, list[str]]:
    """The topmost directories that others do not enter → which of `reaches` are below them."""
    found: dict[str, list[str]] = {}
    for path in _outermost(path for each in reaches for path in (os.path.abspath(each), os.path.realpath(each))):
        closed = [str(above) for above in reversed(Path(path).parents) if not above.stat().st_mode & 0o001]
        if closed:
            found.setdefault(closed[0], []).append(path)
    return found


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == above or path.startswith(above + "/") for above in kept):
            kept.append(path)
    return kept


def _script(closed: dict[str, list[str]], staging: str) -> str:
    """Each closed directory is covered by an empty one that all may enter, with what is needed below it at its place."""
    at = shlex.quote(staging)
    lines = [f"was=$(umask); umask 022; mkdir -p {at}"]
    for top, paths in closed.items():
        lines.append(f"mount -t tmpfs -o mode=0755,size=64k,nosuid,nodev,noexec ebb {at}")
        for path in paths:
            there = shlex.quote(staging + path.removeprefix(top))
            lines.append(f"mkdir -p {there}; mount --bind {shlex.quote(path)} {there}")
        lines.append(f"mount --move {at} {shlex.quote(top)}")
    return "\n".join([*lines, 'umask "$was"; exec "$@"'])
