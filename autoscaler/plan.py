"""From a wish for so many instances to what is written: which are woken, placed, frozen, drained, deleted, parked. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from autoscaler import parking, relief, victims
from autoscaler.fleet import Fleet, Slot
from autoscaler.need import Need
from autoscaler.shares import project_of
from store.lifecycle import ENDED, Phase
from store.model import Assignment, Goal, Revision, RevisionKey

AT_ONCE = 100
"""Writes a transaction takes at most: etcd's limit is 128, and the scale's key and guards come on top."""

OVER_QUOTA, NOT_ITS_TURN = "QuotaExceeded", "NotItsTurn"
"""Why an instance has no node, beside NoRoom and NoRuntime: its project may have no more, or room goes to another project first."""

_FREEZABLE = frozenset({Phase.READY, Phase.FROZEN})
_UNSTARTED = frozenset({Phase.PENDING, Phase.PULLING, Phase.PARKED})


@dataclass(slots=True)
class Plan:
    """What to write. `before` is the store_rev each key must have; 0: it must not exist."""

    puts: list[tuple[Assignment, int]] = field(default_factory=list)
    before: list[Assignment] = field(default_factory=list)
    """What the changed ones were, to be restored when the store refuses."""
    deletes: list[Slot] = field(default_factory=list)
    woken: int = 0
    placed: int = 0
    frozen: int = 0
    drained: int = 0
    unplaced: str = ""
    """Why some instance has no node."""
    unplaced_as: str = "NoRoom"
    first: RevisionKey = ""
    """Whose turn it is where there was room."""

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes)

    def revert(self, fleet: Fleet) -> None:
        """Take back from `fleet` what `make` entered."""
        for assignment, store_rev in self.puts:
            slot = fleet.get(assignment.instance)
            if not store_rev and slot is not None and not slot.store_rev:
                fleet.remove(assignment.instance)
        for assignment in self.before:
            fleet.restore(assignment)

    def commit(self, fleet: Fleet, store_rev: int) -> None:
        """The store took it at `store_rev`."""
        for assignment, _ in self.puts:
            fleet.put(assignment, store_rev)
        for slot in self.deletes:
            fleet.remove(slot.name)


class Wish(Struct, frozen=True):
    """What is wanted of one revision."""

    desired: int
    may_start: bool = True
    """False while failed starts are waited out."""
    park: bool = False
    freeze: bool = False
    """The last instance is frozen rather than drained."""
    lost: frozenset[str] = frozenset()
    """Nodes that are given up: what is assigned there is deleted."""
    cause_id: str = ""
    at: float = 0
    """Wall seconds."""


def make(
    revision: Revision,
    wish: Wish,
    fleet: Fleet,
    busy: Mapping[str, int],
    name: Callable[[str], str],
    worth: Callable[[Slot], float] = lambda _: 0.0,
) -> Plan:
    """The writes that bring `revision` from what stands to what is wished. `name` makes an instance's name from the revision's; `worth`
    says what a resting instance of another revision is worth, should one have to go.

    Everything planned is entered into `fleet` at once; `revert` takes it back.
    """
    plan = Plan()
    if _as_wished(revision, wish, fleet):
        fleet.shares.content(revision.key)
        return plan
    plan.deletes += [s for s in fleet.of(revision.key) if s.store_rev and (s.ended or s.node in wish.lost)][:AT_ONCE]
    running = fleet.running(revision.key)
    missing = wish.desired - len(running)
    if missing <= 0 or not wish.may_start:
        fleet.shares.content(revision.key)
    if missing > 0 and wish.may_start:
        _grow(revision, wish, missing, fleet, plan, name, worth)
    elif missing < 0:
        _shrink(wish, victims.pick(running, busy, -missing), fleet, plan)
    _one_frozen(revision, wish, fleet, plan)
    _park(revision, wish, fleet, plan, name)
    return plan


def _as_wished(revision: Revision, wish: Wish, fleet: Fleet) -> bool:
    """Whether all stands as it shall, as it mostly does: told in one look at what stands. False: it takes the whole plan to say."""
    running = parked = 0
    nodes, lost = fleet.nodes, wish.lost
    for slot in fleet.of(revision.key):
        given, status = slot.assignment, slot.status
        goal, node = given.goal, given.node
        if (status is not None and status.phase in ENDED) or goal == Goal.FREEZE or node not in nodes or node in lost:
            return False
        running += goal == Goal.RUN
        parked += goal == Goal.PARK
    return running == wish.desired and (parked == 1 if wish.park else not parked or wish.desired > 0)


def instance_name(revision: str, suffix: str) -> str:
    """`hello-00001-abc234`: at most 63 characters, fit for a host name."""
    return f"{revision[: 62 - len(suffix)].rstrip('-.')}-{suffix}"


def _grow(
    revision: Revision,
    wish: Wish,
    missing: int,
    fleet: Fleet,
    plan: Plan,
    name: Callable[[str], str],
    worth: Callable[[Slot], float],
) -> None:
    need, shares = fleet.need(revision.key), fleet.shares
    missing = min(missing, AT_ONCE)
    for slot in [*_frozen(fleet, revision), *_parked(fleet, revision)]:
        if missing == 0:
            break
        if slot.store_rev and fleet.placement.fits(slot.node, need, instead=slot.need):
            if _over(need, fleet, plan, worth, slot):
                return
            _turn(slot, Goal.RUN, wish, fleet, plan)
            plan.woken += 1
            missing -= 1
    for _ in range(missing):
        if _over(need, fleet, plan, worth):
            return
        node = fleet.placement.choose(need)
        ahead = shares.first(need, node) if node is not None else None
        if ahead is not None:
            plan.unplaced = f"the room on {node} is for {ahead.revision} first: its project holds less by its weight"
            plan.unplaced_as, plan.first = NOT_ITS_TURN, ahead.revision
            return
        node = node or _evict(fleet, need, revision, plan, worth)
        if node is None:
            plan.unplaced = fleet.placement.refusal(need)
            plan.unplaced_as = "NoRoom" if fleet.placement.can_run(need) else "NoRuntime"
            shares.wants(need)
            return
        _place(revision, node, Goal.RUN, wish, fleet, plan, name)
        plan.placed += 1
    shares.content(revision.key)


def _over(need: Need, fleet: Fleet, plan: Plan, worth: Callable[[Slot], float], woken: Slot | None = None) -> bool:
    """Whether its project's quota forbids one more; frozen instances of the project give way to what shall run."""
    shares, project = fleet.shares, project_of(need.revision)
    instead = (woken.need, woken.goal) if woken is not None else None
    freed = [slot for slot in plan.deletes if slot.goal == Goal.FREEZE and project_of(slot.assignment.revision_key) == project]
    while said := shares.over(need, Goal.RUN, instead, sum(slot.need.memory_bytes for slot in freed)):
        others = [slot for slot in fleet.frozen(project) if slot.store_rev and slot is not woken and slot not in freed]
        without = sum(slot.need.memory_bytes for slot in [*freed, *others])
        least = relief.least_worth(others, worth, 1)
        if not least or shares.over(need, Goal.RUN, instead, without):
            plan.unplaced, plan.unplaced_as = said, OVER_QUOTA
            shares.content(need.revision)
            return True
        plan.deletes.insert(0, least[0])
        freed.append(least[0])
    return False


def _parked(fleet: Fleet, revision: Revision) -> list[Slot]:
    """Parked slots of the revision, those that are created already first."""
    found = [s for s in fleet.of(revision.key) if s.goal == Goal.PARK and not s.ended and fleet.alive(s.node)]
    return sorted(found, key=lambda s: (s.phase is not Phase.PARKED, s.assignment.at))


def _frozen(fleet: Fleet, revision: Revision) -> list[Slot]:
    """Frozen slots of the revision, the one that has been so for longest first."""
    found = [s for s in fleet.of(revision.key) if s.goal == Goal.FREEZE and not s.ended and fleet.alive(s.node)]
    return sorted(found, key=lambda s: s.assignment.at)


def _place(
    revision: Revision, node: str, goal: str, wish: Wish, fleet: Fleet, plan: Plan, name: Callable[[str], str]
) -> Assignment:
    assignment = Assignment(
        instance=name(revision.name),
        project=revision.project,
        revision=revision.name,
        service=revision.service,
        node=node,
        goal=goal,
        at=wish.at,
        cause_id=wish.cause_id,
    )
    plan.puts.append((assignment, 0))
    fleet.put(assignment, 0)
    return assignment


def _evict(fleet: Fleet, need: Need, revision: Revision, plan: Plan, worth: Callable[[Slot], float]) -> str | None:
    """A full node takes the instance in place of another revision's parked or frozen one, the one that is worth least."""
    going = {slot.name for slot in plan.deletes}
    fit = [
        slot
        for node in fleet.nodes.values()
        if not node.unschedulable
        for slot in fleet.resting(node.node)
        if slot.store_rev and slot.name not in going and slot.assignment.revision_key != revision.key
        if fleet.placement.fits(node.node, need, instead=slot.need)
    ]
    least = relief.least_worth(fit, worth, 1)
    if not least:
        return None
    plan.deletes.insert(0, least[0])
    return least[0].node


def _shrink(wish: Wish, going: list[Slot], fleet: Fleet, plan: Plan) -> None:
    going = going[:AT_ONCE]
    fit = [slot for slot in going if slot.phase in _FREEZABLE and slot.store_rev]
    last = fit[-1] if fit and wish.freeze and not wish.desired else None
    for slot in going:
        if not slot.store_rev:
            continue
        if slot is last:
            _turn(slot, Goal.FREEZE, wish, fleet, plan)
            plan.frozen += 1
            continue
        if slot.phase in _UNSTARTED:
            plan.deletes.append(slot)
        else:
            _turn(slot, Goal.DRAIN, wish, fleet, plan)
        plan.drained += 1


def _one_frozen(revision: Revision, wish: Wish, fleet: Fleet, plan: Plan) -> None:
    """One frozen instance is enough, and none when it is not wanted any more."""
    for slot in _frozen(fleet, revision)[1 if wish.freeze else 0 :]:
        if slot.store_rev and len(plan.puts) < AT_ONCE:
            _turn(slot, Goal.DRAIN, wish, fleet, plan)
            plan.drained += 1


def _park(revision: Revision, wish: Wish, fleet: Fleet, plan: Plan, name: Callable[[str], str]) -> None:
    parked = _parked(fleet, revision)
    if not wish.park or _frozen(fleet, revision):
        if wish.desired == 0:
            plan.deletes += [s for s in parked if s.store_rev]
        return
    plan.deletes += [s for s in parked[1:] if s.store_rev]
    if parked or not wish.may_start:
        return
    node = fleet.placement.roomiest(fleet.need(revision.key))  # Where it could run: it shall be woken there.
    if node is not None and parking.has_room(fleet.nodes[node], fleet.placement.headroom(node), len(fleet.resting(node))):
        _place(revision, node, Goal.PARK, wish, fleet, plan, name)


def _turn(slot: Slot, goal: str, wish: Wish, fleet: Fleet, plan: Plan) -> None:
    """Give `slot` another goal."""
    before = slot.assignment
    after = msgspec.structs.replace(before, goal=goal, at=wish.at, cause_id=wish.cause_id or before.cause_id)
    plan.before.append(before)
    plan.puts.append((after, slot.store_rev))
    fleet.put(after, 0)
