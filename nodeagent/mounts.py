"""Mounts that no directory shows: made, mapped and put together by descriptor alone, over the kernel's newer mount calls.

A detached mount is named by its descriptor (`/proc/<pid>/fd/<n>`). Whoever is given that name may mount it, or an overlay over it, in
any mount namespace; when the last descriptor and the last mount made of it are gone, the kernel frees it. So what an agent loses in a
crash is not there any more. All functions block; they raise OSError whose text says what could not be done.
"""

import ctypes
import os
from collections.abc import Mapping

AT_EMPTY_PATH, AT_RECURSIVE, AT_FDCWD = 0x1000, 0x8000, -100
_OPEN_TREE_CLONE, _O_CLOEXEC = 1, os.O_CLOEXEC
_ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 0x2, 0x4, 0x100000
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
# The numbers are those of every architecture: calls of Linux 5.2 and later are numbered alike.
_OPEN_TREE, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 430, 431, 432, 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def clone(path: str) -> int:
    """A detached copy of the mount at `path`, that directory and what is below on the same file system."""
    return _call("copy the mount of " + path, _OPEN_TREE, AT_FDCWD, path.encode(), _OPEN_TREE_CLONE | _O_CLOEXEC)


def map_ids(mount: int, namespace: int) -> None:
    """Show the files of a detached mount as owned through `namespace`'s map: 0 on the disk is the map's first id, and so on."""
    attr = _MountAttr(_ATTR_IDMAP, 0, 0, namespace)
    _call("map the owners of a mount", _MOUNT_SETATTR, mount, b"", AT_EMPTY_PATH, ctypes.byref(attr), ctypes.sizeof(attr))


def new(kind: str, options: Mapping[str, str], flags: tuple[str, ...] = ()) -> int:
    """A new file system of `kind`, mounted nowhere: its descriptor. Devices and set-user-id programs in it work as its mounts let them."""
    context = _call(f"open a file system of kind {kind}", _FSOPEN, kind.encode(), 1)
    try:
        for flag in flags:
            _call(f"set {flag} of {kind}", _FSCONFIG, context, _SET_FLAG, flag.encode(), None, 0)
        for name, value in options.items():
            _call(f"set {name}={value} of {kind}", _FSCONFIG, context, _SET_STRING, name.encode(), value.encode(), 0)
        _call(f"make a {kind} ({', '.join(options.values())})", _FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return _call(f"mount a {kind}", _FSMOUNT, context, 1, _ATTR_NODEV)
    finally:
        os.close(context)


def _call(what: str, number: int, *arguments: object) -> int:
    ctypes.set_errno(0)
    result = int(_libc.syscall(ctypes.c_long(number), *(_long(argument) for argument in arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot {what}: {os.strerror(code)}")
    return result


def _long(argument: object) -> object:
    # A Python int goes as a C int, which leaves the upper half of a register to chance.
    return ctypes.c_long(argument) if isinstance(argument, int) else argument
