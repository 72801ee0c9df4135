"""The root of an instance: its image's layers as its project's ids see them, and on top of them what it may write.

    laid = lay(mount, namespace, first_id, limit, directory)      # what containerd is to mount, instead of `mount`
    …                                                             # it mounts it
    laid.close()

The layers are not copied: each is shown through an idmapped mount. None of the mounts made here is attached anywhere.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nodeagent import disks, mounts
from nodeagent.profiles import Writable
from nodeagent.userdb import layers_of


class Mount(Protocol):
    """A containerd mount."""

    @property
    def type(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def options(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Overlay:
    """A mount as containerd takes it."""

    options: tuple[str, ...]
    type: str = "overlay"
    source: str = "overlay"


@dataclass(slots=True)
class Laid:
    """`mount` stands as long as it is not closed; what was mounted of it stays."""

    mount: Overlay = Overlay(())
    held: list[int] = field(default_factory=list)

    def close(self) -> None:
        while self.held:
            os.close(self.held.pop())


def lay(mount: Mount, namespace: int, first_id: int, limit: Writable, directory: Path) -> Laid:
    """The root that `mount` describes, fenced. `namespace` < 0: ids stay as they are. Raises OSError; then nothing is left."""
    laid, lowers = Laid(), lower_layers(mount)
    try:
        paths = list(lowers)
        if namespace >= 0:
            for number, layer in enumerate(lowers):
                laid.held.append(mounts.clone(layer))
                mounts.map_ids(laid.held[-1], namespace)
                paths[number] = _path(laid.held[-1])
        laid.held.append(disks.make(limit, directory))
        top = _path(laid.held[-1])
        _furnish(top, lowers[0], first_id)
        laid.mount = Overlay((f"lowerdir={':'.join(paths)}", f"upperdir={top}/upper", f"workdir={top}/work", *_kept(mount)))
    except BaseException:
        laid.close()
        raise
    return laid


def lower_layers(mount: Mount) -> list[str]:
    """The image's directories, topmost first."""
    upper = upper_of(mount.options)
    return [layer for layer in layers_of(mount.type, mount.source, mount.options) if layer != upper]


def upper_of(options: Sequence[str]) -> str | None:
    """The writable directory among an overlay mount's options."""
    return next((option.removeprefix("upperdir=") for option in options if option.startswith("upperdir=")), None)


def furnish(upper: str, first_id: int = 0) -> None:
    """Make /tmp in a writable directory, before it is mounted. An image's own /tmp keeps its files below."""
    path = os.path.join(upper, "tmp")
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    os.chmod(path, 0o1777)
    os.chown(path, first_id, first_id)


def usable(directory: Path, namespace: int) -> str:
    """Why roots cannot be made so on this machine, for directories like `directory`; empty when they can."""
    trial = Overlay((f"lowerdir={directory}",))
    try:
        laid = lay(trial, namespace, 0, Writable(1 << 20, 64), directory)
        try:
            os.close(mounts.new("overlay", dict(option.split("=", 1) for option in laid.mount.options)))
        finally:
            laid.close()
    except OSError as error:
        return str(error)
    return ""


def _furnish(top: str, image: str, first_id: int) -> None:
    # The owner must be right before the overlay is mounted; a root looks as the image's topmost layer says.
    found = os.stat(image)
    for name in ("upper", "work"):
        path = os.path.join(top, name)
        os.mkdir(path)
        os.chmod(path, stat.S_IMODE(found.st_mode))
        os.chown(path, first_id + found.st_uid, first_id + found.st_gid)
    furnish(os.path.join(top, "upper"), first_id)


def _kept(mount: Mount) -> list[str]:
    return [option for option in mount.options if not option.startswith(("lowerdir=", "upperdir=", "workdir=", "ro", "rw"))]


def _path(descriptor: int) -> str:
    return f"/proc/{os.getpid()}/fd/{descriptor}"
