"""What scaling reads: one SampleReport a second with every revision that has traffic, and a last zero when it stops."""

from collections.abc import Iterable
from typing import Any

from activator.throttler import Throttler
from store.messages import Sample, SampleReport

INTERVAL_S = 1.0


def sample(throttler: Throttler[Any], now: float) -> Sample | None:
    """What `throttler` saw since it was last asked; None when that is nothing and was said already."""
    load = throttler.load
    if throttler.quiet and not load.present and not load.arrived:
        return None
    mean, arrived = load.take(now)
    throttler.quiet = not (load.present or arrived or mean)
    return Sample(
        revision=throttler.revision,
        concurrency=round(mean, 6),
        requests=arrived,
        in_flight=throttler.in_flight,
        queued=len(throttler.line) - throttler.foreign,
        swelling=throttler.swelling(now),
        by_instance={target.instance: target.in_flight - target.lent for target in throttler.targets.values()},
    )


def report(
    throttlers: Iterable[Throttler[Any]], *, sender: str, now: float, wall: float, interval_s: float = INTERVAL_S
) -> SampleReport | None:
    """One report of all that have something to say, or None."""
    samples = [found for throttler in throttlers if (found := sample(throttler, now)) is not None]
    return SampleReport(sender=sender, at=wall, interval_s=interval_s, samples=samples) if samples else None
