"""A revision that is steady is one whose decision would be the same: the short way never differs from the long one."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from autoscaler import steady
from autoscaler.idle import Reach
from autoscaler.keepalive import Keep
from autoscaler.policy import Memory, Mode, Standing, decide
from autoscaler.signals import Signal
from store.model import Revision, ScaleSpec

specs = st.builds(
    ScaleSpec,
    metric=st.sampled_from(["concurrency", "rps"]),
    target=st.sampled_from([0, 0.01, 0.3, 1, 7, 100]),
    target_utilization=st.sampled_from([0.01, 0.7, 1]),
    min_scale=st.integers(0, 3),
    max_scale=st.sampled_from([0, 3, 5]),
    activation_scale=st.sampled_from([0, 2, 5]),
    panic_threshold_percentage=st.sampled_from([110, 150, 200, 333, 1000]),
    max_scale_up_rate=st.sampled_from([1.1, 2, 1000]),
    max_scale_down_rate=st.sampled_from([1.1, 2, 10]),
    scale_down_delay_s=st.sampled_from([0, 0, 10]),
)
loads = st.one_of(st.floats(0, 50), st.integers(0, 500).map(lambda n: n * 0.7), st.integers(0, 30).map(float))


@given(
    specs, st.sampled_from([0, 1, 10]), loads, loads, loads, loads, st.integers(0, 60), st.integers(0, 20), st.booleans(),
    st.integers(0, 20), st.floats(0, 70),
)  # fmt: skip
def test_what_is_steady_would_be_decided_the_same(
    spec: ScaleSpec,
    cc: int,
    stable: float,
    panic: float,
    later: float,
    later_panic: float,
    in_flight: int,
    ready: int,
    quiet: bool,
    panic_peak: int,
    passed_s: float,
) -> None:
    revision = Revision(project="p", name="r", image="i@sha256:1", container_concurrency=cc, scale=spec)
    standing, mode = Standing(ready), Mode(idle_s=99 if quiet else 0)
    before = Memory(panic_at=990.0, panic_peak=panic_peak) if panic_peak else Memory()
    first = decide(revision, Signal(stable, panic, in_flight), standing, mode, before, 1000)
    bounds = steady.found(revision, first, standing, mode)
    if bounds is not None and bounds.holds(later, later_panic) and 1000 + passed_s < bounds.until:
        again = decide(revision, Signal(later, later_panic, in_flight), standing, mode, first.memory, 1000 + passed_s)
        assert (again.desired, again.reason, again.memory) == (first.desired, first.reason, first.memory)


keeps = st.builds(Keep, keep_s=st.sampled_from([6.0, 90.0]), from_s=st.just(200.0), until_s=st.just(300.0))


@given(
    keeps, st.integers(0, 3), loads, loads, st.floats(0, 400), st.floats(0, 1), st.sampled_from([0, 30, 250]), st.integers(0, 3)
)
def test_what_rests_would_be_decided_the_same_until_its_time_is_over(
    keep: Keep, ready: int, stable: float, later_stable: float, idle_s: float, part: float, retention_s: float, panic_peak: int
) -> None:
    revision = Revision(project="p", name="r", image="i@sha256:1", scale=ScaleSpec(retention_s=retention_s))
    standing, mode = Standing(ready), Mode(idle_s=idle_s, keep=keep)
    before = Memory(panic_at=990.0, panic_peak=panic_peak) if panic_peak else Memory()
    first = decide(revision, Signal(stable, 0.0), standing, mode, before, 1000)
    bounds = steady.resting(revision, first, Signal(stable, 0.0), standing, mode, 1000)
    if bounds is not None and bounds.holds(later_stable, 0.0):
        assert not bounds.holds(stable, 1.0)
        passed_s = part * 0.999 * (min(1e6, bounds.until) - 1000)
        later = replace(mode, idle_s=idle_s + passed_s)
        again = decide(revision, Signal(later_stable, 0.0), standing, later, first.memory, 1000 + passed_s)
        assert again.desired == first.desired


@given(
    keeps,
    st.sampled_from([0, 1, 10]),
    st.floats(0.001, 9),
    st.floats(6, 400),
    st.sampled_from([0, 30, 250]),
    st.sampled_from([0, 1, 2, 3]),
    st.booleans(),
)
def test_one_that_is_kept_without_a_decision_would_be_decided_the_same_and_has_the_same_bounds(
    keep: Keep, cc: int, stable: float, idle_s: float, retention_s: float, activation: int, panics: bool
) -> None:
    spec = ScaleSpec(retention_s=retention_s, activation_scale=activation)
    revision = Revision(project="p", name="r", image="i@sha256:1", container_concurrency=cc, scale=spec)
    standing, memory = Standing(1), Memory(panic_at=990.0, panic_peak=1) if panics else Memory()
    busy = decide(revision, Signal(0.1, 0.1, 1), standing, Mode(idle_s=0, keep=keep), memory, 1000)
    before = steady.found(revision, busy, standing, Mode(idle_s=0, keep=keep))
    if before is None or not before.more_than < stable <= before.at_most:
        return
    kept = steady.kept(revision, before, keep, busy.memory, idle_s, 1010)
    if kept is not None:
        signal, mode = Signal(stable, 0.0), Mode(idle_s=idle_s, keep=keep)
        again = decide(revision, signal, standing, mode, busy.memory, 1010)
        assert (again.desired, again.memory) == (1, busy.memory)
        assert kept == steady.bounds(revision, again, signal, standing, mode, 1010)


def test_one_that_its_habits_let_go_is_decided_on() -> None:
    revision, keep = Revision(project="p", name="r", image="i@sha256:1"), Keep(20)
    busy = decide(revision, Signal(1, 1, 1), Standing(1), Mode(idle_s=0, keep=keep), Memory(), 1000)
    before = steady.found(revision, busy, Standing(1), Mode(idle_s=0, keep=keep))
    assert before is not None
    assert steady.kept(revision, before, keep, Memory(), 19, 1020) is not None
    assert steady.kept(revision, before, keep, Memory(), 20, 1020) is None


def test_where_idle_times_are_followed_it_is_steady_only_while_there_is_load() -> None:
    revision, mode = Revision(project="p", name="r", image="i@sha256:1"), Mode(idle_s=0, keep=Keep(20))
    decision = decide(revision, Signal(40, 40), Standing(1), mode, Memory(), 0)
    bounds = steady.found(revision, decision, Standing(1), mode)
    assert bounds is not None
    assert bounds.holds(40, 1)
    assert not bounds.holds(40, 0)
    slow = Revision(project="p", name="r", image="i@sha256:1", scale=ScaleSpec(stable_window_s=600))
    assert steady.found(slow, decision, Standing(1), mode) is None, "its panic window is a minute long"


def test_one_instance_under_even_load_is_steady_until_load_leaves_its_bounds() -> None:
    revision = Revision(project="p", name="r", image="i@sha256:1")
    bounds = steady.found(revision, decide(revision, Signal(40, 40), Standing(1), Mode(), Memory(), 0), Standing(1), Mode())
    assert bounds is not None
    assert bounds.holds(1, 1)
    assert bounds.holds(69.9, 69.9)
    assert not bounds.holds(70.1, 69)
    assert not bounds.holds(40, 71)
    assert not bounds.holds(0, 0)
    assert not bounds.holds(None, None)


def test_what_starts_waits_or_has_no_route_is_not_steady() -> None:
    revision = Revision(project="p", name="r", image="i@sha256:1")
    decision = decide(revision, Signal(40, 40), Standing(1), Mode(), Memory(), 0)
    assert steady.found(revision, decision, Standing(1, 1), Mode()) is None
    assert steady.found(revision, decision, Standing(1), Mode(waking=1)) is None
    assert steady.found(revision, decision, Standing(1), Mode(reach=Reach.UNROUTED)) is None
    assert steady.found(revision, decision, Standing(1), Mode(verified=False)) is None


def test_in_panic_what_stands_is_steady_until_the_panic_is_over_or_begins_anew() -> None:
    revision = Revision(project="p", name="r", image="i@sha256:1")
    panicking = decide(revision, Signal(40, 40), Standing(2), Mode(), Memory(panic_at=0, panic_peak=2), 10)
    bounds = steady.found(revision, panicking, Standing(2), Mode())
    assert bounds is not None
    assert bounds.until == 60
    assert bounds.holds(0, 0)
    assert not bounds.holds(40, 211), "panic would begin anew"
    assert not bounds.holds(141, 100), "more would be needed"
