"""The plan of the node agent on the way down: draining, freezing, stopping."""

from nodeagent import actions as a
from nodeagent.actions import Do
from nodeagent.plan import GRACE_S, actions_for
from nodeagent.tasks import RUNNING, STOPPED
from store.lifecycle import Phase
from store.model import Failure, Goal
from tests.unit.nodeagent.machine import BAD, REVISION, Machine, want


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


def test_an_orphan_is_stopped_and_forgotten() -> None:
    machine = Machine()
    machine.settle(want(Goal.RUN))
    machine.last = None
    machine.die(None)
    machine.settle(None)
    assert machine.gone
    assert machine.end() == (False, None, False, None)
