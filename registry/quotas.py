"""How much a project has of what is limited by number: services, revisions, domains, bytes of Secrets; and whether one more fits.

Counted from what the registry watches, and from what it has just written itself, so that two creations at the same time cannot
both be the last one. Another replica of the registry sees such a one a moment later.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from registry.objects import DOMAIN_MAPPING, REVISION, SERVICE, Object
from store import keys
from store.projects import Quota

COUNTED = {SERVICE.plural: "services", REVISION.plural: "revisions", DOMAIN_MAPPING.plural: "domains"}


class OverQuota(Exception):
    """One more does not fit; `what` is the quota's field."""

    def __init__(self, project: str, what: str, limit: int, has: int) -> None:
        super().__init__(f"{what} of project {project}: limited to {limit}, there are {has}")
        self.project, self.what, self.limit, self.has = project, what, limit, has


def unasked(quota: Quota, template: Object) -> list[str]:
    """What the quota bounds of an instance's share and the template's container names neither as request nor as limit: it would count
    as nothing."""
    resources = template["spec"]["containers"][0].get("resources", {})
    named = {*resources.get("requests", {}), *resources.get("limits", {})}
    bounded = {"cpu": quota.cpu_m, "memory": quota.memory_bytes}
    return [what for what, most in bounded.items() if most and what not in named]


class Counts:
    """`quota(project)` gives the limits."""

    def __init__(self, quota: Callable[[str], Quota]) -> None:
        self._quota = quota
        self._there: dict[str, Counter[str]] = {}
        self._sizes: dict[str, int] = {}
        self._coming: dict[str, tuple[str, str, int]] = {}
        """Keys that are being written: project, field, how much."""

    def seen(self, key: str, new: int, old: int) -> None:
        """An object's key was made, changed or deleted: how much it counts now, and counted before."""
        where = self._where(key)
        if where is not None:
            project, what = where
            self._there.setdefault(project, Counter())[what] += new - old
            self._coming.pop(key, None)

    def sized(self, key: str, size_bytes: int) -> None:
        """The same for a Secret, whose size before is remembered here."""
        self.seen(key, size_bytes, self._sizes.pop(key, 0))
        if size_bytes:
            self._sizes[key] = size_bytes

    def check(self, project: str, what: str) -> None:
        """Whether one more is within the limit. Raises OverQuota."""
        limit, has = getattr(self._quota(project), what), self._there.get(project, Counter())[what]
        if limit and has >= limit:
            raise OverQuota(project, what, limit, has)

    def unasked(self, project: str, template: Object) -> list[str]:
        """`unasked` by the project's quota."""
        return unasked(self._quota(project), template)

    def has(self, project: str) -> dict[str, int]:
        """By field of the quota."""
        there = self._there.get(project, Counter())
        return {what: there[what] for what in (*COUNTED.values(), "secret_bytes")}

    def fits(self, key: str, amount: int = 1, less: int = 0) -> None:
        """Whether there is room for `key`, which stood for `less` before. Raises OverQuota."""
        where = self._where(key)
        if where is None:
            return
        project, what = where
        limit = getattr(self._quota(project), what)
        has = self._there.get(project, Counter())[what]
        has += sum(more for other, (p, w, more) in self._coming.items() if (p, w) == where and other != key)
        if limit and amount > less and has + amount - less > limit:
            raise OverQuota(project, what, limit, has)

    @contextmanager
    def room(self, key: str, amount: int = 1, less: int = 0) -> Iterator[None]:
        """A place for `key`, which is written inside the context, and stood for `less` before. Raises OverQuota."""
        self.fits(key, amount, less)
        where = self._where(key)
        if where is None:
            yield
            return
        self._coming[key] = (*where, amount - less)
        try:
            yield
        except BaseException:
            self._coming.pop(key, None)
            raise

    @staticmethod
    def _where(key: str) -> tuple[str, str] | None:
        if key.startswith(keys.OBJECTS):
            plural, project, _ = keys.tail(key, keys.OBJECTS)
            what = COUNTED.get(plural)
            return (project, what) if what else None
        if key.startswith(keys.SECRETS):
            return keys.tail(key, keys.SECRETS)[0], "secret_bytes"
        return None
