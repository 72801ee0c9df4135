"""Whether this machine has too little memory left for instances that only wait. The text of the kernel's files comes in. Pure."""

STALLED = 10.0
"""Percent of the last ten seconds in which some process waited for memory (PSI `some avg10`): above, the node is pressed."""
CALM = 2.0
"""Below, it is well again."""
SPARE = 0.05
"""Share of the machine's memory: with less available it is pressed, however little anybody waits yet."""


def stalled(psi: str) -> float:
    """`avg10` of the line `some` of a `memory.pressure` file; 0 when there is none."""
    for line in psi.splitlines():
        kind, *pairs = line.split()
        if kind == "some":
            return next((float(pair[6:]) for pair in pairs if pair.startswith("avg10=")), 0.0)
    return 0.0


def available(meminfo: str) -> tuple[int, int]:
    """(available, total) bytes of `/proc/meminfo`."""
    found = {line.partition(":")[0]: int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.endswith("kB")}
    return found.get("MemAvailable", 0), found.get("MemTotal", 0)


def pressed(psi: str, meminfo: str, before: str) -> str:
    """Why the node is pressed, or empty. `before` is the last answer: a node that was pressed is so until it is calm."""
    waits, (free, total) = stalled(psi), available(meminfo)
    if waits >= (CALM if before else STALLED):
        return f"memory pressure: processes waited for memory {waits:.0f} % of the last 10 s"
    spare = SPARE * (1.5 if before else 1)
    if total and free < spare * total:
        return f"memory pressure: {free >> 20} MiB of {total >> 20} MiB available"
    return ""
