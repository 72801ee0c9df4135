"""What the instances on this node use, for people and for `ebb top`."""

from collections.abc import Iterable

from nodeagent import cgroups
from nodeagent.cgroups import Mode, Usage


def of_instances(mode: Mode, parent: str, instances: Iterable[str]) -> dict[str, Usage]:
    """By instance; those without a cgroup are left out."""
    found = {}
    for instance in instances:
        used = cgroups.usage(mode, f"{parent}/{instance}")
        if used is not None:
            found[instance] = used
    return found
