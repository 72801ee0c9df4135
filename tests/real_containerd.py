"""A real, private containerd for tests, in a mount namespace of its own; stopped with its shims, nothing is left.

    async with private_containerd(tmp_path) as real:
        engine = Containerd(real.socket)

`tmp_path` must be short: a unix socket's path has at most 107 bytes.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from deploy import containerd_config

START_S = 20.0


class RealContainerd:
    """One containerd. `socket` is its address; data outlives `kill()` and `restart()`."""

    def __init__(self, root: Path, run: Path, disk_bytes: int = 0) -> None:
        self._disk_bytes = disk_bytes
        self.root = root
        self.run = run
        self._config = containerd_config.write(root, run)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.run / "containerd.sock")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait for its socket. Raises RuntimeError with the end of its log."""
        shims = shlex.quote(str(self.run / "shims"))
        script = (
            "if [ -e /sys/fs/cgroup/unified/cgroup.controllers ]; then umount /sys/fs/cgroup/unified; fi; "
            f"mkdir -p {shims} /run/containerd && mount --bind {shims} /run/containerd && {self._disk()}"
            f"exec containerd --config {shlex.quote(str(self._config))}"
        )
        # setpriv rather than preexec_fn: that one would fork, which a process with gRPC must not do.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        with (self.root / "log").open("ab") as log:
            self._process = _spawn(argv, log)
        until = time.monotonic() + START_S
        while not await _listens(self.socket):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"containerd did not start; its log ends:\n{(self.root / 'log').read_text()[-2000:]}")
            await asyncio.sleep(0.02)

    def _disk(self) -> str:
        if not self._disk_bytes:
            return ""
        data = shlex.quote(str(self.root / "data"))
        return f"mkdir -p {data} && mount -t tmpfs -o size={self._disk_bytes} tmpfs {data} && "

    async def restart(self) -> None:
        """Kill -9 and start again on the same data; its containers run on."""
        self.kill()
        await self.start()

    def kill(self) -> None:
        """SIGKILL, at once; containers run on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it and everything it runs."""
        self._end(signal.SIGTERM)
        for pid in self.shims():
            with contextlib.suppress(ProcessLookupError):
                for child in _children(pid):
                    os.kill(child, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while self.shims() and time.monotonic() < until:
            time.sleep(0.01)

    def shims(self) -> list[int]:
        """Pids of its shims."""
        mine = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    argv = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"containerd-shim" in argv[0] and self.socket.encode() in argv:
                        mine.append(int(entry.name))
        return mine

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process = None


def _spawn(argv: list[str], log: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def _listens(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def private_containerd(tmp: Path | None = None, disk_bytes: int = 0) -> AsyncIterator[RealContainerd]:
    """A running containerd in a short-lived folder (in `tmp`); everything is gone afterwards.

    `disk_bytes`: its data are on a disk of that size, seen by itself alone.
    """
    home = Path(tempfile.mkdtemp(prefix="ebb-ctd-", dir=tmp))
    real = RealContainerd(home / "root", home / "run", disk_bytes)
    try:
        await real.start()
        yield real
    finally:
        real.stop()
        shutil.rmtree(home, ignore_errors=True)
