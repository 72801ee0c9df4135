"""Which ids belong to which project: one range each, never two of one, never taken from who has instances."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.profiles import IDS
from nodeagent.uids import FIRST_ID, MOST, Exhausted, allot

NAMES = st.sampled_from([f"p{number}" for number in range(8)])


@given(st.lists(st.tuples(NAMES, st.frozensets(NAMES), st.integers(1, 5), st.sampled_from([FIRST_ID, 100_000, FIRST_ID + 7]))))
def test_no_two_projects_ever_share_an_id_and_who_has_instances_keeps_its_own(
    steps: list[tuple[str, frozenset[str], int, int]],
) -> None:
    held: dict[str, int] = {}
    for project, busy, most, first in steps:
        before = held
        try:
            held = allot(held, project, busy, first, most)
        except Exhausted:
            assert project not in before
            continue
        assert project in held
        for name in before.keys() & (busy | {project}):
            assert held[name] == before[name]
        places = sorted(held.values())
        assert all(later - earlier >= IDS for earlier, later in pairwise(places))


def test_a_project_that_comes_back_finds_its_ids() -> None:
    held = allot(allot({}, "a", set()), "b", {"a"})
    assert allot(held, "a", {"b"}) == held


def test_when_all_are_held_the_first_without_instances_gives_way() -> None:
    held = allot(allot({}, "a", set(), most=2), "b", set(), most=2)
    assert allot(held, "c", {"a"}, most=2) == {"a": FIRST_ID, "c": FIRST_ID + IDS}


def test_a_node_full_of_projects_says_so_with_the_cure() -> None:
    held = allot({}, "a", set(), most=1)
    with pytest.raises(Exhausted, match=r"all 1 ranges of 65536 .* raise --id-ranges"):
        allot(held, "b", {"a"}, most=1)


def test_the_last_range_ends_where_systemds_own_ids_begin() -> None:
    assert FIRST_ID + MOST * IDS <= 0x7FFE_0000
