"""On which node an instance goes, and what stands on every node. Incremental: each change costs O(log nodes), each choice looks
at no more than `LOOK_AT` fitting nodes.

Order of preference: a frozen instance of that revision, then a parked one (`plan` sees to that), then a node that has the image
unpacked, then any with room; among those one in the zone with the fewest instances of the revision, then the node with the fewest
(spread), then by what is left there, then by name: the least loaded of those that keep room for the biggest instance that was asked for;
when there is none, the one with the least memory left that suffices, so that what is left of the others stays in one piece for it
(decision 0053).
Only nodes count that have the labels it selects by and no taint it does not tolerate. Memory and disk requests are never
oversubscribed; CPU is a weight and may be; a node takes at most `slots` instances.
What asks for no memory takes what its instances are known to hold (`Need.expecting`).
"""

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from autoscaler.need import Need, digest_of, mebibytes
from store.model import Node, RevisionKey

LOOK_AT = 16
COMMON = 8
"""An image that is on one of so many nodes or more is looked for in the order of all nodes."""
PRESSED = 1.0
"""So much more loaded seems a node that has too little memory."""
KEPT_MOST = 0.75
"""Share of its memory that a node keeps for a big instance at most."""
KEPT_ABOVE = 1.06
"""So much more than the biggest instance is kept, at least and before it is rounded up: what comes next shall not break into it."""
UNLISTED = (math.inf, "")

_Rank = tuple[float, str]
_BY_FIT, _LAST = 1e9, 1e17
"""From here on the order is by free memory, in bytes, and no longer by load; and from here on, of what is taken when there is no other."""
_rank = attrgetter("rank")


@dataclass(slots=True)
class _Room:
    name: str
    node: Node | None = None
    images: frozenset[str] = frozenset()
    cpu_m: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    slots: int = 0
    revisions: dict[RevisionKey, int] | None = None
    rank: _Rank = UNLISTED
    """Its place in the order, and its name; UNLISTED when it is not in it."""
    kept_bytes: float = 0
    """What it keeps in one piece for a big instance."""

    def counts(self) -> dict[RevisionKey, int]:
        if self.revisions is None:
            self.revisions = {}
        return self.revisions


class Placement:
    """All nodes with what stands on them. A node that is gone keeps its account until its instances are given back."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._order: list[_Rank] = []
        self._images: dict[str, dict[str, _Room]] = {}
        self._zones: dict[str, int] = {}
        """Nodes that are there by zone; instances are spread over zones when there are several."""
        self._zoned = False
        self._in_zone: dict[tuple[str, RevisionKey], int] = {}
        """Instances by zone and revision, kept only where there are several zones."""
        self._memory_bytes = self._slots = 0
        self._biggest_bytes = self._kept_bytes = 0
        """The most memory that one instance was known to ask for, and what nodes keep in one piece for it."""

    def set_node(self, node: Node) -> None:
        """`node` is there, or has changed."""
        room = self._room(node.node)
        self._unlist(room)
        for image in room.images:
            self._images[image].pop(node.node, None)
        self._move(room, node)
        self._reckon(room)
        room.images = frozenset(map(digest_of, node.images))
        for image in room.images:
            self._images.setdefault(image, {})[node.node] = room
        self._list(room)

    def drop_node(self, name: str) -> None:
        """The node is gone: nothing is placed there."""
        room = self._rooms.get(name)
        if room is None:
            return
        self._unlist(room)
        for image in room.images:
            self._images[image].pop(name, None)
            if not self._images[image]:
                del self._images[image]
        self._move(room, None)
        room.images = frozenset()
        self._tidy(room)

    def _move(self, room: _Room, node: Node | None) -> None:
        """The room is that of `node` now; what stands there counts for its zone."""
        old, room.node = room.node, node
        for each, by in ((old, -1), (node, 1)):
            if each is not None:
                self._memory_bytes += by * each.memory_bytes
                self._slots += by * each.slots
        if old is not None and node is not None and old.zone == node.zone:
            return
        for each, by in ((old, -1), (node, 1)):
            if each is not None:
                self._zones[each.zone] = self._zones.get(each.zone, 0) + by
                if not self._zones[each.zone]:
                    del self._zones[each.zone]
        self._in_zone = {}
        self._zoned = len(self._zones) > 1
        for there in self._rooms.values() if self._zoned else ():
            if there.node is not None:
                for revision, count in there.counts().items():
                    self._count_in_zone(there.node.zone, revision, count)

    def _count_in_zone(self, zone: str, revision: RevisionKey, by: int) -> None:
        count = self._in_zone.get((zone, revision), 0) + by
        if count:
            self._in_zone[zone, revision] = count
        else:
            self._in_zone.pop((zone, revision), None)

    def take(self, node: str, need: Need) -> None:
        """One instance now stands on `node`."""
        room = self._room(node)
        self._unlist(room)
        room.cpu_m += need.expects_m or need.cpu_m
        room.memory_bytes += need.memory_bytes
        room.disk_bytes += need.disk_bytes
        room.slots += 1
        counts = room.counts()
        counts[need.revision] = counts.get(need.revision, 0) + 1
        if self._zoned and room.node is not None:
            self._count_in_zone(room.node.zone, need.revision, 1)
        self._list(room)

    def give(self, node: str, need: Need) -> None:
        """One instance that was taken with the same `need` is gone from `node`."""
        room = self._room(node)
        self._unlist(room)
        room.cpu_m -= need.expects_m or need.cpu_m
        room.memory_bytes -= need.memory_bytes
        room.disk_bytes -= need.disk_bytes
        room.slots -= 1
        if self._zoned and room.node is not None:
            self._count_in_zone(room.node.zone, need.revision, -1)
        counts = room.counts()
        counts[need.revision] -= 1
        if not counts[need.revision]:
            del counts[need.revision]
        self._list(room)
        self._tidy(room)

    def choose(self, need: Need) -> str | None:
        """The best node that has room for one more, or None."""
        if need.memory_bytes > self._biggest_bytes:
            self._keep(need.memory_bytes)
        having = self._images.get(need.image)
        if having:
            found = self._among(need, having)
            if found:
                return found
        return self._best(need, self._candidates(need))

    def roomiest(self, need: Need) -> str | None:
        """The node that has room for one more, and most of it: for what shall find room there later."""
        if need.memory_bytes > self._biggest_bytes:
            self._keep(need.memory_bytes)
        order = self._order
        having = self._images.get(need.image, {})
        by_fit = bisect_left(order, (_BY_FIT,))
        for some in (having, None) if having else (None,):
            for _, name in itertools.chain(itertools.islice(order, by_fit), reversed(order[by_fit:])):
                if (some is None or name in some) and self.fits(name, need):
                    return name
        return None

    def _keep(self, biggest_bytes: int) -> None:
        """An instance may be so big from now on. What is kept for it grows in steps, since every node is ordered anew."""
        self._biggest_bytes = biggest_bytes
        kept_bytes = math.ceil(2 ** (math.ceil(2 * math.log2(biggest_bytes * KEPT_ABOVE)) / 2))
        if kept_bytes == self._kept_bytes:
            return
        self._kept_bytes = kept_bytes
        for room in self._rooms.values():
            self._unlist(room)
            self._reckon(room)
            self._list(room)

    def _reckon(self, room: _Room) -> None:
        """What the node keeps; a node that is too small for the biggest keeps nothing."""
        memory_bytes = room.node.memory_bytes if room.node is not None else 0
        room.kept_bytes = min(self._kept_bytes, KEPT_MOST * memory_bytes) if self._biggest_bytes <= memory_bytes else 0

    def _candidates(self, need: Need) -> Iterator[_Rank]:
        """The order of preference, without those that are known to have too little memory left."""
        order = self._order
        if order and order[0][0] < _BY_FIT:
            yield order[0]
            yield from itertools.islice(order, 1, bisect_left(order, (_BY_FIT,)))
        yield from itertools.islice(order, bisect_left(order, (_BY_FIT + need.memory_bytes,)), None)

    def _among(self, need: Need, having: dict[str, _Room]) -> str | None:
        """The best of the nodes that have the image; mostly the first of them is."""
        if len(having) * COMMON >= len(self._order) or self._zoned or need.selector:
            return self._best(need, (rank for rank in self._candidates(need) if rank[1] in having))
        least = min(having.values(), key=_rank)
        if need.revision not in least.counts() and self.fits(least.name, need):
            return least.name
        return self._best(need, sorted(room.rank for room in having.values() if room.rank is not UNLISTED))

    def fits(self, node: str, need: Need, instead: Need | None = None) -> bool:
        """Whether `node` has room for one more, `instead` of one that stands there already."""
        room = self._rooms.get(node)
        if room is None or room.node is None or room.rank is UNLISTED:
            return False
        there = room.node
        if there.memory_bytes - room.memory_bytes + (instead.memory_bytes if instead else 0) < need.memory_bytes:
            return False
        if instead is None and room.slots >= there.slots:
            return False
        special = need.disk_bytes or need.selector or there.taints or need.runtime
        return not special or self._admits(room, there, need, instead)

    def _admits(self, room: _Room, there: Node, need: Need, instead: Need | None) -> bool:
        """Whether its disk, labels, taints and runtimes let it in."""
        if need.runtime and need.runtime not in there.runtimes:
            return False
        free = there.disk_bytes - room.disk_bytes + (instead.disk_bytes if instead else 0)
        return not need.misses(there) and (not there.disk_bytes or free >= need.disk_bytes)

    def can_run(self, need: Need) -> bool:
        """Whether any node that is there has the runtime, or none is there at all."""
        there = [room.node for room in self._rooms.values() if room.node is not None]
        return not need.runtime or not there or any(need.runtime in node.runtimes for node in there)

    def headroom(self, node: str) -> float:
        """The smaller of the free shares of memory and slots of `node`, 0…1; 0 for a node that is gone."""
        room = self._rooms.get(node)
        if room is None or room.node is None:
            return 0.0
        memory = 1 - room.memory_bytes / max(1, room.node.memory_bytes)
        return max(0.0, min(memory, 1 - room.slots / max(1, room.node.slots)))

    def refusal(self, need: Need) -> str:
        """Why `choose` finds nothing, for people."""
        there = [room for room in self._rooms.values() if room.node is not None]
        if not there:
            return "no node is up; start a node agent, or look at `ebb nodes`"
        if not self.can_run(need):
            return f"no node can run {need.runtime}; install runsc on one (apt-get install runsc) and restart its node agent"
        having = [room for room in there if not need.runtime or (room.node is not None and need.runtime in room.node.runtimes)]
        open_ = [room for room in having if room.node is not None and not room.node.unschedulable]
        if not open_:
            return "no node takes instances: " + "; ".join(
                f"{room.name}: {room.node.unschedulable}" for room in having[:3] if room.node is not None
            )
        misses = [need.misses(room.node) for room in open_ if room.node is not None]
        open_ = [room for room, missing in zip(open_, misses, strict=True) if not missing]
        if not open_:
            return f"none of {len(misses)} nodes fits: needs {', or '.join(sorted(set(misses))[:3])}"
        free = {room.name: room.node.memory_bytes - room.memory_bytes for room in open_ if room.node is not None}
        largest = max(free, key=lambda name: (free[name], name))
        if free[largest] < need.memory_bytes:
            return f"needs {mebibytes(need.memory_bytes)}, largest free is {mebibytes(max(0, free[largest]))} on {largest}"
        disk = {
            room.name: room.node.disk_bytes - room.disk_bytes
            for room in open_
            if room.node is not None and room.node.disk_bytes
        }
        most = max(disk, key=lambda name: (disk[name], name)) if len(disk) == len(open_) else ""
        if most and disk[most] < need.disk_bytes:
            return f"needs {mebibytes(need.disk_bytes)} of disk, largest free is {mebibytes(max(0, disk[most]))} on {most}"
        full = [room for room in open_ if room.node is not None and room.slots >= room.node.slots]
        slots = full[0].node.slots if full and full[0].node else 0
        return (
            f"{len(full)} of {len(open_)} nodes take no more instances ({full[0].name if full else ''} has {slots} of {slots})"
        )

    @property
    def capacity(self) -> tuple[int, int]:
        """(memory_bytes, slots) of all nodes that are there."""
        return self._memory_bytes, self._slots

    def nodes(self) -> list[str]:
        """Names of the nodes that are there."""
        return [name for name, room in self._rooms.items() if room.node is not None]

    def taken(self, node: str) -> tuple[int, int, int]:
        """(cpu_m, memory_bytes, instances) taken on `node`."""
        room = self._rooms[node]
        return room.cpu_m, room.memory_bytes, room.slots

    def account(self) -> dict[str, tuple[int, int, int]]:
        """(cpu_m, memory_bytes, instances) taken on every node, for tests and for people."""
        return {name: self.taken(name) for name in self._rooms}

    def _best(self, need: Need, order: Iterable[_Rank]) -> str | None:
        if self._zoned:
            return self._best_spread(need, order)
        found: str | None = None
        fewest = 1 << 60
        fitting = 0
        for _, name in order:
            if not self.fits(name, need):
                continue
            count = self._rooms[name].counts().get(need.revision, 0)
            if count < fewest:  # Of equals the first stays: they come in the order of preference.
                found, fewest = name, count
            fitting += 1
            if fitting >= LOOK_AT or fewest == 0:
                break
        return found

    def _best_spread(self, need: Need, order: Iterable[_Rank]) -> str | None:
        """The same where there are zones: first the zone with the fewest of the revision, `LOOK_AT` nodes of each are looked at."""
        found: str | None = None
        best = (1 << 60, 1 << 60)
        in_zone = {zone: self._in_zone.get((zone, need.revision), 0) for zone in self._zones}
        least, looked = min(in_zone.values()), dict.fromkeys(in_zone, 0)
        for _, name in order:
            room = self._rooms[name]
            if room.node is None or looked[room.node.zone] >= LOOK_AT or not self.fits(name, need):
                continue
            zone = room.node.zone
            rank = (in_zone[zone], room.counts().get(need.revision, 0))
            if rank < best:
                found, best = name, rank
            looked[zone] += 1
            if best == (least, 0):
                break
        return found

    def _room(self, name: str) -> _Room:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room(name)
        return room

    def _list(self, room: _Room) -> None:
        if room.node is None or room.node.unschedulable:
            return
        node = room.node
        free, slots = max(0, node.memory_bytes - room.memory_bytes), max(1, node.slots)
        if room.slots >= node.slots:
            room.rank = (_LAST + free, room.name)
        elif free < room.kept_bytes:
            room.rank = ((_LAST if node.pressed else _BY_FIT) + free, room.name)
        else:
            load = room.cpu_m / max(1, node.cpu_m) + room.memory_bytes / max(1, node.memory_bytes) + room.slots / slots
            room.rank = (load + PRESSED if node.pressed else load, room.name)
        insort(self._order, room.rank)

    def _unlist(self, room: _Room) -> None:
        if room.rank is UNLISTED:
            return
        del self._order[bisect_left(self._order, room.rank)]
        room.rank = UNLISTED

    def _tidy(self, room: _Room) -> None:
        if room.node is None and room.slots == 0:
            self._rooms.pop(room.name, None)
