"""What must hold before an engine starts. Every refusal says what, the value, and the cure."""

import errno
import fcntl
import os
import resource
import shutil
import socket
import sys
from pathlib import Path

import msgspec

from deploy.components import CODE, NATS, environment
from deploy.settings import PORTS, USERS, Engine
from process import pids

FREE_BYTES = 256 * 2**20
BINARIES = ("etcd", "containerd", "containerd-shim-runc-v2", "unshare", "setpriv", "mount", "umount")


class Refused(Exception):
    """The engine cannot start (or stop) as things are; the message says what, the value, the cure."""


def root_user() -> None:
    """Raises Refused unless we are root."""
    if os.geteuid() != 0:
        raise Refused(f"needs root (namespaces, mounts, cgroups), but runs as user {os.geteuid()}; run it with sudo")


def open_files() -> None:
    """Let us and our children open as many files as we may: a connection is one, and so is an instance's network."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def binaries() -> None:
    """Raises Refused, naming every program that is missing."""
    path = environment()["PATH"]
    missing = [name for name in BINARIES if shutil.which(name, path=path) is None]
    if not any(shutil.which(name, path=path) for name in ("crun", "runc")):
        missing.append("runc")
    if not NATS.exists():
        missing.append(str(NATS))
    if missing:
        raise Refused(f"not installed: {', '.join(missing)} (PATH is {path}); install with: sudo deploy/install")


def users(engine: Engine) -> None:
    """Raises Refused unless processes can run as the users that they are to run as, and those can read our programs."""
    if engine.first_uid:
        for path in ("/proc/self/uid_map", "/proc/self/gid_map"):
            mapped(engine, Path(path).read_text())
        readable(CODE)


def mapped(engine: Engine, rows: str) -> None:
    """Raises Refused unless a user namespace with these rows (its own id, outside, how many) has the ids of our processes."""
    last = engine.first_uid + len(USERS)
    ranges = [[int(word) for word in row.split()] for row in rows.splitlines()]
    if not any(first <= engine.first_uid and last < first + count for first, _, count in ranges):
        raise Refused(
            f"--first-uid {engine.first_uid}: this user namespace has no ids {engine.first_uid}–{last}; "
            f"choose others with --first-uid N, or have all run as root with --first-uid 0"
        )


def readable(code: Path) -> None:
    """Raises Refused when who is not root could not run what is in `code`, Python, or NATS. A few files speak for all."""
    own = [path for name in ("process", "store", "ingress") for path in (code / name, code / name / "__init__.py")]
    for file in [code, *own, Path(sys.prefix), Path(msgspec.__file__), Path(sys.executable).resolve(), NATS]:
        mode = file.stat().st_mode & 0o777
        if not mode & 0o004 or (file.is_dir() and not mode & 0o001):
            top = sys.prefix if file.is_relative_to(sys.prefix) else code
            raise Refused(
                f"{file} can be read by root alone (mode {mode:o}), but not all of Ebb's processes are root; "
                f"run: chmod -R go+rX {top}; or have all run as root with --first-uid 0"
            )


def directory(flag: str, path: Path) -> None:
    """Make a directory of ours and prove by writing that it can be used. Raises Refused."""
    cure = f"choose another with {flag} DIR"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(bytes(65536))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        what = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "cannot be written"
        raise Refused(f"{flag} {path} {what}: {error.strerror or error}; free it or {cure}") from None


def room(flag: str, path: Path) -> None:
    """Raises Refused when there is too little room to store anything."""
    free = shutil.disk_usage(path).free
    if free < FREE_BYTES:
        raise Refused(
            f"{flag} {path} has {free >> 20} MiB free, at least {FREE_BYTES >> 20} MiB are needed; "
            f"free some or choose another with {flag} DIR"
        )


def lock(path: Path, flag: str) -> int:
    """Take the engine's lock; it is freed by the kernel when we end. Returns the descriptor to hold. Raises Refused."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "?"
        os.close(fd)
        raise Refused(
            f"an engine runs already with {flag} {path.parent} (pid {holder}): see it with `ebb status {flag} {path.parent}`, "
            f"stop it with `ebb down {flag} {path.parent}`; one beside it needs its own --root, --run, --http, --https, "
            f"--port-base, --id and --subnet"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def ports(engine: Engine, ours: set[int]) -> None:
    """Raises Refused, naming every port that somebody else has. `ours`: pids of this engine that may have them already."""
    taken = []
    wanted = []
    for flag, address in (("--http", engine.http), ("--https", engine.https), ("--api", engine.listen_api)):
        host, _, port = address.rpartition(":")
        if port.isdigit():
            wanted.append((f"{flag} {address}", host, int(port)))
    wanted += [(f"--port-base {engine.port_base}: {name}", "127.0.0.1", engine.port(name)) for name in PORTS
               if name != "api" or not engine.listen_api]  # fmt: skip
    numbers = range(1, engine.worker_count + 1)
    wanted += [(f"--port-base {engine.port_base}: ingress-{n + 1}", "127.0.0.1", engine.door_port(n)) for n in numbers]
    for what, host, number in wanted:
        error = _bind(host, number)
        if error is None:
            continue
        holder = _listener(number) if error.errno == errno.EADDRINUSE else None
        if holder in ours and holder is not None:
            continue
        who = f"in use by {Path(pids.command(holder)[0]).name} (pid {holder})" if holder else f"{error.strerror}"
        taken.append(f"port {number} ({what}) cannot be had: {who}")
    if taken:
        raise Refused(
            "\n".join(taken) + "\nstop who has it, or choose others: "
            "ebb up --http 0.0.0.0:PORT --https 0.0.0.0:PORT --port-base PORT"
        )


def _bind(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            return error
    return None


def _listener(port: int) -> int | None:
    """The pid that listens on `port`, if it can be found."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in pids.everyone():
        try:
            for fd in os.scandir(f"/proc/{pid}/fd"):
                if os.readlink(fd.path) in inodes:
                    return pid
        except OSError:
            continue
    return None
