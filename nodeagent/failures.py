"""What went wrong with an instance, in words for people: reason, the value, the limit, the cure. Pure."""

import re
import signal
from collections.abc import Sequence

from store.model import Failure, Revision

TAIL_LINES = 20
_NOT_FOUND = re.compile(
    r"executable file.{0,80}not found|no such file or directory|cannot find executable|not found in \$PATH", re.I
)
_DENIED = re.compile(r"permission denied|not executable|exec format error", re.I)


def start_failed(said: str, argv: Sequence[str]) -> Failure:
    """The OCI runtime refused to create or start `argv`."""
    command = argv[0] if argv else ""
    if "exec format error" in said.lower():
        message = (
            f"command {command!r} is not a program for this machine (exec format error): build the image for its architecture"
        )
    elif _NOT_FOUND.search(said):
        message = f"command {command!r} not found in the image; check the image's entrypoint and the service's command ({said})"
    elif _DENIED.search(said):
        message = f"command {command!r} may not be executed: {said}"
    else:
        message = f"command {command!r}: {said}"
    return Failure(reason="StartFailed", message=message)


def exited(code: int, oom: bool, revision: Revision | None, log_tail: list[str], at: float) -> Failure:
    """The first process ended by itself."""
    reason, message = _exit_words(code, oom, revision)
    return Failure(reason=reason, message=message, exit_code=code, log_tail=log_tail, at=at)


def _exit_words(code: int, oom: bool, revision: Revision | None) -> tuple[str, str]:
    if oom:
        limit = revision.memory_limit_bytes if revision else 0
        words = f"its limit of {size(limit)}" if limit else "this machine's memory"
        return "OOMKilled", f"killed because it used more memory than {words}; raise resources.limits.memory or use less"
    if 128 < code <= 128 + 64:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = f"signal {code - 128}"
        return "Signal", f"killed by {name} (exit code {code})"
    why = (
        "ended by itself with exit code 0; a service must keep running and listen" if code == 0 else f"exited with code {code}"
    )
    return f"ExitCode{code}", why


def size(count: int) -> str:
    """Bytes as people write them: `64Mi`."""
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if count >= factor and count % factor == 0:
            return f"{count // factor}{unit}"
    return f"{count} bytes"


def task_lost(why: str) -> Failure:
    return Failure(
        reason="TaskLost", message=f"its task is gone from containerd ({why}); its shim was killed, or the machine restarted"
    )
