"""Which instances share a shim. Pure.

A shim (13 MB, and some 20 ms to start) may serve several tasks; when it dies they all die. So a shim serves instances of one
revision only, and at most `bound` of them. A group that ran empty is never joined again: its shim is about to end.
"""

import hashlib


class Groups:
    """Hands out group names: the value of the annotation ANNOTATION."""

    ANNOTATION = "io.containerd.runc.v2.group"

    def __init__(self, bound: int = 10) -> None:
        assert bound >= 1, f"a shim serves at least one task, not {bound}"
        self._bound = bound
        self._members: dict[str, set[str]] = {}
        self._of: dict[str, str] = {}
        self._settled: set[str] = set()
        self._by_revision: dict[str, list[str]] = {}

    def join(self, revision: str, instance: str) -> str:
        """The group that `instance` belongs to from now on; the same one when asked again."""
        known = self._of.get(instance)
        if known is not None:
            return known
        for group in self._by_revision.get(revision, ()):
            # One whose first task is still being created has no shim to join yet: two would race to start it.
            if group in self._settled and len(self._members[group]) < self._bound:
                return self._add(group, revision, instance)
        digest = hashlib.sha256(revision.encode()).hexdigest()[:10]
        return self._add(f"{digest}-{instance}", revision, instance)

    def settled(self, instance: str) -> None:
        """The task of `instance` is created: its group has a shim."""
        if instance in self._of:
            self._settled.add(self._of[instance])

    def adopt(self, revision: str, instance: str, group: str) -> None:
        """`instance` was found in `group` after a restart of the agent."""
        if instance not in self._of:
            self._add(group, revision, instance)
            self._settled.add(group)

    def leave(self, revision: str, instance: str) -> None:
        """`instance` is about to be deleted. Nothing happens when it is in no group."""
        group = self._of.pop(instance, None)
        if group is None:
            return
        members = self._members[group]
        members.discard(instance)
        if not members:
            del self._members[group]
            self._settled.discard(group)
            groups = self._by_revision[revision]
            groups.remove(group)
            if not groups:
                del self._by_revision[revision]

    def broken(self, instance: str) -> None:
        """The shim of `instance`'s group misbehaves: nobody joins it any more."""
        self._settled.discard(self._of.get(instance, ""))

    def _add(self, group: str, revision: str, instance: str) -> str:
        if group not in self._members:
            self._members[group] = set()
            self._by_revision.setdefault(revision, []).append(group)
        self._members[group].add(instance)
        self._of[instance] = group
        return group
