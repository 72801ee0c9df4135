"""What an engine may leave behind when it was killed, how it is found and removed: only ever things of this engine's own.

Ours by name or place: processes whose socket is under our run directory, cgroups `ebb-<id>`, interfaces and the nftables
table with our id, mounts under our directories.
"""

import contextlib
import ctypes
import ctypes.util
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from deploy import handover
from deploy.settings import Engine
from process import pids

CGROUPS = Path("/sys/fs/cgroup")


def shims(engine: Engine) -> list[pids.Pid]:
    """containerd's shims that serve this engine's containerd."""
    socket = str(engine.containerd_socket)
    found = []
    for pid in pids.everyone():
        argv = pids.command(pid)
        if argv and "containerd-shim" in argv[0] and socket in argv and (who := pids.identify(pid)) is not None:
            found.append(who)
    return found


def cgroups(engine: Engine) -> list[Path]:
    """Every cgroup of this engine, deepest first, in each hierarchy (v1) or in the one (v2)."""
    roots = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())]
    found: list[Path] = []
    for root in roots:
        top = root / f"ebb-{engine.id}"
        if top.is_dir():
            found += [Path(where) for where, _, _ in os.walk(top, topdown=False)]
    return found


def mounts(engine: Engine) -> list[str]:
    """Mount points under our directories that this mount namespace sees, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in lines]
    ours = tuple(f"{where}/" for where in (engine.root, engine.run))
    return sorted((point for point in points if point.startswith(ours)), key=len, reverse=True)


def interfaces(engine: Engine) -> list[str]:
    """The engine's network interfaces in this namespace: `<id>-<number>`."""
    own = re.compile(re.escape(engine.id) + r"-[0-9a-f]+")
    return sorted(name for name in os.listdir("/sys/class/net") if own.fullmatch(name))


def tables(engine: Engine) -> list[str]:
    """The engine's nftables tables as `family name`."""
    listed, _ = _nft("list tables")
    return [line[6:] for line in listed.splitlines() if line.endswith(f" ebb_{engine.id}")]


def find(engine: Engine) -> list[str]:
    """What is left of a stopped engine, a line each; empty when nothing is."""
    return [
        *(f"process {who.pid} ({' '.join(pids.command(who.pid))[:80]})" for who in shims(engine)),
        *(f"cgroup {path}" for path in cgroups(engine)),
        *(f"mount {point}" for point in mounts(engine)),
        *(f"interface {name}" for name in interfaces(engine)),
        *(f"nftables table {name}" for name in tables(engine)),
    ]


def remove(engine: Engine) -> list[str]:
    """Remove what is left of a stopped engine (none of its own processes runs any more). Returns what could not be."""
    _kill_until_gone(engine)
    for point in mounts(engine):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True, timeout=30)
    for path in cgroups(engine):
        _rmdir(path)
    for name in interfaces(engine):
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True, timeout=30)
    for name in tables(engine):
        _nft(f"delete table {name}")
    handover.end(Path(engine.run))
    # /run/containerd stays, empty: removing it would take away what another engine has mounted there in its own namespace.
    if not shims(engine) and not mounts(engine):
        shutil.rmtree(engine.containerd_socket.parent, ignore_errors=True)
    return find(engine)


def _kill_until_gone(engine: Engine, timeout_s: float = 10) -> None:
    """The containers' processes by their cgroup, then the shims by pid, until none is left."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        _thaw(engine)
        doomed = [*_members(engine), *shims(engine)]
        if not doomed:
            return
        for who in doomed:
            pids.send(who, signal.SIGKILL)
        time.sleep(0.05)


def _thaw(engine: Engine) -> None:
    """What is frozen by cgroup v1 dies only when it is thawed."""
    for path in cgroups(engine):
        for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with contextlib.suppress(OSError):
                if (path / name).exists():
                    (path / name).write_text(word)


def _members(engine: Engine) -> list[pids.Pid]:
    found = set()
    for path in cgroups(engine):
        try:
            listed = (path / "cgroup.procs").read_text().split()
        except OSError:
            continue
        found |= {who for pid in listed if (who := pids.identify(int(pid))) is not None}
    return list(found)


def _rmdir(path: Path) -> None:
    """Remove an empty directory; a cgroup stays busy for a moment after its last process."""
    for _ in range(20):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if not str(path).startswith(str(CGROUPS)):
                return
            time.sleep(0.02)
        else:
            return


def _nft(command: str) -> tuple[str, str]:
    """Run one nftables command through libnftables: what it printed, and its errors."""
    name = ctypes.util.find_library("nftables") or "libnftables.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        return "", str(error)
    library.nft_ctx_new.restype = ctypes.c_void_p
    for function in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, function).restype = ctypes.c_char_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_run_cmd_from_buffer(context, command.encode())
        output = library.nft_ctx_get_output_buffer(context) or b""
        errors = library.nft_ctx_get_error_buffer(context) or b""
        return output.decode(), errors.decode()
    finally:
        library.nft_ctx_free(context)
