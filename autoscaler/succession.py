"""Taking over at once from a leader that died on this very machine, instead of waiting for its lease to run out.

A member's name says which process it is: boot, pid namespace, pid and the pid's start. Whoever shares boot and namespace can see
whether that process is still there; anybody else waits for the lease as always.
"""

import os
from pathlib import Path

from process import logs
from process.pids import Pid, alive, identify
from store import keys
from store.backend import Store
from store.errors import Conflict, Unavailable
from store.txn import Delete, Guard, Txn

log = logs.get("autoscaler")


def identity() -> str:
    """This process, as nobody else on any machine is called: `boot.namespace.pid.start`."""
    own = identify(os.getpid())
    assert own is not None, "a process that runs has a start time"
    return f"{_here()}.{own.pid}.{own.ticks}"


def is_dead(member: str) -> bool:
    """Whether `member` is a process that ran in this boot and pid namespace and is gone. False when that cannot be told."""
    rest, _, started = member.rpartition(".")
    here, _, pid = rest.rpartition(".")
    return here == _here() and pid.isdigit() and started.isdigit() and not alive(Pid(int(pid), int(started)))


async def bury(store: Store, election: str) -> bool:
    """Remove the leader of `election` when it is dead for certain; whether it was."""
    key = keys.election(election)
    try:
        entry = await store.get(key)
        if entry is None or not is_dead(entry.value.decode(errors="replace")):
            return False
        await store.commit(Txn((Guard(key, entry.store_rev),), (Delete(key),), f"the leader of {election} is dead"))
    except (Conflict, Unavailable):
        return False
    log.info("the last leader died on this machine; not waiting for its lease", election=election)
    return True


def _here() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
