"""What is left on nodes stays in one piece for the biggest instance that was asked for."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from autoscaler.need import Need
from autoscaler.placement import Placement
from store.model import Node

MI, GI = 1 << 20, 1 << 30
SIZES = [(100, 64), (250, 256), (500, 512), (1000, 1024)]
SMALL = [Need(f"p/small-{n}", "", SIZES[n % 4][0], SIZES[n % 4][1] * MI) for n in range(200)]


class LeastLoaded(Placement):
    """Placement that takes the least loaded node of those with the fewest of the revision, and keeps nothing in one piece."""

    def choose(self, need: Need) -> str | None:
        fitting = [name for name in self.nodes() if self.fits(name, need)]
        return min(fitting, key=lambda name: (self._rooms[name].counts().get(need.revision, 0), *self.load(name)), default=None)

    def load(self, name: str) -> tuple[float, str]:
        cpu_m, memory_bytes, count = self.taken(name)
        return cpu_m / 8000 + memory_bytes / (16 * GI) + count / 250, name


def machines(placement: Placement, count: int, memory_bytes: int = 16 * GI) -> Placement:
    for number in range(count):
        placement.set_node(Node(node=f"n{number:03}", cpu_m=8000, memory_bytes=memory_bytes, slots=250))
    return placement


def refused(placement: Placement, seed: int, nodes: int, full: float, big: Need) -> int:
    """How many of the big find no room, where instances come and go and `full` of all memory is asked for."""
    chance, standing, used, count = random.Random(seed), [], 0, 0
    machines(placement, nodes)
    for _ in range(2_000):
        need = big if chance.random() < 0.03 else chance.choice(SMALL)
        while standing and used + need.memory_bytes > full * nodes * 16 * GI:
            on, gone = standing.pop(chance.randrange(len(standing)))
            placement.give(on, gone)
            used -= gone.memory_bytes
        found = placement.choose(need)
        if found is None:
            count += need is big
            continue
        placement.take(found, need)
        standing.append((found, need))
        used += need.memory_bytes
    return count


@pytest.mark.parametrize("big_gi", [5, 8, 10])
@pytest.mark.parametrize("nodes", [4, 12])
def test_fewer_big_instances_are_refused_than_where_the_least_loaded_node_is_taken(big_gi: int, nodes: int) -> None:
    big = Need("p/big", "", 2000, big_gi * GI)
    kept = [refused(Placement(), seed, nodes, 0.85, big) for seed in range(4)]
    spread = [refused(LeastLoaded(), seed, nodes, 0.85, big) for seed in range(4)]
    assert sum(kept) <= 0.5 * sum(spread), f"{kept} of the big were refused, and {spread} without"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 19), st.booleans()), max_size=150), st.integers(0, 1 << 30))
def test_memory_is_never_oversubscribed_and_the_accounts_add_up(steps: list[tuple[int, int, bool]], seed: int) -> None:
    placement, standing, chance = machines(Placement(), 3, 4 * GI), [], random.Random(seed)
    needs = [*SMALL[:4], Need("p/big", "", 2000, 3 * GI), Need("p/free", "", 100, 0)]
    for kind, which, leaves in steps:
        if leaves and standing:
            placement.give(*standing.pop(which % len(standing)))
        elif (on := placement.choose(needs[kind])) is not None:
            placement.take(on, needs[kind])
            standing.append((on, needs[kind]))
        else:
            free = [4 * GI - memory for _, memory, _ in placement.account().values()]
            assert max(free) < needs[kind].memory_bytes, "what fits somewhere is placed"
        if chance.random() < 0.1:
            placement.set_node(Node(node="n001", cpu_m=8000, memory_bytes=4 * GI, slots=250, pressed=chance.random() < 0.5))
    for name, (_, memory_bytes, count) in placement.account().items():
        here = [need for on, need in standing if on == name]
        assert memory_bytes == sum(need.memory_bytes for need in here) <= 4 * GI
        assert count == len(here)


def test_while_every_node_has_room_for_the_biggest_the_least_loaded_is_taken() -> None:
    placement, spread = machines(Placement(), 6), machines(LeastLoaded(), 6)
    chance = random.Random(3)
    for _ in range(120):
        need = replace(chance.choice(SMALL), revision=f"p/{chance.random()}")
        found = placement.choose(need)
        assert found == spread.choose(need)
        for each in (placement, spread):
            each.take(found, need)


def test_once_no_node_has_more_than_room_for_the_biggest_one_is_filled_and_the_others_keep_theirs() -> None:
    placement, big = machines(Placement(), 4, 4 * GI), Need("p/big", "", 0, 2 * GI)
    assert placement.choose(big) is not None, "it is asked for, and then goes away"
    for number in range(24):
        need = Need(f"p/r{number}", "", 100, 256 * MI)
        placement.take(placement.choose(need), need)
    assert sum(placement.fits(name, big) for name in placement.nodes()) >= 2


def test_what_is_parked_goes_where_most_room_is_left_for_its_wake() -> None:
    placement = machines(Placement(), 2, 4 * GI)
    asks = Need("p/r", "", 0, 3 * GI)
    placement.choose(asks)
    for name, mebi in (("n000", 2600), ("n001", 2000)):
        placement.take(name, Need("p/other", "", 0, mebi * MI))
    small = Need("p/r", "", 0, 512 * MI)
    assert placement.choose(small) == "n000", "the least that suffices"
    assert placement.roomiest(small) == "n001"
    assert placement.roomiest(asks) is None


def test_a_node_whose_memory_is_pressed_comes_last_where_room_is_kept() -> None:
    placement = machines(Placement(), 2, 4 * GI)
    placement.choose(Need("p/big", "", 0, 3 * GI))
    for name, mebi in (("n000", 3000), ("n001", 2000)):
        placement.take(name, Need("p/other", "", 0, mebi * MI))
    assert placement.choose(SMALL[1]) == "n000"
    placement.set_node(Node(node="n000", cpu_m=8000, memory_bytes=4 * GI, slots=250, pressed=True))
    assert placement.choose(SMALL[1]) == "n001"


def test_a_node_that_is_too_small_for_the_biggest_keeps_nothing_for_it() -> None:
    placement = machines(Placement(), 3, 2 * GI)
    assert placement.choose(Need("p/big", "", 0, 3 * GI)) is None
    taken = []
    for number in range(3):
        need = Need(f"p/r{number}", "", 0, 512 * MI)
        taken.append(placement.choose(need))
        placement.take(taken[-1], need)
    assert sorted(taken) == ["n000", "n001", "n002"], "they are spread"
