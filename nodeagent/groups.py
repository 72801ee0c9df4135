"""Which instances share a shim. Pure.

A shim (13 MB, and some 20 ms to start) may serve several tasks; when it dies they all die. So a shim serves instances of one
project only, and at most `bound` of them: fifty idle services cost five shims, not fifty. A shim creates one task at a time: in a
burst, up to `width` groups are filled side by side. A group that ran empty is never joined again: its shim is about to end.
"""

import hashlib
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Group:
    name: str
    members: set[str] = field(default_factory=set)
    creating: set[str] = field(default_factory=set)
    """Members whose task is not created yet."""
    broken: bool = False


class Groups:
    """Hands out group names: the value of the annotation that containerd's shim groups by."""

    def __init__(self, bound: int = 10, width: int = 3) -> None:
        assert bound >= 1, f"a shim serves at least one task, not {bound}"
        assert width >= 1, f"at least one group is filled at a time, not {width}"
        self._bound = bound
        self._width = width
        self._of: dict[str, tuple[str, _Group]] = {}
        self._by_project: dict[str, list[_Group]] = {}

    def join(self, project: str, instance: str) -> str:
        """The group that `instance` belongs to from now on; the same one when asked again."""
        known = self._of.get(instance)
        if known is not None:
            return known[1].name
        room = [group for group in self._by_project.get(project, ()) if not group.broken and len(group.members) < self._bound]
        best = min(room, key=lambda group: len(group.creating), default=None)
        if best is None or (best.creating and len(room) < self._width):
            digest = hashlib.sha256(project.encode()).hexdigest()[:10]
            name, taken = f"{digest}-{instance}", {group.name for group in self._by_project.get(project, ())}
            while name in taken:  # of who had this name before, and whose mates are still there
                name += "-2"
            best = _Group(name)
            self._by_project.setdefault(project, []).append(best)
        self._add(best, project, instance)
        best.creating.add(instance)
        return best.name

    def settled_mate(self, instance: str) -> str:
        """Another one of its group whose task is created, or empty: the shim runs."""
        known = self._of.get(instance)
        if known is None or known[1].broken:
            return ""
        return min(known[1].members - known[1].creating - {instance}, default="")

    def settled(self, instance: str) -> None:
        """The task of `instance` is created."""
        if instance in self._of:
            self._of[instance][1].creating.discard(instance)

    def adopt(self, project: str, instance: str, name: str) -> None:
        """`instance` was found in the group called `name` after a restart of the agent."""
        if instance in self._of:
            return
        groups = self._by_project.setdefault(project, [])
        group = next((group for group in groups if group.name == name), None)
        if group is None:
            group = _Group(name)
            groups.append(group)
        self._add(group, project, instance)

    def leave(self, instance: str) -> None:
        """`instance` is about to be deleted. Nothing happens when it is in no group."""
        project, group = self._of.pop(instance, ("", None))
        if group is None:
            return
        group.members.discard(instance)
        group.creating.discard(instance)
        if not group.members:
            groups = self._by_project[project]
            groups.remove(group)
            if not groups:
                del self._by_project[project]

    def broken(self, instance: str) -> None:
        """The shim of `instance`'s group misbehaves: nobody joins it any more."""
        if instance in self._of:
            self._of[instance][1].broken = True

    def _add(self, group: _Group, project: str, instance: str) -> None:
        group.members.add(instance)
        self._of[instance] = (project, group)
