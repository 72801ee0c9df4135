"""News of instances that came before their assignments. Pure."""

from store.model import Instance

HELD_S = 10.0
HELD_MOST = 256
"""Of one node: who says more than that of what nobody gave it is not listened to so closely."""


class Held:
    """The last of each instance, for `HELD_S`. It may be lost: etcd says it again."""

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
