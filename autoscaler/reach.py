"""Which revisions requests can come to: those that a route names by percent, by tag or as its mirror."""

from autoscaler.idle import Reach
from store.model import RevisionKey, RouteEntry


def named_by(entry: RouteEntry) -> frozenset[RevisionKey]:
    """The revisions that `entry` sends anything to. A tag's host sends all to one."""
    named = {target.revision for targets in entry.addresses.values() for target in targets if target.percent > 0}
    if entry.mirror is not None:
        named.add(entry.mirror.revision)
    return frozenset(f"{entry.project}/{revision}" for revision in named)


class Reachability:
    """Kept in step with `routes/`: which revisions are routed, which were."""

    def __init__(self) -> None:
        self._routes: dict[str, tuple[RevisionKey, ...]] = {}
        self._count: dict[RevisionKey, int] = {}
        self._were: set[RevisionKey] = set()

    def of(self, revision: RevisionKey) -> Reach:
        if revision in self._count:
            return Reach.ROUTED
        return Reach.UNROUTED if revision in self._were else Reach.PENDING

    def change(self, route: str, entry: RouteEntry | None) -> set[RevisionKey]:
        """`route` is now `entry` (None: deleted); the revisions whose reach changed."""
        before, after = frozenset(self._routes.get(route, ())), named_by(entry) if entry is not None else frozenset()
        if entry is None:
            self._routes.pop(route, None)
        else:
            self._routes[route] = tuple(after)
        changed: set[RevisionKey] = set()
        for revision in after - before:
            self._count[revision] = self._count.get(revision, 0) + 1
            if self._count[revision] == 1:
                changed.add(revision)
        for revision in before - after:
            self._count[revision] -= 1
            if not self._count[revision]:
                del self._count[revision]
                self._were.add(revision)
                changed.add(revision)
        return changed

    def forget(self, revision: RevisionKey) -> None:
        """The revision is deleted."""
        self._were.discard(revision)
