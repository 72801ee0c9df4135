"""Which ids of the machine belong to which project: ranges of 65,536, each allotted once. Pure.

A project keeps its range as long as it has instances on the node, and after that for as long as nobody needs it: no id is ever in two
hands. When all are held, the project that was given its range first among those without instances loses it.
"""

from collections.abc import Mapping, Set

from nodeagent.profiles import IDS

FIRST_ID = 0x7000_0000
"""Beyond what Debian, systemd and Podman give to people, services and containers."""
MOST = 4093
"""Ranges from FIRST_ID to where systemd has ids of its own again."""


class Exhausted(Exception):
    """No range is left; the message says how many there are, and the cure."""


def allot(held: Mapping[str, int], project: str, busy: Set[str], first_id: int = FIRST_ID, most: int = MOST) -> dict[str, int]:
    """`held` (project → first id, in order of allotment) with `project` in it. `busy`: projects that have instances. Raises Exhausted."""
    if project in held:
        return dict(held)
    found, taken = dict(held), set(held.values())
    ids = next((each for each in range(first_id, first_id + most * IDS, IDS) if not _meets(each, taken)), None)
    if ids is None:
        idle = next((name for name, ids in held.items() if name not in busy and _ours(ids, first_id, most)), None)
        if idle is None:
            raise Exhausted(
                f"no ids for project {project}: all {most} ranges of {IDS} from {first_id} belong to projects with instances here;"
                " raise --id-ranges, or place the project elsewhere"
            )
        ids = found.pop(idle)
    found[project] = ids
    return found


def _meets(ids: int, taken: Set[int]) -> bool:
    """Whether the range at `ids` overlaps one of `taken`, which may come from another `first_id`."""
    return ids in taken or any(abs(ids - other) < IDS for other in taken if (other - ids) % IDS)


def _ours(ids: int, first_id: int, most: int) -> bool:
    return first_id <= ids < first_id + most * IDS and (ids - first_id) % IDS == 0
