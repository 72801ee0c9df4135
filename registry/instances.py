"""The instances there are: of what nodes say, that which is about what they were given.

A node that was taken over could otherwise have any revision shown as Ready, and hold up one whose name is used again.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from store import assigned, keys
from store.backend import Store
from store.model import Assignment, Instance, RevisionKey
from store.watch import Table


class Instances:
    """Tables of what nodes say and of what they were given. `changed(new, old)` is called when an instance is another, of one
    revision; None: there is none."""

    def __init__(self, store: Store, changed: Callable[[Instance | None, Instance | None], None]) -> None:
        self._changed = changed
        self._said = Table(store, keys.INSTANCES, Instance, self._on_said)
        self._given = Table(store, keys.ASSIGNMENTS, Assignment, self._on_given, slim=assigned.kept)
        self._true: dict[str, Instance] = {}
        self._of: dict[RevisionKey, dict[str, Instance]] = defaultdict(dict)

    def tables(self) -> dict[str, Table[Any]]:
        """To be run, by name."""
        return {"instances": self._said, "assignments": self._given}

    def all(self) -> Collection[Instance]:
        """A live view."""
        return self._true.values()

    def of(self, revision: RevisionKey) -> Sequence[Instance]:
        return tuple(self._of.get(revision, {}).values())

    def _on_said(self, key: str, new: Instance | None, _: Instance | None) -> None:
        node, name = keys.tail(key, keys.INSTANCES)
        self._hear(key, new, self._given.get(keys.assignment(node, name)))

    def _on_given(self, key: str, new: Assignment | None, old: Assignment | None) -> None:
        """`old` is what was kept of it. Most changes are of the goal alone, which says nothing here."""
        if new is None or old is None or assigned.kept(new) != old:
            node, name = keys.tail(key, keys.ASSIGNMENTS)
            own = keys.instance(node, name)
            self._hear(own, self._said.get(own), new)

    def _hear(self, key: str, said: Instance | None, given: Assignment | None) -> None:
        new, old = assigned.about(key, said), self._true.get(key)
        if new is None or given is None or not assigned.vouches(given, new):
            new = None
        elif new.service != given.service:  # Whose it is, is not for its node to say.
            new = msgspec.structs.replace(new, service=given.service)
        if old is not None and (new is None or new.revision_key != old.revision_key):
            del self._true[key], self._of[old.revision_key][key]
            if not self._of[old.revision_key]:
                del self._of[old.revision_key]
            self._changed(None, old)
            old = None
        if new is not None:
            self._true[key] = self._of[new.revision_key][key] = new
            self._changed(new, old)
