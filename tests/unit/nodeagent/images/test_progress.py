"""Progress is told often enough and not more."""

from nodeagent.images.progress import Progress
from store.messages import PullProgress


def test_bytes_are_told_five_times_a_second_and_states_always() -> None:
    now = 0.0
    told: list[PullProgress] = []
    progress = Progress("n1", "img", lambda: now)
    progress.listeners.append(told.append)
    progress.state("pulling")
    progress.expect("d", 1000)
    for step in range(1000):
        now = step / 1000
        progress.bytes("d", step + 1)
    assert 4 <= len(told) <= 6
    progress.state("done")
    assert told[-1].state == "done"
    assert told[-1].layers == [("d", 1000, 1000)]
