"""Programs that tests start.

By `subprocess` and never by the event loop: uvloop forks, and then gRPC's fork handlers run in the child, which may crash before it is
the program. What `subprocess` does (vfork) runs no handler.
"""

import asyncio
import subprocess
from collections.abc import Sequence
from typing import IO, Any


class Child:
    """One program that runs. Stop it by `terminate` or `kill`, then `wait`."""

    def __init__(self, argv: Sequence[str], **how: Any) -> None:
        self._process = subprocess.Popen(argv, **how)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._process.stdout

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    async def wait(self, timeout_s: float = 15) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        code = await asyncio.to_thread(self._process.wait, timeout_s)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


async def output(*argv: str, data: bytes = b"", timeout_s: float = 30) -> bytes:
    """What a program prints that reads `data`. Raises CalledProcessError when it fails."""
    done = await asyncio.to_thread(subprocess.run, argv, input=data, stdout=subprocess.PIPE, check=True, timeout=timeout_s)
    return done.stdout
