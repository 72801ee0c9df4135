"""Whose the files of an all-in-one engine are. Its processes but the node agent and containerd run as users of their own
(`Engine.uid`), and each comes to no more than it needs; an engine whose files were root's, or others', is given to them at its start.

What several use stays root's, with a group that reads: a process cannot put something else into the place of it.
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from deploy.settings import USERS, Engine
from process.identity import OWN


def settle(engine: Engine) -> None:
    """Give what is under --root and --run to who uses it; what is right already costs a look. Blocking. Raises OSError."""
    root = Path(engine.root)
    registry = engine.uid("registry")
    for where, owner in ((root / "etcd", "etcd"), (root / "registry", "registry"), (engine.peers, "ingress")):
        where.mkdir(mode=0o700, exist_ok=True)
        _tree(where, engine.uid(owner))
    _own(root / "identity", 0, 0, 0o711)
    for role in USERS:
        _own(engine.identity(role), 0, engine.uid(role), 0o750)
        _own(engine.identity(role) / OWN, engine.uid(role), engine.uid(role), 0o600)
    _own(engine.identity("gate") / "revoked", 0, engine.uid("gate"), 0o640)
    _own(engine.nats_config.parent, 0, engine.uid("nats"), 0o750)
    _own(engine.nats_config, engine.uid("nats"), engine.uid("nats"), 0o600)
    # The registry adds keys of Secrets, by putting a new file into the old one's place; of others' files it can move none (sticky).
    _own(engine.secret_keys.parent, 0, registry, 0o1771 if registry else 0o700)
    for path in (engine.secret_keys, engine.identity_keys, engine.local_ca_key, engine.admin_token):
        _own(path, registry, registry, 0o600)
    _own(engine.local_ca, 0, 0, 0o644)
    _own(engine.certificate_keys, 0, engine.sealers, 0o640 if registry else 0o600)
    _own(engine.given("x").parent, 0, registry, 0o750)


def copy(source: str, target: Path) -> None:
    """Copy what was named on the command line to where its reader comes to it. Raises OSError."""
    target.parent.mkdir(mode=0o750, exist_ok=True)
    fresh = target.with_name(target.name + ".new")
    shutil.copyfile(source, fresh)
    fresh.chmod(0o644)
    fresh.replace(target)


def _own(path: Path, uid: int, gid: int, mode: int) -> None:
    """Without following a link that somebody put there, or changing a file that has another name elsewhere."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        why = "is a link: put the file itself there" if error.errno == errno.ELOOP else error.strerror
        raise OSError(error.errno, why, str(path)) from None
    try:
        now = os.fstat(fd)
        if not (stat.S_ISDIR(now.st_mode) or (stat.S_ISREG(now.st_mode) and now.st_nlink == 1)):
            raise OSError(errno.EEXIST, "is no file or directory, or a file with a second name: take it away", str(path))
        if (now.st_uid, now.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
        if stat.S_IMODE(now.st_mode) != mode:
            os.fchmod(fd, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)


def _tree(top: Path, uid: int) -> None:
    """All of it, once: `top` itself comes last, so that what was interrupted is done again."""
    if top.stat().st_uid == uid:
        return
    top = top.resolve()  # it may be a link to another disk: --root is root's own
    for _, directories, files, fd in os.fwalk(top, topdown=False):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)
    os.chown(top, uid, uid)
    top.chmod(0o700)
