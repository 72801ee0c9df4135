"""Probes in virtual time, by Kubernetes' rules."""

import math

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.readiness import Became, ProbePlan, Readiness, Verdict, Which, plan_of
from store.model import Probe, Revision


def run(state: Readiness, until: float, answers: dict[Which, list[tuple[float, bool]]]) -> list[tuple[float, Verdict]]:
    """Play probes that take no time: each answers what its last (since, ok) before now says. Returns verdicts with their times."""
    found: list[tuple[float, Verdict]] = []
    while (due := state.next_due()) is not None:
        which, at = due
        at = min(at, state.deadline or at)
        if at > until:
            break
        late = state.expired(at)
        if late:
            found.append((at, late))
            break
        ok = [good for since, good in answers.get(which, [(0.0, False)]) if since <= at][-1:] == [True]
        verdict = state.answer(which, ok, at, "refused")
        if verdict:
            found.append((at, verdict))
    return found


def revision(**fields: object) -> Revision:
    return Revision(project="default", name="hello-1", image="x", **fields)  # type: ignore[arg-type]


def test_the_first_probe_comes_within_a_millisecond_and_then_every_two() -> None:
    state = Readiness(plan_of(revision()), 100.0)
    moments = []
    for _ in range(4):
        due = state.next_due()
        assert due is not None
        moments.append(round((due[1] - 100.0) * 1000, 3))
        state.answer(due[0], False, due[1])
    assert moments == [1, 3, 5, 7]


def test_an_app_that_listens_late_is_found_within_a_twentieth_of_its_time_and_fifty_milliseconds() -> None:
    for listens in (0.007, 0.25, 3.0, 120.0):
        state = Readiness(plan_of(revision()), 0.0)
        [(at, verdict)] = run(state, 200.0, {Which.READINESS: [(listens, True)]})[:1]
        assert verdict.became is Became.READY
        assert at - listens <= max(0.0021, min(0.05, listens / 19) + 1e-9)


def test_an_app_that_never_listens_is_given_up_at_the_deadline_with_the_last_reason() -> None:
    state = Readiness(plan_of(revision(progress_deadline_s=30)), 0.0)
    [(at, verdict)] = run(state, 1000.0, {})
    assert (at, verdict.became) == (30.0, Became.STARTUP_FAILED)
    assert "not ready within 30s: readiness probe: refused" in verdict.message
    assert state.next_due() is None


def test_without_a_shorter_deadline_starting_may_take_four_minutes() -> None:
    assert plan_of(revision()).deadline_s == 240


def test_a_ready_instance_is_asked_every_period_and_is_not_ready_after_so_many_failures() -> None:
    state = Readiness(plan_of(revision()), 0.0)
    verdicts = run(state, 60.0, {Which.READINESS: [(0.0, True), (15.0, False), (45.0, True)]})
    assert [(round(at), verdict.became) for at, verdict in verdicts] == [
        (0, Became.READY),
        (40, Became.NOT_READY),
        (45, Became.READY),
    ]


def test_success_threshold_counts_successes_in_a_row() -> None:
    probe = Probe(kind="http", period_s=1, success_threshold=3)
    state = Readiness(ProbePlan(probe), 0.0)
    verdicts = run(state, 9.0, {Which.READINESS: [(0.0, True), (2.0, False), (3.0, True)]})
    assert [(at, v.became) for at, v in verdicts] == [(5.0, Became.READY)]


def test_the_startup_probe_holds_the_others_back() -> None:
    plan = ProbePlan(
        readiness=Probe(kind="http", period_s=1),
        startup=Probe(kind="http", period_s=5, failure_threshold=10),
        liveness=Probe(kind="http", period_s=1, failure_threshold=1),
        startup_deadline_s=50,
    )
    state = Readiness(plan, 0.0)
    verdicts = run(
        state,
        21.0,
        {Which.STARTUP: [(0.0, False), (18.0, True)], Which.READINESS: [(0.0, True)], Which.LIVENESS: [(0.0, True)]},
    )
    assert [(at, v.became) for at, v in verdicts] == [(20.0, Became.READY)]


def test_a_startup_probe_that_fails_too_often_ends_the_start() -> None:
    probe = Probe(kind="http", period_s=2, failure_threshold=3, initial_delay_s=1)
    state = Readiness(plan_of(revision(startup_probe=probe)), 0.0)
    [(at, verdict)] = run(state, 100.0, {})
    assert (at, verdict.became) == (5.0, Became.STARTUP_FAILED)
    assert "3 times in a row" in verdict.message


def test_a_liveness_probe_that_fails_too_often_ends_the_instance() -> None:
    live = Probe(kind="http", period_s=2, failure_threshold=2, initial_delay_s=3)
    state = Readiness(ProbePlan(Probe(), None, live), 0.0)
    verdicts = run(state, 100.0, {Which.READINESS: [(0.0, True)], Which.LIVENESS: [(0.0, True), (10.0, False)]})
    assert [(at, v.became) for at, v in verdicts[1:]] == [(13.0, Became.LIVENESS_FAILED)]


def test_freezing_moves_everything_that_was_planned() -> None:
    state = Readiness(plan_of(revision()), 0.0)
    run(state, 1.0, {Which.READINESS: [(0.0, True)]})
    before = state.next_due()
    state.shift(500.0)
    after = state.next_due()
    assert before is not None
    assert after is not None
    assert after[1] - before[1] == 500.0


def test_an_adopted_instance_stays_ready_until_its_probe_says_otherwise() -> None:
    state = Readiness.already_ready(plan_of(revision(startup_probe=Probe())), 100.0)
    assert state.ready
    assert state.deadline is None
    verdicts = run(state, 200.0, {})
    assert [(at, v.became) for at, v in verdicts] == [(130.0, Became.NOT_READY)]


@given(
    period=st.sampled_from([0.0, 1.0, 10.0]),
    passes=st.integers(1, 3),
    fails=st.integers(1, 4),
    answers=st.lists(st.booleans(), max_size=60),
)
def test_ready_and_not_ready_alternate_and_probes_never_go_back_in_time(
    period: float, passes: int, fails: int, answers: list[bool]
) -> None:
    state = Readiness(
        ProbePlan(Probe(period_s=period, success_threshold=passes, failure_threshold=fails), deadline_s=math.inf), 0.0
    )
    last, told = -1.0, []
    for ok in answers:
        due = state.next_due()
        assert due is not None
        assert due[1] > last
        last = due[1]
        verdict = state.answer(due[0], ok, last)
        if verdict:
            told.append(verdict.became)
    assert told == [Became.READY if n % 2 == 0 else Became.NOT_READY for n in range(len(told))]
    assert state.ready == (len(told) % 2 == 1)
