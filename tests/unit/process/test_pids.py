"""What the kernel is told of processes."""

import os
import platform
import re
import subprocess
from pathlib import Path

from process import pids

LINUX = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])


def slice_ns(pid: int) -> int:
    found = re.search(r"^se\.slice\s*:\s*(\d+)", Path(f"/proc/{pid}/sched").read_text(), re.M)
    assert found is not None
    return int(found[1])


def test_who_is_prompt_has_short_slices_and_so_has_what_it_starts_and_its_priority_stays() -> None:
    shell = subprocess.Popen(["sh", "-c", "read go; sleep 100 & echo $!; wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shell.stdin is not None
    assert shell.stdout is not None
    child = 0
    # An older kernel gives all processes slices of one length.
    want = pids.SLICE_NS if LINUX >= (6, 12) else slice_ns(shell.pid)
    try:
        os.setpriority(os.PRIO_PROCESS, shell.pid, 3)
        pids.be_prompt(shell.pid)
        shell.stdin.write(b"go\n")
        shell.stdin.flush()
        child = int(shell.stdout.readline())
        for pid in (shell.pid, child):
            assert slice_ns(pid) == want
            assert os.getpriority(os.PRIO_PROCESS, pid) == 3
    finally:
        if child:
            os.kill(child, 9)
        shell.kill()
        shell.communicate()


def test_who_has_ended_is_not_told() -> None:
    pids.be_prompt(1 << 22)
