"""A small model of the machine that a node agent's plan acts on."""

from dataclasses import dataclass, field

from nodeagent import actions as a
from nodeagent import adopt
from nodeagent.actions import Action, Do, Event
from nodeagent.observed import Observed, on_event
from nodeagent.plan import actions_for, wake_at
from nodeagent.tasks import CREATED, RUNNING, STOPPED, Found
from store.model import Assignment, Failure, Instance, Revision

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
