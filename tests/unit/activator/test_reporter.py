"""What scaling reads."""

from activator.reporter import report
from activator.throttler import Throttler
from store.lifecycle import Phase
from store.messages import SampleReport
from store.model import Instance, decode, encode


def made() -> Throttler[str]:
    throttler: Throttler[str] = Throttler("p/r", 1)
    ready = Instance(instance="i1", project="p", revision="r", node="n", phase=Phase.READY, address="a:1", seq=1)
    throttler.heard(ready, 0.0, stored=True)
    return throttler


def test_an_idle_revision_says_nothing() -> None:
    assert report([made()], sender="me", now=1.0, wall=100.0) is None


def test_traffic_is_reported_and_then_one_zero() -> None:
    throttler = made()
    target = throttler.reserve(0.0)
    assert target is not None
    throttler.arrive("b", 0.5, 9.0)
    first = report([throttler], sender="me", now=1.0, wall=100.0)
    assert first is not None
    (sample,) = first.samples
    assert (sample.concurrency, sample.requests, sample.in_flight, sample.queued) == (1.5, 2, 1, 1)
    assert sample.by_instance == {"i1": 1}
    throttler.release(target, 1.0)
    throttler.release(target, 1.0)
    second = report([throttler], sender="me", now=2.0, wall=101.0)
    assert second is not None
    assert (second.samples[0].concurrency, second.samples[0].requests) == (0.0, 0)
    assert report([throttler], sender="me", now=3.0, wall=102.0) is None
    assert decode(SampleReport, encode(first)) == first
