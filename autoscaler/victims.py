"""Which instances go when there are too many: the one whose end is felt least."""

from collections.abc import Iterable, Mapping

from autoscaler.fleet import Slot


def pick(running: Iterable[Slot], busy: Mapping[str, int], count: int) -> list[Slot]:
    """`count` of `running`, in the order they should go.

    First what has not started, then what starts, then ready and idle ones, then the ones with the fewest requests in flight;
    of equals the youngest. `busy`: requests in flight by instance; who is not in it is idle.
    """

    def felt(slot: Slot) -> tuple[int, int, float, str]:
        stage = 2 if slot.ready else 1 if slot.started else 0
        return (stage, busy.get(slot.name, 0), -slot.assignment.at, slot.name)

    return sorted(running, key=felt)[:count]
