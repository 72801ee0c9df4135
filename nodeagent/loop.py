"""The agent's loop: what changes (an assignment, an event, a moment) makes a plan, the plan makes actions, actions make events."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from nodeagent import actions as a
from nodeagent import drain, failures
from nodeagent.actions import Action, Do, Event, Task
from nodeagent.executor import Executor, Hands
from nodeagent.observed import Observed, on_event
from nodeagent.plan import actions_for, wake_at
from nodeagent.reporter import Reporter
from process import logs
from process.run import Jobs
from store import keys
from store.lifecycle import Phase
from store.messages import Drained
from store.model import Assignment, Failure, Goal, Member, decode
from store.story import Story
from store.watch import Table

PENDING_S = 0.1
"""After so long a new instance that has begun nothing visible is told of."""

_log = logs.get("nodeagent")


class Loop:
    """All instances of this node. `assignments` and `ingresses` are its tables: run them as fatal jobs."""

    def __init__(self, node: str, hands: Hands, reporter: Reporter, story: Story, jobs: Jobs) -> None:
        self._node, self._hands, self._reporter, self._story, self._jobs = node, hands, reporter, story, jobs
        self.observed: dict[str, Observed] = {}
        self._prefix = keys.assignments(node)
        self.assignments = Table(hands.store, self._prefix, Assignment, self._assigned)
        self.ingresses = Table(hands.store, keys.members("ingress"), Member, self._member)
        self._executor = Executor(hands, self.tell, self.give_up)
        reporter.wanted = lambda instance: self.want(instance) is not None
        self._running: dict[tuple[str, Do], asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._members: frozenset[str] = frozenset()
        """The ingresses that live."""
        self._open = False
        self._ending = False
        self._empty = asyncio.Event()

    @property
    def executor(self) -> Executor:
        return self._executor

    def want(self, instance: str) -> Assignment | None:
        return None if self._ending else self.assignments.get(self._prefix + instance)

    def begin(self, observed: Mapping[str, Observed]) -> None:
        """Take over what is there, and act from now on."""
        self.observed.update(observed)
        self._open = True
        for _, assignment in list(self.assignments.items()):
            self.touch(assignment.instance)
        for instance in list(self.observed):
            self.touch(instance)

    def add(self, have: Observed) -> None:
        """Something of ours turned up."""
        self.observed.setdefault(have.instance, have)
        self.touch(have.instance)

    async def end_all(self, timeout_s: float) -> None:
        """Stop every instance, with its grace, and clean up after it; returns when nothing is left or the time is over."""
        self._ending = True
        for instance in list(self.observed):
            self.touch(instance)
        if self.observed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
            except TimeoutError:
                _log.error("not all instances ended in time", left=sorted(self.observed), timeout_s=timeout_s)

    def close(self) -> None:
        """Begin nothing any more."""
        self._open = False
        for timer in self._timers.values():
            timer.cancel()

    # -- what changes ----------------------------------------------------------------------------------------------------------

    def _assigned(self, key: str, new: Assignment | None, old: Assignment | None) -> None:
        instance = key[len(self._prefix) :]
        if not self._open:
            return
        at = self._hands.clock.wall()
        self.touch(instance)  # first of all: a request may be waiting
        if new is not None and old is not None and new.goal == Goal.RUN and old.goal == Goal.PARK:
            self._hands.gate.hurry(instance)
        if new is not None and old is None and new.goal == Goal.RUN:
            asyncio.get_running_loop().call_later(PENDING_S, self._say_pending, instance)
        if new is not None and (old is None or old.goal != new.goal):
            revision, cause_id = new.revision_key, new.cause_id
            self._story.tell("assignment seen", cause_id=cause_id, instance=instance, revision=revision, at=at, goal=new.goal)

    def _say_pending(self, instance: str) -> None:
        """It waits for its turn: else those who wait for it would think that nobody heard them."""
        have = self.observed.get(instance)
        if self._open and have is not None and have.phase == Phase.PENDING and self._reporter.said(instance) is None:
            self._reporter.report(self.want(instance), have, Phase.PENDING)

    def _member(self, key: str, new: Member | None, old: Member | None) -> None:
        self._members = frozenset(member.member for _, member in self.ingresses.items())
        if new is None:
            for have in list(self.observed.values()):
                if have.phase in _LEAVING:
                    self.touch(have.instance)

    def drained(self, subject: str, data: bytes) -> None:
        """A message on `ebb.drained.<node>`."""
        try:
            message = decode(Drained, data)
        except msgspec.DecodeError as error:
            _log.warning("message not readable", subject=subject, error=str(error))
            return
        said = self._reporter.said(message.instance)
        if said is not None and (message.seq >= said.seq or not message.seq):
            self.tell(message.instance, a.Drained(self._hands.clock.now(), message.sender))

    def tell(self, instance: str, event: Event) -> None:
        """Something became true."""
        have = self.observed.get(instance)
        if have is not None:
            self.observed[instance] = on_event(have, event)
            self.touch(instance)

    def exited(self, instance: str, code: int, oom: Callable[[], bool]) -> None:
        """The first process of its task ended. `oom` is asked whether the kernel did it."""
        have = self.observed.get(instance)
        if have is None or (have.task in (Task.NONE, Task.EXITED) and not have.doing & a.BUILDING):
            return
        self._hands.prober.stop(instance)
        now = self._hands.clock.now()
        if have.term_at is not None or have.killed_at is not None or have.failure is not None or have.phase == Phase.DRAINING:
            self.tell(instance, a.Exited(now, failures.exited(code, False, have.revision, [], self._hands.clock.wall()), code))
            return
        killed_for_memory = oom()
        self.tell(instance, a.Readiness(now, False))
        self._jobs.start(self._explain(instance, code, killed_for_memory), f"exit of {instance}")

    async def _explain(self, instance: str, code: int, oom: bool) -> None:
        tail = await self._hands.logs.tail(instance, failures.TAIL_LINES)
        while (job := self._running.get((instance, Do.START_TASK))) is not None:
            await asyncio.wait({job}, timeout=30)  # a start that failed says more than the exit it makes
        have = self.observed.get(instance)
        revision = have.revision if have is not None else None
        failure = failures.exited(code, oom, revision, tail, self._hands.clock.wall())
        self.tell(instance, a.Exited(self._hands.clock.now(), failure, code))

    def stale(self, instance: str) -> None:
        """What it was made with has changed. One that is parked ends; one that runs keeps what it was started with."""
        want = self.want(instance)
        if want is not None and want.goal == Goal.PARK:
            _log.info("parked instance is out of date: its Secret or ConfigMap changed", instance=instance)
            self.tell(instance, a.Stale(self._hands.clock.now()))

    def give_up(self, instance: str, failure: Failure) -> None:
        """End it as failed, with its last log lines."""
        self._jobs.start(self._give_up(instance, failure), f"give up {instance}")

    async def _give_up(self, instance: str, failure: Failure) -> None:
        tail = await self._hands.logs.tail(instance, failures.TAIL_LINES)
        failure = msgspec.structs.replace(failure, log_tail=tail, at=self._hands.clock.wall())
        self.tell(instance, a.GivenUp(self._hands.clock.now(), failure))

    def say_leaving_again(self) -> None:
        """Ask the ingresses again that have not answered whether anything is in flight."""
        for have in self.observed.values():
            if have.phase in _LEAVING and drain.missing(self._members, have.drained_by):
                self._reporter.say_again(have.instance)

    # -- plan and act ----------------------------------------------------------------------------------------------------------

    def touch(self, instance: str) -> None:
        """Do what is to be done for it now."""
        if not self._open:
            return
        now = self._hands.clock.now()
        while True:
            want, have = self.want(instance), self.observed.get(instance)
            if have is None:
                if want is None:
                    return
                have = self.observed[instance] = Observed(instance)
            actions = actions_for(want, have, now, self._members)
            if not actions:
                self._wake_later(instance, want, have, now)
                return
            for action in actions:
                self._begin(action, want)

    def _begin(self, action: Action, want: Assignment | None) -> None:
        instance, now = action.instance, self._hands.clock.now()
        have = self.observed[instance]
        match action.do:
            case Do.REPORT:
                assert action.phase is not None
                self._reporter.report(want, have, action.phase)
                self.observed[instance] = on_event(have, a.Reported(now, action.phase))
            case Do.CANCEL:
                assert action.target is not None
                self.observed[instance] = on_event(have, a.Interrupted(now, action.target))
                job = self._running.pop((instance, action.target), None)
                if job is not None:
                    job.cancel()
            case Do.FORGET:
                self._reporter.forget(instance)
                del self.observed[instance]
                if not self.observed:
                    self._empty.set()
            case do:
                self.observed[instance] = have = on_event(have, a.Began(now, do))
                self._running[(instance, do)] = self._jobs.start(self._run(action, want, have), f"{do} {instance}")

    async def _run(self, action: Action, want: Assignment | None, have: Observed) -> None:
        event = await self._executor.perform(action, want, have)
        if self._running.pop((action.instance, action.do), None) is None:
            return  # it was cancelled too late to notice
        if isinstance(event, a.Interrupted):
            _log.warning("action interrupted; tried again", instance=action.instance, do=action.do, why=event.why)
        if isinstance(event, a.Failed) and not event.failure.at:
            event = replace(event, failure=msgspec.structs.replace(event.failure, at=self._hands.clock.wall()))
        self.tell(action.instance, event)  # first of all: a request may be waiting for what comes next
        if isinstance(event, a.Done) and action.do in _TOLD and want is not None:
            revision, cause_id = want.revision_key, want.cause_id
            self._story.tell(_TOLD[action.do], cause_id=cause_id, instance=action.instance, revision=revision, **event.took_ms)

    def _wake_later(self, instance: str, want: Assignment | None, have: Observed, now: float) -> None:
        timer = self._timers.pop(instance, None)
        if timer is not None:
            timer.cancel()
        at = wake_at(want, have, now)
        if at is not None:
            self._timers[instance] = asyncio.get_running_loop().call_later(at - now + 0.001, self._woken, instance)

    def _woken(self, instance: str) -> None:
        self._timers.pop(instance, None)
        self.touch(instance)


_LEAVING = frozenset({Phase.DRAINING, Phase.FROZEN})
_TOLD = {Do.CREATE_TASK: "task created", Do.START_TASK: "task started", Do.ENSURE_IMAGE: "image here", Do.THAW: "thawed"}
