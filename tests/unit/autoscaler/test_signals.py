from hypothesis import given
from hypothesis import strategies as st

from autoscaler.signals import Signals, Track
from store.messages import Sample
from store.model import ScaleSpec


def sample(concurrency: float, *, requests: int = 1, in_flight: int = 0, queued: int = 0, **by_instance: int) -> Sample:
    return Sample(
        revision="p/r", concurrency=concurrency, requests=requests, in_flight=in_flight, queued=queued, by_instance=by_instance
    )


def test_a_revision_nobody_spoke_of_has_no_data() -> None:
    signal = Signals().view("p/r", 100)
    assert signal.stable is None
    assert signal.load == 0


def test_two_senders_add_up() -> None:
    track = Track(ScaleSpec())
    track.take("a", 1, sample(3, in_flight=3, i1=3), 100.2)
    track.take("b", 1, sample(4, in_flight=2, queued=2, i1=1, i2=1), 100.7)
    signal = track.signal(100.8)
    assert (signal.stable, signal.in_flight, signal.queued) == (7, 5, 2)
    assert signal.busy == {"i1": 4, "i2": 1}


def test_reports_that_jitter_around_the_second_count_once_each() -> None:
    track = Track(ScaleSpec())
    for at in (100.01, 100.99, 102.01, 102.99, 104.01, 104.99):
        track.take("a", 1, sample(10), at)
    signal = track.signal(105)
    assert signal.panic == 10
    assert signal.stable == 10


def test_the_report_on_zero_to_one_is_not_added_to_the_regular_one() -> None:
    track = Track(ScaleSpec())
    track.take("a", 0.0, sample(5, queued=5), 100.1)
    track.take("a", 0.7, sample(5, queued=5), 100.8)
    assert track.signal(100.9).stable == 5


def test_a_burst_after_a_silence_counts_in_full_at_once() -> None:
    track = Track(ScaleSpec())
    track.take("a", 1, sample(0, requests=0), 100)
    track.take("a", 1, sample(0.2, requests=80, in_flight=10, queued=70), 400)
    assert track.signal(400).panic == 80


def test_a_burst_after_a_silence_counts_in_full_when_its_report_covers_the_silence_too() -> None:
    asked, unasked = Track(ScaleSpec()), Track(ScaleSpec())
    for track in (asked, unasked):
        track.take("a", 1, sample(0, requests=0), 100)
    assert asked.signal(110).load == 0
    for track in (asked, unasked):
        track.take("a", 20, sample(0.2, requests=40, in_flight=10, queued=30), 120)
    assert unasked.signal(120) == asked.signal(120)
    assert unasked.signal(120).panic == 40


def test_a_report_that_says_the_same_again_counts_like_one_that_says_it_in_full() -> None:
    short, full = Track(ScaleSpec()), Track(ScaleSpec())
    for track in (short, full):
        track.take("a", 1, sample(3, in_flight=3, i1=3), 100)
    for second in range(101, 170):
        assert short.repeat("a", 3, second)
        full.take("a", 1, sample(3, requests=0, in_flight=3, i1=3), second)
        assert short.signal(second) == full.signal(second)
    assert short.loaded_at == full.loaded_at


def test_what_says_something_else_is_not_a_repetition() -> None:
    track = Track(ScaleSpec())
    assert not track.repeat("a", 3, 100)
    track.take("a", 1, sample(3, in_flight=2, queued=1), 100)
    assert not track.repeat("a", 3, 101)
    track.take("a", 1, sample(3, in_flight=3), 101)
    assert not track.repeat("a", 4, 102)
    assert not track.repeat("a", 3, 103)
    assert track.repeat("a", 3, 102)


def test_a_wake_counts_as_a_report_of_what_waits() -> None:
    track = Track(ScaleSpec())
    track.wake("a", 100, 50.5)
    signal = track.signal(50.5)
    assert signal.panic == 100
    assert signal.queued == 100


def test_a_repeated_wake_is_not_more_load() -> None:
    track = Track(ScaleSpec())
    for at in (50.5, 50.75, 50.99):
        track.wake("a", 3, at)
    assert track.signal(51).panic == 3


def test_a_silent_sender_no_longer_counts_as_in_flight_but_its_past_stays_in_the_window() -> None:
    track = Track(ScaleSpec())
    track.take("a", 1, sample(8, in_flight=8), 100)
    signal = track.signal(110)
    assert signal.in_flight == 0
    assert signal.stable == 8
    assert signal.unreported, "it had load when it was last heard"


def test_a_sender_that_said_zero_and_is_silent_is_idle_and_not_missing() -> None:
    track = Track(ScaleSpec())
    track.take("a", 1, sample(8, in_flight=8), 100)
    track.take("a", 1, sample(0, requests=0), 101)
    assert not track.signal(120).unreported
    assert track.loaded_at == 100


def test_a_lost_sender_is_given_up_after_a_window() -> None:
    track = Track(ScaleSpec(stable_window_s=6))
    track.take("a", 1, sample(8, in_flight=8), 100)
    assert track.signal(105.9).unreported
    assert not track.signal(107).unreported


def test_rps_counts_requests() -> None:
    track = Track(ScaleSpec(metric="rps"))
    for second in range(10):
        track.take("a", 1, sample(0.1, requests=50), 100 + second)
        track.take("b", 1, sample(0.1, requests=30), 100 + second)
    assert track.signal(109).stable == 80


def test_forgotten_revisions_cost_nothing() -> None:
    signals = Signals()
    signals.track("p/r", ScaleSpec()).take("a", 1, sample(1), 1)
    signals.forget(["p/r", "p/other"])
    assert len(signals) == 0


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), max_size=40), st.floats(0, 1))
def test_a_steady_load_counts_once_whatever_is_told_between_the_regular_reports(
    early: list[tuple[float, bool]], begins: float
) -> None:
    """Twelve are here all the time: no second holds more than twelve, however many reports it holds."""
    track = Track(ScaleSpec(stable_window_s=6))
    now = 100 + begins
    track.take("a", 0.0, sample(12, in_flight=12), now)
    last = regular = now
    for after_s, is_early in early:
        if is_early:
            now = min(now + after_s / 4, regular + 0.999)
            track.take("a", now - last, sample(12, in_flight=12), now)
        else:
            now = regular = max(now, regular + 1)
            track.take("a", 1.0, sample(12, in_flight=12), now)
        last = now
        stable, panic = track.averages(now)
        assert stable is not None
        assert panic is not None
        assert max(stable, panic) <= 12.001
