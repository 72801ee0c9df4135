"""The plan of the node agent, run to its end in a small model of the machine; and killed at every step."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import actions as a
from nodeagent import adopt
from nodeagent.actions import Action, Do, Event, Task
from nodeagent.observed import PATIENCE_S, Observed, on_event
from nodeagent.plan import GRACE_S, actions_for, next_actions, wake_at
from nodeagent.tasks import CREATED, RUNNING, STOPPED, Found
from store.lifecycle import Phase
from store.model import Assignment, Failure, Goal, Instance, Revision

REVISION = Revision(project="p", name="r", image="i@sha256:0", timeout_s=60)
BAD = Failure(reason="StartFailed", message="it would not")


def want(goal: str) -> Assignment:
    return Assignment(instance="i", project="p", revision="r", node="n", goal=goal)


@dataclass
class Machine:
    """What containerd and the kernel have of one instance, and what was said of it. An agent in it can die."""

    deaf: bool = False
    """It ignores SIGTERM."""
    fails: frozenset[Do] = frozenset()
    container: bool = False
    status: int | None = None
    network: str = ""
    held: bool = False
    """The network is held by the agent (and not yet by a process)."""
    last: Instance | None = None
    now: float = 100.0
    starts: int = 0
    performed: list[Do] = field(default_factory=list)
    have: Observed = field(default_factory=lambda: Observed("i"))
    gone: bool = False
    frozen: bool = False

    def perform(self, action: Action) -> None:
        """Do it for real, then tell the agent; REPORT, CANCEL and FORGET as the loop does them."""
        self.performed.append(action.do)
        self.now += 0.001
        if action.do == Do.REPORT:
            assert action.phase is not None
            self.last = Instance(
                instance="i", project="p", revision="r", node="n", phase=action.phase, failure=self.have.failure
            )
            self.tell(a.Reported(self.now, action.phase))
        elif action.do == Do.CANCEL:
            assert action.target is not None
            self.tell(a.Interrupted(self.now, action.target))
        elif action.do == Do.FORGET:
            self.last, self.gone = None, True
            self.tell(a.Done(self.now, Do.FORGET))
        else:
            self.tell(a.Began(self.now, action.do))
            self.tell(self.outcome(action.do))

    def outcome(self, do: Do) -> Event:
        if do in self.fails:
            return a.Failed(self.now, do, BAD)
        match do:
            case Do.LOAD_REVISION:
                return a.RevisionLoaded(self.now, do, revision=REVISION)
            case Do.TAKE_NETWORK:
                self.network, self.held = "10.0.0.2", True
                return a.NetworkTaken(self.now, do, address=self.network)
            case Do.CREATE_CONTAINER:
                assert self.network
                self.container = True
            case Do.CREATE_TASK:
                assert self.container
                assert self.status is None
                self.status = CREATED
            case Do.START_TASK:
                assert self.status == CREATED
                self.status, self.starts = RUNNING, self.starts + 1
            case Do.PROBE:
                if not self.have.ready:
                    self.tell(a.Done(self.now, do))
                    return a.Readiness(self.now, True)
            case Do.FREEZE | Do.THAW:
                assert self.status is not None
                self.frozen = do == Do.FREEZE
            case Do.TERM | Do.KILL:
                assert not self.frozen, "cgroup v1 lets nothing frozen die"
                if do == Do.KILL or not self.deaf:
                    self.status = STOPPED
                    self.tell(a.Exited(self.now, BAD, 143))
            case Do.DELETE_TASK:
                assert not self.frozen
                self.status = None
            case Do.DELETE_CONTAINER:
                assert self.status is None
                self.container = False
            case Do.RELEASE_NETWORK:
                assert self.status is None
                self.network, self.held = "", False
        return a.Done(self.now, do)

    def tell(self, event: Event) -> None:
        self.have = on_event(self.have, event)

    def die(self, goal: Assignment | None) -> None:
        """The agent is killed and begins anew: what it held is freed, what it knew is gone."""
        if self.status is None:
            self.network = ""
        found = None
        if self.container:
            found = Found("i", {"address": self.network}, self.status, 1)
        self.have = adopt.recover("i", found, self.last, goal, self.now, frozen=self.frozen)
        if self.status == STOPPED:
            self.tell(a.Exited(self.now, BAD, 143))

    def settle(self, goal: Assignment | None, ingresses: frozenset[str] = frozenset(), steps: int | None = None) -> int:
        """Act until there is nothing to do, waiting where the plan waits; how many steps it took, at most `steps`."""
        taken = 0
        while steps is None or taken < steps:
            actions = [] if self.gone else actions_for(goal, self.have, self.now, ingresses)
            if not actions:
                at = wake_at(goal, self.have, self.now)
                if at is None or self.gone:
                    break
                self.now = at
                continue
            self.perform(actions[0])
            taken += 1
            assert taken < 200, f"no end: {self.performed[-20:]}"
        return taken

    def end(self) -> tuple[object, ...]:
        """What it has come to."""
        phase = self.last.phase if self.last is not None else None
        return (self.container, self.status, bool(self.network), phase, *(["frozen"] if self.frozen else []))


def test_a_parked_instance_is_created_and_not_started() -> None:
    machine = Machine()
    machine.settle(want(Goal.PARK))
    assert machine.end() == (True, CREATED, True, Phase.PARKED)
    assert Do.START_TASK not in machine.performed


def test_a_parked_instance_starts_with_one_call() -> None:
    machine = Machine()
    machine.settle(want(Goal.PARK))
    machine.performed.clear()
    machine.settle(want(Goal.RUN))
    assert machine.performed == [Do.REPORT, Do.START_TASK, Do.PROBE, Do.REPORT]
    assert machine.end() == (True, RUNNING, True, Phase.READY)


def test_image_and_network_are_got_side_by_side() -> None:
    have = replace(Observed("i"), revision=REVISION)
    assert [action.do for action in actions_for(want(Goal.RUN), have, 0)] == [Do.ENSURE_IMAGE, Do.TAKE_NETWORK]


@pytest.mark.parametrize("goal", [Goal.PARK, Goal.RUN, Goal.DRAIN])
def test_steady_input_makes_an_empty_plan(goal: str) -> None:
    machine = Machine()
    machine.settle(want(goal))
    assert next_actions({"i": want(goal)}, {"i": machine.have}, machine.now + 1) == []


def test_draining_waits_for_every_ingress() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    ingresses = frozenset({"a", "b"})
    began = machine.now
    machine.settle(want(Goal.DRAIN), ingresses, steps=1)
    assert machine.last is not None
    assert machine.last.phase == Phase.DRAINING
    machine.tell(a.Drained(machine.now, "a"))
    assert actions_for(want(Goal.DRAIN), machine.have, machine.now, ingresses) == []
    machine.tell(a.Drained(machine.now, "b"))
    machine.settle(want(Goal.DRAIN), ingresses)
    assert machine.end() == (False, None, False, Phase.STOPPED)
    assert machine.now < began + 1


def test_draining_ends_after_the_longest_request() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    began = machine.now
    machine.settle(want(Goal.DRAIN), frozenset({"silent"}))
    assert machine.end() == (False, None, False, Phase.STOPPED)
    assert machine.now >= began + REVISION.timeout_s


def test_an_ingress_that_died_is_not_waited_for() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    began = machine.now
    machine.settle(want(Goal.DRAIN), frozenset({"dead"}), steps=1)
    machine.settle(want(Goal.DRAIN), frozenset())
    assert machine.end() == (False, None, False, Phase.STOPPED)
    assert machine.now < began + 1


def test_what_ignores_sigterm_is_killed_after_its_grace() -> None:
    machine = Machine(deaf=True)
    machine.settle(want(Goal.RUN))
    began = machine.now
    machine.settle(None)
    assert machine.gone
    assert machine.performed.index(Do.TERM) < machine.performed.index(Do.KILL)
    assert GRACE_S <= machine.now - began < GRACE_S + 1


def test_a_failed_instance_leaves_nothing_but_its_word() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.status = STOPPED
    machine.tell(a.Exited(machine.now, Failure(reason="ExitCode3", message="exited with code 3", exit_code=3), 3))
    machine.settle(want(Goal.RUN))
    assert machine.end() == (False, None, False, Phase.FAILED)
    assert machine.last is not None
    assert machine.last.failure is not None
    assert machine.last.failure.reason == "ExitCode3"
    assert machine.starts == 1


def test_an_exit_that_was_asked_for_is_no_failure() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.settle(want(Goal.DRAIN))
    assert machine.last is not None
    assert machine.last.phase == Phase.STOPPED


@pytest.mark.parametrize("do", sorted(a.BUILDING - {Do.PROBE}))
def test_a_start_that_fails_anywhere_cleans_up(do: Do) -> None:
    machine = Machine(fails=frozenset({do}))
    machine.settle(want(Goal.RUN))
    assert machine.end() == (False, None, False, Phase.FAILED)


def test_a_containerd_that_comes_back_in_time_costs_no_start() -> None:
    have = replace(
        Observed("i"), revision=REVISION, image=True, address="10.0.0.2", container=True, doing=frozenset({Do.CREATE_TASK})
    )
    have = on_event(have, a.Interrupted(5.0, Do.CREATE_TASK, "connection refused"))
    assert actions_for(want(Goal.RUN), have, 5.0) == []
    at = wake_at(want(Goal.RUN), have, 5.0)
    assert at is not None
    assert [action.do for action in actions_for(want(Goal.RUN), have, at)] == [Do.CREATE_TASK]


def test_a_containerd_that_stays_away_fails_the_start() -> None:
    have = replace(Observed("i"), revision=REVISION, image=True, address="10.0.0.2", container=True)
    now = 5.0
    while have.failure is None:
        assert now < 5 + 2 * PATIENCE_S
        have = on_event(have, a.Began(now, Do.CREATE_TASK))
        have = on_event(have, a.Interrupted(now, Do.CREATE_TASK, "connection refused"))
        now = wake_at(want(Goal.RUN), have, now) or now + 1
    assert "connection refused" in have.failure.message


def test_an_assignment_withdrawn_while_it_pulls_stops_the_pull() -> None:
    have = replace(Observed("i"), phase=Phase.PULLING, revision=REVISION, doing=frozenset({Do.ENSURE_IMAGE}), pulling=True)
    assert actions_for(None, have, 0) == [Action(Do.CANCEL, "i", target=Do.ENSURE_IMAGE)]


def frozen(ingresses: frozenset[str] = frozenset()) -> Machine:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.settle(want(Goal.FREEZE), ingresses)
    machine.performed.clear()
    return machine


def test_a_ready_instance_is_told_frozen_first_and_frozen_when_every_ingress_has_let_go() -> None:
    machine = frozen(frozenset({"a", "b"}))
    assert machine.last is not None
    assert machine.last.phase == Phase.FROZEN
    machine.tell(a.Drained(machine.now, "a"))
    machine.settle(want(Goal.FREEZE), frozenset({"a", "b"}))
    assert not machine.frozen
    machine.now += 3600  # As long as something is in flight, however long that takes.
    machine.tell(a.Drained(machine.now, "b"))
    machine.settle(want(Goal.FREEZE), frozenset({"a", "b"}))
    assert machine.end() == (True, RUNNING, True, Phase.FROZEN, "frozen")


def test_a_frozen_instance_is_ready_after_one_step() -> None:
    machine = frozen()
    machine.settle(want(Goal.RUN))
    assert machine.performed == [Do.THAW, Do.REPORT]
    assert machine.end() == (True, RUNNING, True, Phase.READY)
    assert machine.starts == 1


def test_an_instance_that_is_wanted_again_before_it_froze_is_ready_at_once() -> None:
    machine = frozen(frozenset({"a"}))
    machine.settle(want(Goal.RUN), frozenset({"a"}))
    assert machine.performed == [Do.REPORT]
    machine.tell(a.Drained(machine.now, "b"))
    machine.settle(want(Goal.FREEZE), frozenset({"a"}))
    assert not machine.frozen, "an ingress that let go once uses it again since"


def test_a_frozen_instance_is_thawed_before_it_is_told_to_stop() -> None:
    machine = frozen()
    machine.settle(want(Goal.DRAIN))
    assert machine.performed.index(Do.THAW) < machine.performed.index(Do.TERM)
    assert machine.end() == (False, None, False, Phase.STOPPED)


def test_an_instance_that_ends_while_it_is_frozen_has_failed() -> None:
    machine = frozen()
    machine.status = STOPPED
    machine.tell(a.Exited(machine.now, BAD, 137))
    machine.settle(want(Goal.FREEZE))
    assert machine.end() == (False, None, False, Phase.FAILED)


def test_one_that_is_not_ready_is_not_frozen() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.tell(a.Readiness(machine.now, False))
    machine.settle(want(Goal.FREEZE))
    assert machine.end() == (True, RUNNING, True, Phase.STARTING)


GOALS = st.lists(st.sampled_from([Goal.PARK, Goal.RUN, Goal.FREEZE, "again", Goal.DRAIN, None]), min_size=1, max_size=4)


def _ordered(goals: list[str | None]) -> list[str | None]:
    """As an autoscaler would: a park may become a run, a run a freeze and a run again, all a drain, and all may be withdrawn."""
    order = [Goal.PARK, Goal.RUN, Goal.FREEZE, "again", Goal.DRAIN, None]
    return [Goal.RUN if goal == "again" else goal for goal in sorted(set(goals), key=order.index)]


@given(goals=GOALS, deaf=st.booleans(), fails=st.sets(st.sampled_from(sorted(a.BUILDING - {Do.PROBE})), max_size=1))
def test_killed_at_every_step_it_comes_to_the_same_end(goals: list[str | None], deaf: bool, fails: set[Do]) -> None:
    def life(crash_at: int | None) -> Machine:
        machine = Machine(deaf=deaf, fails=frozenset(fails))
        steps = 0
        for goal in _ordered(goals):
            wanted = want(goal) if goal is not None else None
            if crash_at is not None and steps <= crash_at:
                steps += machine.settle(wanted, steps=crash_at - steps)
                if steps == crash_at:
                    machine.die(wanted)
                    crash_at = None
            steps += machine.settle(wanted)
        return machine

    whole = life(None)
    for crash_at in range(len(whole.performed) + 1):
        again = life(crash_at)
        assert again.end() == whole.end(), f"killed after {again.performed[:crash_at]}, then {again.performed[crash_at:]}"
        assert again.starts <= 1, "started twice"


@given(goals=GOALS)
def test_an_event_told_twice_changes_nothing(goals: list[str | None]) -> None:
    class Stammering(Machine):
        def tell(self, event: Event) -> None:
            super().tell(event)
            if not isinstance(event, a.Interrupted):
                once = self.have
                super().tell(event)
                assert self.have == once, event

    machine = Stammering()
    for goal in _ordered(goals):
        machine.settle(want(goal) if goal is not None else None)


def test_a_task_that_is_lost_while_the_agent_is_away_is_not_started_again() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.container, machine.status, machine.network = False, None, ""
    machine.die(want(Goal.RUN))
    machine.settle(want(Goal.RUN))
    assert machine.last is not None
    assert machine.last.failure is not None
    assert machine.last.failure.reason == "TaskLost"
    assert machine.starts == 1


def test_an_orphan_is_stopped_and_forgotten() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.last = None
    machine.die(None)
    machine.settle(None)
    assert machine.gone
    assert machine.end() == (False, None, False, None)


def test_a_task_never_shows_as_running_after_it_exited() -> None:
    have = replace(Observed("i"), task=Task.CREATED, doing=frozenset({Do.START_TASK}))
    have = on_event(have, a.Exited(1.0, BAD, 1))
    have = on_event(have, a.Done(1.1, Do.START_TASK))
    assert have.task == Task.EXITED
    assert have.failure == BAD
