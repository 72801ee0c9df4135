"""Every instance there is or shall be, by revision, and what each node holds: the autoscaler's view of the world.

Fed with changes of `assignments/`, `instances/` and `nodes/`, in any order and as often as they come; a decision that is on
its way into the store is entered at once (`put` with store_rev 0) and taken back when it was refused.
"""

from collections.abc import Callable, Iterable, Mapping, ValuesView
from dataclasses import dataclass

from autoscaler.need import Need
from autoscaler.placement import Placement
from autoscaler.policy import Standing
from autoscaler.shares import Shares
from store.lifecycle import ENDED, Phase
from store.model import Assignment, Goal, Instance, Node, RevisionKey

NONE = Standing()
_RESTING = frozenset({Goal.PARK, Goal.FREEZE})
_UNSTARTED = frozenset({Phase.PENDING, Phase.PULLING, Phase.PARKED})


@dataclass(slots=True)
class Slot:
    """One assignment with what its node says of it."""

    assignment: Assignment
    store_rev: int
    """Of the assignment's key; 0 while it is on its way into the store."""
    need: Need
    status: Instance | None = None
    held: tuple[Need, str] | None = None
    """As what it counts for its project; None when it does not."""

    @property
    def name(self) -> str:
        return self.assignment.instance

    @property
    def node(self) -> str:
        return self.assignment.node

    @property
    def goal(self) -> str:
        return self.assignment.goal

    @property
    def phase(self) -> Phase:
        return self.status.phase if self.status is not None else Phase.PENDING

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def started(self) -> bool:
        return self.phase not in _UNSTARTED and not self.ended

    @property
    def ended(self) -> bool:
        return self.status is not None and self.status.phase in ENDED


class Fleet:
    """`need` says what an instance of a revision takes; it is asked once an instance and goal."""

    def __init__(self, need: Callable[[RevisionKey], Need]) -> None:
        self.placement = Placement()
        self.shares = Shares(self.placement)
        self._need = need
        self._revisions: dict[RevisionKey, dict[str, Slot]] = {}
        self._slots: dict[str, Slot] = {}
        self._by_node: dict[str, dict[str, Slot]] = {}
        """In the order in which they came, so that what is decided of them is the same in every process."""
        self._resting: dict[str, dict[str, Slot]] = {}
        self._frozen: dict[str, dict[str, Slot]] = {}
        """By project."""
        self._early: dict[str, dict[str, Instance]] = {}
        """By node: what it said of instances that are not known to be assigned yet."""
        self._nodes: dict[str, Node] = {}
        self._away: dict[str, float] = {}

    # -- what there is --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, instance: str) -> Slot | None:
        return self._slots.get(instance)

    def of(self, revision: RevisionKey) -> ValuesView[Slot]:
        """All slots of `revision`."""
        return self._revisions.get(revision, {}).values()

    def on(self, node: str) -> list[Slot]:
        """All slots of `node`."""
        return list(self._by_node.get(node, {}).values())

    def resting(self, node: str) -> list[Slot]:
        """Slots of `node` that only wait to be woken: parked and frozen ones."""
        return [slot for slot in self._resting.get(node, {}).values() if not slot.ended]

    def frozen(self, project: str) -> list[Slot]:
        """Slots of the project that are, or are being, frozen."""
        return [slot for slot in self._frozen.get(project, {}).values() if not slot.ended]

    def revisions(self) -> Iterable[RevisionKey]:
        """Revisions that have any slot."""
        return self._revisions.keys()

    def alive(self, node: str) -> bool:
        return node in self._nodes

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes

    @property
    def away(self) -> Mapping[str, float]:
        """Nodes that instances are assigned to and that are not there, and since when (the clock of `now`)."""
        return self._away

    def running(self, revision: RevisionKey) -> list[Slot]:
        """Slots that run or shall run, on nodes that are there, and have not ended."""
        slots = self._revisions.get(revision)
        if slots is None:
            return []
        nodes = self._nodes
        return [
            slot
            for slot in slots.values()
            if (given := slot.assignment).goal == Goal.RUN
            and given.node in nodes
            and ((status := slot.status) is None or status.phase not in ENDED)
        ]

    def standing(self, revision: RevisionKey) -> Standing:
        """How many of them are ready, and how many are on their way."""
        running = self.running(revision)
        if not running:
            return NONE
        ready = 0
        for slot in running:
            ready += slot.status is not None and slot.status.phase is Phase.READY
        return Standing(ready, len(running) - ready)

    # -- what changes ---------------------------------------------------------------------------------------------------------

    def put(self, assignment: Assignment, store_rev: int) -> None:
        """The assignment is in the store at `store_rev`, or with 0 on its way there. An older word than what is known is ignored."""
        slot = self._slots.get(assignment.instance)
        if slot is None:
            slot = Slot(assignment, store_rev, self._needs(assignment), self._early_word(assignment))
            self._slots[slot.name] = slot
            self._revisions.setdefault(assignment.revision_key, {})[slot.name] = slot
            self._by_node.setdefault(slot.node, {})[slot.name] = slot
            self.placement.take(slot.node, slot.need)
            self._note(slot)
            return
        if store_rev and store_rev <= slot.store_rev:
            return
        self._turn(slot, assignment)
        slot.store_rev = store_rev or slot.store_rev

    def restore(self, assignment: Assignment) -> None:
        """Take back a change that was entered and then refused by the store."""
        slot = self._slots.get(assignment.instance)
        if slot is not None:
            self._turn(slot, assignment)

    def refresh(self, revision: RevisionKey) -> None:
        """The revision became known, after instances of it were."""
        for slot in self.of(revision):
            self._turn(slot, slot.assignment)

    def _turn(self, slot: Slot, assignment: Assignment) -> None:
        need = self._needs(assignment)
        if need != slot.need:
            self.placement.give(slot.node, slot.need)
            self.placement.take(slot.node, need)
            slot.need = need
        slot.assignment = assignment
        self._note(slot)

    def _note(self, slot: Slot) -> None:
        """Whether it rests, and what it counts for its project."""
        self._hold(slot)
        resting = self._resting.setdefault(slot.node, {})
        if slot.goal in _RESTING:
            resting[slot.name] = slot
        else:
            resting.pop(slot.name, None)
        project = slot.assignment.project
        if slot.goal == Goal.FREEZE:
            self._frozen.setdefault(project, {})[slot.name] = slot
        else:
            self._thawed(project, slot.name)

    def _thawed(self, project: str, instance: str) -> None:
        frozen = self._frozen.get(project)
        if frozen is not None and frozen.pop(instance, None) is not None and not frozen:
            del self._frozen[project]

    def _hold(self, slot: Slot, *, gone: bool = False) -> None:
        """Its project holds it, unless it has ended."""
        held = None if gone or slot.ended else (slot.need, slot.goal)
        if held == slot.held:
            return
        if slot.held is not None:
            self.shares.hold(*slot.held, -1)
        if held is not None:
            self.shares.hold(*held, 1)
        slot.held = held

    def remove(self, instance: str) -> None:
        """The assignment is gone."""
        slot = self._slots.pop(instance, None)
        if slot is None:
            return
        self._hold(slot, gone=True)
        self.placement.give(slot.node, slot.need)
        self._resting[slot.node].pop(instance, None)
        self._thawed(slot.assignment.project, instance)
        of_revision = self._revisions[slot.assignment.revision_key]
        del of_revision[instance]
        if not of_revision:
            del self._revisions[slot.assignment.revision_key]
        on_node = self._by_node[slot.node]
        on_node.pop(instance, None)
        if not on_node:
            del self._by_node[slot.node], self._resting[slot.node]
            self._away.pop(slot.node, None)

    def report(self, status: Instance) -> bool:
        """A node says something of an instance. False when something newer is known already, or it is not for that node to say."""
        slot = self._slots.get(status.instance)
        if slot is None:
            early = self._early.setdefault(status.node, {})
            known = early.get(status.instance)
            if known is None or known.seq < status.seq:
                if len(early) >= 10_000:
                    early.clear()
                early[status.instance] = status
            return False
        if not _given(slot.assignment, status):
            return False
        if slot.status is not None and status.seq <= slot.status.seq:
            return False
        slot.status = status
        self._hold(slot)
        return True

    def _early_word(self, assignment: Assignment) -> Instance | None:
        """What its node said of an instance before it was known to be assigned."""
        said = self._early.get(assignment.node, {}).pop(assignment.instance, None)
        return said if said is not None and _given(assignment, said) else None

    def unreport(self, status: Instance) -> None:
        """The node's word on the instance is gone: its lease ended, or it forgot the instance."""
        self._early.get(status.node, {}).pop(status.instance, None)
        slot = self._slots.get(status.instance)
        if slot is not None and _given(slot.assignment, status):
            slot.status = None
            self._hold(slot)

    def set_node(self, node: Node) -> None:
        self._nodes[node.node] = node
        self._away.pop(node.node, None)
        self.placement.set_node(node)

    def drop_node(self, name: str, now: float) -> None:
        self._nodes.pop(name, None)
        self.placement.drop_node(name)
        if self._by_node.get(name):
            self._away.setdefault(name, now)

    def notice_away(self, now: float) -> None:
        """Start the clock for nodes that have assignments and were never seen (after a restart)."""
        for name in self._by_node:
            if name not in self._nodes:
                self._away.setdefault(name, now)

    def need(self, revision: RevisionKey) -> Need:
        """What one more instance of the revision takes."""
        return self._need(revision)

    def _needs(self, assignment: Assignment) -> Need:
        need = self._need(assignment.revision_key)
        return need.parked() if assignment.goal == Goal.PARK else need.frozen() if assignment.goal == Goal.FREEZE else need


def _given(assignment: Assignment, status: Instance) -> bool:
    """Whether who says this was given the instance, and as what it says."""
    return assignment.node == status.node and assignment.revision_key == status.revision_key
