"""One revision's throttler with some instances, for tests."""

from activator.balance import Target
from activator.effects import Dispatch
from activator.throttler import Throttler
from store.lifecycle import Phase
from store.model import Instance


def news(name: str, phase: Phase, seq: int = 1, address: str = "") -> Instance:
    return Instance(
        instance=name, project="p", revision="r", node="n", phase=phase, address=address or f"10.0.0.{name[1:]}:80", seq=seq
    )


def throttler(limit: int = 1, *ready: str, bound: int = 10_000) -> Throttler[str]:
    made: Throttler[str] = Throttler("p/r", limit, bound=bound)
    for name in ready:
        made.heard(news(name, Phase.READY), 0.0, stored=True)
    return made


def take(made: Throttler[str], now: float = 0.0) -> Target:
    target = made.reserve(now)
    assert target is not None
    return target


def dispatched(effects) -> list[tuple[str, str]]:
    return [(each.request, each.target.instance) for each in effects if isinstance(each, Dispatch)]
