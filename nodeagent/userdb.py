"""Who an instance runs as: a user by name or number, looked up inside the image and nowhere else.

    view = RootfsView(layers_of(mounts))           # or RootfsView([rootfs])
    user = resolve(text, view.read("etc/passwd"), view.read("etc/group"))

`resolve` is pure. `RootfsView` reads one file out of stacked image layers without mounting them: every step of a path is opened
relative to the layer and without following links, so that no link in an image leads out of it.
"""

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HIGHEST_ID = (1 << 31) - 1
"""Runtimes keep ids in 32 bits with a sign: one above wraps around, and has made root of nobody before."""
LARGEST_FILE_BYTES = 1 << 20
_MOST_LINKS = 40
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


class BadUser(ValueError):
    """The user cannot be resolved; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    """Numbers for the kernel. `home` is empty when the image does not say."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = ""


def resolve(text: str, passwd: str = "", group: str = "") -> ResolvedUser:
    """The user meant by `name|uid[:group|gid]`; empty is root. Raises BadUser.

    As everybody does: without a group, it is the user's own by passwd (0 for an unknown number), and the groups that list the
    user by name are added; with one, none are.
    """
    user_text, colon, group_text = text.strip().partition(":")
    users = [row for row in _rows(passwd) if len(row) >= 4]
    groups = [row for row in _rows(group) if len(row) >= 3]
    user_text = user_text or "0"
    if user_text.isascii() and user_text.isdigit():
        uid = _number(user_text, text)
        row = next((row for row in users if row[2] == str(uid)), None)
    else:
        row = next((row for row in users if row[0] == user_text), None)
        if row is None:
            raise BadUser(f"user {user_text!r} is not in the image's /etc/passwd; use a number, or a name that is")
        uid = _number(row[2], text)
    gid = _number(row[3], text) if row else 0
    home = row[5] if row and len(row) >= 6 else ""
    if colon and group_text:
        return ResolvedUser(uid, _group(group_text, groups, text), (), home)
    extra = {_number(entry[2], text) for entry in groups if row and len(entry) >= 4 and row[0] in entry[3].split(",")}
    return ResolvedUser(uid, gid, tuple(sorted(extra - {gid})), home)


def _group(name: str, groups: Sequence[list[str]], whole: str) -> int:
    if name.isascii() and name.isdigit():
        return _number(name, whole)
    row = next((row for row in groups if row[0] == name), None)
    if row is None:
        raise BadUser(f"group {name!r} is not in the image's /etc/group; use a number, or a name that is")
    return _number(row[2], whole)


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > HIGHEST_ID:
        raise BadUser(f"user {whole!r}: id {text!r} is not a number from 0 to {HIGHEST_ID}")
    return int(text)


def _rows(text: str) -> Iterable[list[str]]:
    return (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))


def layers_of(kind: str, source: str, options: Sequence[str]) -> list[str]:
    """The directories of a containerd mount, topmost first. `kind` is overlay or bind."""
    if kind != "overlay":
        return [source]
    upper = [option.removeprefix("upperdir=") for option in options if option.startswith("upperdir=")]
    lower = [option.removeprefix("lowerdir=") for option in options if option.startswith("lowerdir=")]
    return upper + [directory for option in lower for directory in option.split(":")]


class RootfsView:
    """Files of stacked layers, topmost first, as the container will see them."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = tuple(layers)

    def read(self, path: str) -> str:
        """The file's text; empty when there is none. Raises BadUser for one that is too large or no regular file."""
        waiting = [part for part in reversed(path.split("/")) if part]
        seen: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del seen[-1:]
                continue
            target = self._link([*seen, part])
            if target is None:
                seen.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise BadUser(f"/{path} in the image leads through more than {_MOST_LINKS} links")
            if target.startswith("/"):
                seen.clear()
            waiting += reversed(target.split("/"))
        return self._content(seen)

    def _link(self, parts: list[str]) -> str | None:
        for parent in self._directories(parts[:-1]):
            try:
                found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    return os.readlink(parts[-1], dir_fd=parent)
            except OSError:
                continue
            finally:
                os.close(parent)
            return None
        return None

    def _content(self, parts: list[str]) -> str:
        for parent in self._directories(parts[:-1]):
            try:
                # O_NONBLOCK: opening a pipe must not wait for its writer.
                file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue
                return ""  # a whiteout, or what is not for reading
            finally:
                os.close(parent)
            with os.fdopen(file, "rb") as content:
                kind = os.fstat(file).st_mode
                if not stat.S_ISREG(kind):
                    return ""
                data = content.read(LARGEST_FILE_BYTES + 1)
            if len(data) > LARGEST_FILE_BYTES:
                raise BadUser(f"/{'/'.join(parts)} in the image is larger than {LARGEST_FILE_BYTES} bytes")
            return data.decode(errors="replace")
        return ""

    def _directories(self, parts: list[str]) -> Iterable[int]:
        """This directory in every layer that shows it, topmost first, as descriptors that the caller closes."""
        for layer in self._layers:
            here = _open_directory(layer, None)
            hides = False
            for part in parts:
                inner = _open_directory(part, here)
                if inner < 0:
                    hides = hides or _exists(part, here)  # a file or whiteout in the directory's place
                    os.close(here)
                    here = -1
                    break
                os.close(here)
                here = inner
                hides = hides or _opaque(here)
            if here >= 0:
                yield here
            if hides:
                return


def _open_directory(name: str, parent: int | None) -> int:
    try:
        return os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if parent is None else os.O_NOFOLLOW), dir_fd=parent
        )
    except OSError:
        if parent is None:
            raise
        return -1


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def _opaque(directory: int) -> bool:
    for attribute in _OPAQUE:
        try:
            if os.getxattr(directory, attribute) == b"y":
                return True
        except OSError:
            continue
    return False
