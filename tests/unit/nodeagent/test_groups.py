"""Which instances share a shim."""

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.groups import Groups


def test_instances_of_one_project_share_a_shim_up_to_the_bound() -> None:
    groups = Groups(bound=3, width=1)
    names = [groups.join("p", f"i{number}") for number in range(7)]
    assert [names.count(name) for name in dict.fromkeys(names)] == [3, 3, 1]


def test_projects_never_share_a_shim() -> None:
    groups = Groups()
    assert groups.join("p1", "a") != groups.join("p2", "b")


def test_a_burst_fills_several_shims_side_by_side() -> None:
    groups = Groups(bound=10, width=3)
    names = [groups.join("p", f"i{number}") for number in range(9)]
    assert [names.count(name) for name in dict.fromkeys(names)] == [3, 3, 3]


def test_one_after_the_other_goes_to_one_shim() -> None:
    groups = Groups(bound=10, width=3)
    names = set()
    for number in range(9):
        names.add(groups.join("p", f"i{number}"))
        groups.settled(f"i{number}")
    assert len(names) == 1


def test_a_shim_that_ran_empty_is_not_joined_again() -> None:
    groups = Groups()
    first = groups.join("p", "a")
    groups.leave("a")
    assert groups.join("p", "b") != first


def test_a_broken_shim_is_not_joined() -> None:
    groups = Groups()
    first = groups.join("p", "a")
    groups.broken("a")
    assert groups.join("p", "b") != first


def test_a_mate_is_one_whose_task_stands_in_a_shim_that_works() -> None:
    groups = Groups(bound=2)
    groups.join("default", "a")
    assert groups.settled_mate("a") == ""
    groups.settled("a")
    groups.join("default", "b")
    assert groups.settled_mate("b") == "a"
    groups.broken("b")
    assert groups.settled_mate("b") == ""


def test_groups_are_known_again_after_a_restart() -> None:
    groups = Groups(bound=2)
    groups.adopt("p", "a", "g-old")
    assert groups.join("p", "b") == "g-old"
    assert groups.join("p", "c") != "g-old"


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "settled"]), st.integers(0, 8)), max_size=60))
def test_no_shim_serves_more_than_the_bound(steps: list[tuple[str, int]]) -> None:
    groups = Groups(bound=3, width=2)
    members: dict[str, str] = {}
    for step, number in steps:
        instance = f"i{number}"
        if step == "join":
            members[instance] = groups.join("p", instance)
        elif step == "leave":
            groups.leave(instance)
            members.pop(instance, None)
        else:
            groups.settled(instance)
        assert all(list(members.values()).count(name) <= 3 for name in members.values())
