"""What is kept of news that come before their assignment."""

from ingress.held import HELD_MOST, HELD_S, Held
from store.lifecycle import Phase
from store.model import Instance


def news(name: str = "a-1", node: str = "n", seq: int = 1) -> Instance:
    return Instance(instance=name, node=node, project="p", revision="a", phase=Phase.READY, seq=seq)


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
