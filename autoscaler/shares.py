"""What each project holds of the cluster, its quota of it, and who goes first when there is too little for all. Pure, incremental.

A quota bounds instances, CPU and memory by request, of instances that run, drain or are frozen; a frozen one takes its memory alone, a
parked one nothing: it is Ebb's own preparation. A quota of 0 is no limit.

Where nodes are full, projects compete: what a project holds is its larger share of memory and of places, divided by its weight
(dominant resource fairness). One that found no room is remembered with what it needs; another that holds more than it does not take
room which that one fits into, so what becomes free goes to who is furthest below its part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.need import Need, mebibytes
from autoscaler.placement import Placement
from store.model import Goal, RevisionKey
from store.projects import Quota

NO_QUOTA = Quota()
_NOTHING = (0, 0, 0)


def project_of(revision: RevisionKey) -> str:
    """`shop` of `shop/cart-00001`."""
    return revision.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Wanting:
    """A project's revision that found no room, and what one instance of it needs."""

    revision: RevisionKey
    need: Need


class Shares:
    """What projects hold. `placement` knows how much there is in all."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._quotas: dict[str, tuple[Quota, int]] = {}
        """Quota and weight of projects that have other than the usual."""
        self._held: dict[str, tuple[int, int, int]] = {}
        """(instances, cpu_m, memory_bytes) by project."""
        self._wanting: dict[str, Wanting] = {}
        """One revision of each project that found no room when it was last looked at."""

    def know(self, project: str, quota: Quota = NO_QUOTA, weight: int = 1) -> None:
        """The project's quota and weight from now on."""
        self._quotas[project] = quota, max(1, weight)
        if self._quotas[project] == (NO_QUOTA, 1):
            del self._quotas[project]

    def hold(self, need: Need, goal: str, by: int) -> None:
        """One instance more (`by` 1) or less (−1) with that goal."""
        project, holds = project_of(need.revision), _holds(need, goal)
        if holds == _NOTHING:
            return
        instances, cpu_m, memory = self._held.get(project, _NOTHING)
        held = instances + by * holds[0], cpu_m + by * holds[1], memory + by * holds[2]
        if held == _NOTHING:
            self._held.pop(project, None)
        else:
            self._held[project] = held

    def held(self, project: str) -> tuple[int, int, int]:
        """(instances, cpu_m, memory_bytes) of the project."""
        return self._held.get(project, _NOTHING)

    def everything(self) -> Mapping[str, tuple[int, int, int]]:
        """The same of all projects that hold any."""
        return self._held

    def over(self, need: Need, goal: str, instead: tuple[Need, str] | None = None, freed_bytes: int = 0) -> str:
        """Why the project may not have one more with that goal, `instead` of one it has; empty when it may."""
        project = project_of(need.revision)
        quota = self._quotas.get(project, (NO_QUOTA, 1))[0]
        if quota is NO_QUOTA:
            return ""
        before = _holds(*instead) if instead is not None else _NOTHING
        instances, cpu_m, memory = (a - b for a, b in zip(self.held(project), before, strict=True))
        more, most = _holds(need, goal), (quota.instances, quota.cpu_m, quota.memory_bytes)
        if most[0] and more[0] and instances + more[0] > most[0]:
            return f"project {project} is at its quota of {most[0]} instances"
        if most[1] and more[1] and cpu_m + more[1] > most[1]:
            return f"project {project} is at its quota of {most[1]}m of CPU: {cpu_m}m are taken, one more needs {more[1]}m"
        if most[2] and more[2] and memory - freed_bytes + more[2] > most[2]:
            return (
                f"project {project} is at its quota of {mebibytes(most[2])} of memory: {mebibytes(memory - freed_bytes)} are taken, "
                f"one more needs {mebibytes(more[2])}"
            )
        return ""

    # -- who goes first ---------------------------------------------------------------------------------------------------------

    def part(self, project: str, more: Need | None = None) -> float:
        """What the project holds (with one `more`) of all there is, by weight: the larger of memory and places."""
        instances, _, memory = self.held(project)
        if more is not None:
            instances, memory = instances + 1, memory + more.memory_bytes
        all_memory, all_slots = self._placement.capacity
        return max(memory / max(1, all_memory), instances / max(1, all_slots)) / self._quotas.get(project, (NO_QUOTA, 1))[1]

    def wants(self, need: Need) -> None:
        """No node had room for it."""
        self._wanting[project_of(need.revision)] = Wanting(need.revision, need)

    def content(self, revision: RevisionKey) -> None:
        """The revision has, or needs, no more room."""
        wanting = self._wanting.get(project_of(revision))
        if wanting is not None and wanting.revision == revision:
            del self._wanting[project_of(revision)]

    def first(self, need: Need, node: str) -> Wanting | None:
        """Who should have the room for `need` on `node` sooner: of another project that would hold less, with one more, than this one."""
        if not self._wanting:
            return None
        project = project_of(need.revision)
        mine = self.part(project, need)
        found = [
            (part, other, wanting)
            for other, wanting in self._wanting.items()
            if other != project and (part := self.part(other, wanting.need)) < mine and self._placement.fits(node, wanting.need)
        ]
        return min(found, key=lambda each: each[:2])[2] if found else None


def _holds(need: Need, goal: str) -> tuple[int, int, int]:
    """What counts of an instance with that goal."""
    if goal == Goal.PARK:
        return _NOTHING
    return (0, 0, need.memory_bytes) if goal == Goal.FREEZE else (1, need.cpu_m, need.memory_bytes)
