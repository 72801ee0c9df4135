"""Which news of instances count, and what is kept of those that come before their assignment."""

import pytest

from ingress.assigned import HELD_MOST, HELD_S, Held, kept, vouches
from store.lifecycle import Phase
from store.model import Assignment, Instance


def given(**changes: str) -> Assignment:
    plan = {"instance": "a-1", "project": "p", "revision": "a", "service": "s", "node": "n", "goal": "run"}
    return Assignment(**(plan | changes))


def news(name: str = "a-1", node: str = "n", seq: int = 1, **changes: str) -> Instance:
    plan = {"project": "p", "revision": "a"} | changes
    return Instance(instance=name, node=node, phase=Phase.READY, seq=seq, **plan)


def test_what_was_given_is_vouched_for() -> None:
    assert vouches(given(), news())
    assert vouches(kept(given()), news()), "what is kept of it is enough"


@pytest.mark.parametrize("changes", [{"revision": "b"}, {"project": "q"}])
def test_an_instance_that_passes_for_another_revisions_is_not(changes: dict[str, str]) -> None:
    assert not vouches(given(), news(**changes))


def test_what_nobody_gave_is_not() -> None:
    assert not vouches(None, news())


def test_the_newest_of_what_came_too_early_is_kept_once() -> None:
    held = Held()
    for seq in (1, 3, 2):
        held.hold(news(seq=seq), 0.0)
    found = held.release("n", "a-1", 1.0)
    assert found is not None
    assert found.seq == 3
    assert held.release("n", "a-1", 1.0) is None
    assert len(held) == 0


def test_what_is_old_is_not_kept() -> None:
    held = Held()
    held.hold(news(), 0.0)
    assert held.release("n", "a-1", HELD_S) is None
    held.hold(news(), 0.0)
    held.hold(news("a-2"), HELD_S)
    assert len(held) == 1


def test_a_node_that_says_very_much_pushes_out_its_own_words_alone() -> None:
    held = Held()
    held.hold(news("other", node="quiet"), 0.0)
    for number in range(HELD_MOST + 10):
        held.hold(news(f"a-{number}"), 0.0)
    assert len(held) == HELD_MOST + 1
    assert held.release("n", "a-9", 0.0) is None
    assert held.release("n", "a-10", 0.0) is not None
    assert held.release("quiet", "other", 0.0) is not None
