"""Instances that take requests and do not answer: stopped, hung, or behind a network that drops.

Their kernel accepts connections, so nothing fails; only answers do not come. A quarter-second look over the connections finds
them, at no cost to a request: an instance whose every answer is owed for `SILENCE_S` and longer, while another of its revision has
answered since. What waits there goes on waiting, for it was sent; nothing new goes there until a probe is answered.
"""

from typing import TYPE_CHECKING, Any

from ingress import limits

if TYPE_CHECKING:
    from activator.balance import Target
    from activator.throttler import Throttler
    from ingress.gate import Gate


def look(gate: "Gate", now: float) -> None:
    """Tell the admitter of instances that are silent. Requests count from the first look that finds them whole and unanswered."""
    owed: dict[Target, tuple[float, Throttler[Any]]] = {}
    for upstream in gate.upstreams:
        for exchange in upstream.asking():
            target, throttler = upstream.target, exchange.throttler
            if not exchange.body_done or throttler is None:
                continue
            if not exchange.asked_at:
                exchange.asked_at = now
            elif exchange.asked_at >= target.judged_from:
                since = owed.get(target, (now,))[0]
                owed[target] = (min(since, exchange.asked_at), throttler)
    for target, (since, throttler) in owed.items():
        if now - since < limits.SILENCE_S or _heard(target, since) or target.ejected_until:
            continue
        if any(_heard(each, since) for each in throttler.targets.values() if each is not target):
            gate.admitter.unanswered(throttler, target, silent=True)


def _heard(target: "Target", since: float) -> bool:
    return target.connections is not None and target.connections.alive_at >= since
