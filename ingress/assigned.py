"""Which instances count: those that the autoscaler gave to the node that speaks of them. Pure.

A node that was taken over may say what it likes of itself. Were an instance believed at its node's word, it could name any
revision, and any address, and be sent that revision's requests.
"""

from sys import intern

from store.model import Assignment, Instance

HELD_S = 10.0
HELD_MOST = 256
"""Of one node: who says more than that of what nobody gave it is not listened to so closely."""


def kept(given: Assignment) -> Assignment:
    """What is remembered of an assignment: whose it is. There is one an instance, and all of a revision share these words."""
    return Assignment(
        instance="",
        project=intern(given.project),
        revision=intern(given.revision),
        service=intern(given.service),
        node="",
        goal="",
    )


def vouches(given: Assignment | None, news: Instance) -> bool:
    """Whether what a node says of an instance is about what it was given."""
    return given is not None and given.revision == news.revision and given.project == news.project


class Held:
    """News of instances that came before their assignments: the last of each, for `HELD_S`. It may be lost: etcd says it again."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, tuple[float, Instance]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._nodes.values()))

    def hold(self, news: Instance, now: float) -> None:
        """Keep it until it is asked for, there is too much of its node, or it is too old."""
        held = self._nodes.setdefault(news.node, {})
        known = held.pop(news.instance, None)
        if known is not None and known[1].seq > news.seq:
            news = known[1]
        held[news.instance] = (now, news)
        while len(held) > HELD_MOST or held[next(iter(held))][0] <= now - HELD_S:
            del held[next(iter(held))]

    def release(self, node: str, instance: str, now: float) -> Instance | None:
        """What is held of an instance, which is not held any more."""
        held = self._nodes.get(node, {})
        since, news = held.pop(instance, (now, None))
        if not held:
            self._nodes.pop(node, None)
        return news if since > now - HELD_S else None
