"""A plan as one guarded transaction, and what became of it."""

from collections.abc import Sequence

from autoscaler.plan import Plan
from store import keys
from store.backend import Entry
from store.model import Revision, Scale, encode
from store.txn import Delete, Guard, Put, Txn

WRITES = 120
"""Of etcd's limit of 128 operations."""


def transaction(
    plan: Plan, revision: Revision, revision_rev: int, scale: tuple[Scale, Entry | None] | None, leader: Sequence[Guard]
) -> Txn:
    """`plan`, with the new `scale` (and the entry it replaces) when that changes. Cuts the plan's deletions to what fits in one."""
    guards: list[Guard] = list(leader)
    writes: list[Put | Delete] = []
    if scale is not None:
        new, old = scale
        key = keys.scale(revision.project, revision.name)
        guards.append(Guard(key, old.store_rev if old is not None else 0))
        writes.append(Put(key, encode(new, old.value if old is not None else None)))
    if plan.placed:
        guards.append(Guard(keys.revision(revision.project, revision.name), revision_rev))
    for assignment, before in plan.puts:
        key = keys.assignment(assignment.node, assignment.instance)
        guards.append(Guard(key, before))
        writes.append(Put(key, encode(assignment)))
    del plan.deletes[max(0, WRITES - len(writes)) :]
    for slot in plan.deletes:
        key = keys.assignment(slot.node, slot.name)
        guards.append(Guard(key, slot.store_rev))
        writes.append(Delete(key))
    return Txn(tuple(guards), tuple(writes), f"scale {revision.key}")


def removal(revision: str, scale: Entry | None, assignments: Sequence[tuple[str, str]], leader: Sequence[Guard]) -> Txn:
    """Everything of a revision that is gone: scale, habits and (node, instance) of its assignments, as much as one write takes."""
    writes: list[Put | Delete] = [Delete(keys.assignment(node, name)) for node, name in assignments[:WRITES]]
    if scale is not None and len(assignments) <= WRITES:
        writes += [Delete(scale.key), Delete(keys.habits(revision))]
    return Txn(tuple(leader), tuple(writes), f"revision {revision} is deleted")
