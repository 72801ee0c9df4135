"""containerd's shims that serve nothing: one whose first create was cut off by an agent's death stays, empty, for ever."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from nodeagent.tasks import STOPPED, Found
from process import pids


def end_empty(socket: str, found: Iterable[Found]) -> int:
    """Kill the shims of the containerd at `socket` that are older than this process and have none to look after; how many.

    None while a task of `found` has stopped: its shim has no process either, and still knows how that ended.
    """
    me = pids.identify(os.getpid())
    if me is None or any(each.status == STOPPED for each in found):
        return 0
    ours, busy = [], set()
    for pid in pids.everyone():
        busy.add(_parent(pid))
        argv = pids.command(pid)
        if argv and "containerd-shim" in argv[0] and socket in argv and (who := pids.identify(pid)) is not None:
            ours.append(who)
    return sum(pids.send(who, signal.SIGKILL) for who in ours if who.pid not in busy and who.ticks < me.ticks)


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[1])
