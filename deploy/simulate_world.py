"""The simulator's world: virtual time, callers, nodes and faults around the real throttler, placement and autoscaler
(`simulate_scaler`). Everything comes from one seed, so that what is found wrong is found again.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from activator.balance import Target
from activator.effects import Dispatch, DrainedNow, Effect, Refuse, Swelling, WakeUp
from activator.throttler import Throttler
from autoscaler import plan
from autoscaler.backoff import Row, failed
from autoscaler.fleet import Fleet, Slot
from autoscaler.need import Need
from deploy.simulate_ledger import Ledger
from deploy.simulate_scaler import Mind, Scaler
from deploy.simulate_traces import Trace
from store.lifecycle import ENDED, Phase
from store.model import Assignment, Failure, Goal, Instance, Node, Revision, RevisionKey

THROTTLE_S = 0.05
PARKED_S, POOLED_S, PARK_S, STOP_S = 0.015, 0.07, 0.05, 0.05
"""Ebb's own share of a start from parked and from nothing, of parking, of a stop; the app's boot comes on top."""
THAW_S = 0.003
"""From frozen to Ready, whatever the app is."""
TOLD_S = 0.001


@dataclass(slots=True, eq=False)
class Call:
    """One request."""

    at: float
    lasts_s: float
    cold: bool = False


@dataclass(slots=True, eq=False)
class App:
    """One revision: its callers, its throttler, what the autoscaler remembers of it and what came of it all."""

    revision: Revision
    key: RevisionKey
    need: Need
    trace: Trace
    calls: Any
    throttler: Throttler[Call]
    ledger: Ledger
    mind: Mind
    busy_at: float = 0.0
    """When the last call was here."""
    steadily: bool = False
    """Its last sample said that nobody waits and somebody is served; as long as nobody comes or goes, so does the next one."""
    next_at: float = float("inf")
    """When the next one comes; what only a yardstick may ask."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of starts that fail, and of seconds in which a node leaves."""

    start: float = 0.0
    node: float = 0.0
    away_s: float = 20.0


class World:
    """`play(until)`. `broken` has what should never be, in words."""

    def __init__(
        self, seed: int, apps: Iterable[tuple[Revision, Trace]], nodes: Sequence[Node], until: float, *,
        policy: str = "knative", faults: Faults | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.policy, self.until, self.faults = policy, until, faults or Faults()
        self.now = 0.0
        self.broken: list[str] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order, self._seq = itertools.count(1), itertools.count(1)
        self.apps: dict[RevisionKey, App] = {}
        self.answered: Callable[[App], None] = lambda _: None
        """Told of every call that was served."""
        self.fleet = Fleet(lambda key: self.apps[key].need)
        self.scaler = Scaler(self, policy)
        self._machines = list(nodes)
        self._ticking: set[RevisionKey] = set()
        self._live: dict[str, list[tuple[Call, Target]]] = {}
        self._unparked: set[str] = set()
        """Instances that were started from nothing."""
        for node in nodes:
            self.fleet.set_node(node)
        for revision, trace in apps:
            throttler = Throttler[Call](revision.key, revision.container_concurrency)
            ledger = Ledger(revision.memory_request_bytes / (1 << 20))
            app = App(revision, revision.key, Need.of(revision), trace, trace.calls(until), throttler, ledger, Mind())
            self.apps[app.key] = app
            self._next_call(app)
            if policy == "known":
                self.scaler.foresee(app, until)
        if self.faults.node:
            self.after(1.0, self._weather)

    def play(self, until: float) -> None:
        """Up to `until` seconds, or to the first thing that is broken."""
        while self._events and self._events[0][0] <= until and not self.broken:
            self.now, _, what, given = heapq.heappop(self._events)
            what(*given)

    def after(self, wait_s: float, what: Callable[..., None], *given: Any) -> None:
        """Call `what` in `wait_s`."""
        heapq.heappush(self._events, (self.now + wait_s, next(self._order), what, given))

    # -- callers --------------------------------------------------------------------------------------------------------------

    def _next_call(self, app: App) -> None:
        found = next(app.calls, None)
        app.next_at = found[0] if found is not None else float("inf")
        if found is not None:
            self.after(found[0] - self.now, self._call, app, found[1])

    def _call(self, app: App, lasts_s: float) -> None:
        self.ask(app, lasts_s)
        self._next_call(app)

    def ask(self, app: App, lasts_s: float) -> None:
        """One call, now, that takes `lasts_s` when it has an instance."""
        throttler, call, now = app.throttler, Call(self.now, lasts_s), self.now
        if not throttler.load.present and app.ledger.came:
            self.scaler.calls_again(app)
        app.ledger.came += 1
        app.busy_at = now
        self.scaler.loud[app.key] = self.scaler.active[app.key] = app
        target = throttler.reserve(now, self.random.random())
        if target is not None:
            app.ledger.present(throttler.load.present, now)
            self._begin(app, call, target, 0.0)
            return
        call.cold = not throttler.serving
        _, effects = throttler.arrive(call, now, now + app.revision.timeout_s)
        app.ledger.present(throttler.load.present, now)
        self.effects(app, effects)
        self._throttle_soon(app)

    def _throttle_soon(self, app: App) -> None:
        if app.key not in self._ticking:
            self._ticking.add(app.key)
            self.after(THROTTLE_S, self._throttle, app)

    def _throttle(self, app: App) -> None:
        self._ticking.discard(app.key)
        self.effects(app, app.throttler.tick(self.now))
        if app.throttler.restless:
            self._throttle_soon(app)

    def _begin(self, app: App, call: Call, target: Target, waited_s: float) -> None:
        if app.revision.container_concurrency and target.in_flight > app.revision.container_concurrency:
            self.broken.append(f"{self.now:.2f} {target}: more in flight than {app.revision.container_concurrency}")
        if call.cold:
            app.ledger.cold += 1
            app.ledger.cold_unparked += target.instance in self._unparked
        if waited_s > 0:
            app.ledger.waited.append((waited_s + call.lasts_s) / call.lasts_s)
        here = self._live.setdefault(target.instance, [])
        if not here:
            app.ledger.busies(1, self.now)
        here.append((call, target))
        self.after(call.lasts_s, self._done, app, call, target)

    def _done(self, app: App, call: Call, target: Target) -> None:
        here = self._live.get(target.instance, [])
        if (call, target) not in here:
            return  # Its node is gone, and it was answered with an error then.
        here.remove((call, target))
        if not here:
            del self._live[target.instance]
            app.ledger.busies(-1, self.now)
        app.ledger.served += 1
        self._release(app, target)
        self.answered(app)

    def _release(self, app: App, target: Target) -> None:
        app.busy_at = self.now
        self.effects(app, app.throttler.release(target, self.now))
        if not app.throttler.load.present:
            app.mind.others = max(0, app.ledger.standing - 1)

    def effects(self, app: App, effects: Iterable[Effect[Call]]) -> None:
        """Carry out what the throttler says."""
        for effect in effects:
            if isinstance(effect, Dispatch):
                self._begin(app, effect.request, effect.target, effect.waited_s)
            elif isinstance(effect, Refuse):
                app.ledger.refused += 1
                app.busy_at = self.now
            elif isinstance(effect, WakeUp):
                self.after(TOLD_S, self.scaler.wake, app, effect.waiting)
            elif isinstance(effect, Swelling):
                self.after(TOLD_S, self.scaler.swell, app)
            elif isinstance(effect, DrainedNow) and not self._rests(effect.instance):
                self.after(STOP_S, self._say, effect.instance, Phase.STOPPED)

    def _rests(self, instance: str) -> bool:
        """Whether nobody calls it any more because it is frozen, or was until now."""
        slot = self.fleet.get(instance)
        return slot is not None and slot.goal in (Goal.FREEZE, Goal.RUN)

    # -- nodes ----------------------------------------------------------------------------------------------------------------

    def obey(self, app: App, made: plan.Plan) -> None:
        """What was written reaches the nodes, in a moment."""
        for assignment, before in made.puts:
            self.after(TOLD_S, self._take_up, app, assignment, before > 0)
        for slot in made.deletes:
            self._unparked.discard(slot.name)
            self.effects(app, app.throttler.forgotten(slot.name, self.now))
        self._recount(app)
        self._check(app, made)

    def _take_up(self, app: App, assignment: Assignment, woken: bool) -> None:
        slot = self.fleet.get(assignment.instance)
        if slot is None or slot.assignment != assignment or not self.fleet.alive(slot.node):
            return
        if assignment.goal == Goal.PARK:
            self.after(PARK_S, self._say_if, slot.name, Goal.PARK, Phase.PARKED)
        elif assignment.goal == Goal.FREEZE:
            self._say(slot.name, Phase.FROZEN)
        elif assignment.goal == Goal.RUN and slot.phase is Phase.FROZEN:
            self.after(THAW_S, self._say_if, slot.name, Goal.RUN, Phase.READY)
        elif assignment.goal == Goal.RUN:
            app.ledger.starts += 1
            if not woken:
                self._unparked.add(slot.name)
            self._say(slot.name, Phase.STARTING)
            took_s = (PARKED_S if woken else POOLED_S) + app.trace.boot_s
            ends_in = Phase.FAILED if self.random.random() < self.faults.start else Phase.READY
            self.after(took_s, self._say_if, slot.name, Goal.RUN, ends_in)
        else:
            self._say(slot.name, Phase.DRAINING)

    def _say_if(self, name: str, goal: str, phase: Phase) -> None:
        slot = self.fleet.get(name)
        if slot is not None and slot.goal == goal and not slot.ended:
            self._say(name, phase)

    def _say(self, name: str, phase: Phase) -> None:
        slot = self.fleet.get(name)
        if slot is None or slot.ended or not self.fleet.alive(slot.node):
            return
        a, app = slot.assignment, self.apps[slot.assignment.revision_key]
        failure = Failure(reason="ExitCode1", message="it exited") if phase is Phase.FAILED else None
        news = Instance(
            instance=name, project=a.project, revision=a.revision, node=a.node, phase=phase, address=f"{name}:1",
            seq=next(self._seq), failure=failure,
        )  # fmt: skip
        thawed = slot.phase is Phase.FROZEN
        self.fleet.report(news)
        mind = app.mind
        mind.bounds = mind.awake = None
        if phase is Phase.READY:
            mind.row = Row()
            if not thawed:
                mind.profile.started(self.now - a.at, {"probe": app.trace.boot_s * 1000})
            if mind.waking:
                mind.profile.met(app.throttler.line.waiting or 1)
                mind.waking = 0
        elif phase is Phase.FAILED:
            mind.row = failed(mind.row, a.at, self.now)
            self.after(mind.row.wait_s(self.now) + 0.01, self.scaler.failed, app)
        if phase in ENDED:
            self._recount(app)
        self.effects(app, app.throttler.heard(news, self.now, stored=True))
        self.scaler.active[app.key] = app

    def _recount(self, app: App) -> None:
        standing = resting = 0
        for slot in self.fleet.of(app.key):
            if slot.ended:
                continue
            if slot.assignment.goal == Goal.PARK:
                resting += 1
            else:
                standing += 1
        app.ledger.stands(standing, resting, self.now)

    def _weather(self) -> None:
        up = [node for node in self._machines if self.fleet.alive(node.node)]
        if len(up) > 1 and self.now < self.until and self.random.random() < self.faults.node:
            self._crash(self.random.choice(up))
        self.after(1.0, self._weather)

    def _crash(self, node: Node) -> None:
        """A machine with all that runs on it is gone; its calls end in errors. It comes back empty."""
        slots = self.fleet.on(node.node)
        self.fleet.drop_node(node.node, self.now)
        for slot in slots:
            app = self.apps[slot.assignment.revision_key]
            app.mind.bounds = app.mind.awake = None
            lost = self._live.pop(slot.name, [])
            app.ledger.busies(-bool(lost), self.now)
            gone = self._gone(slot)
            for _, target in lost:
                app.ledger.refused += 1
                self._release(app, target)
            self.effects(app, app.throttler.heard(gone, self.now, stored=True))
            self.fleet.remove(slot.name)
            self._recount(app)
            self.scaler.active[app.key] = app
        self.after(self.faults.away_s, self.fleet.set_node, node)

    def _gone(self, slot: Slot) -> Instance:
        a = slot.assignment
        return Instance(
            instance=a.instance, project=a.project, revision=a.revision, node=a.node, phase=Phase.STOPPED, seq=next(self._seq)
        )

    # -- what must never be -----------------------------------------------------------------------------------------------------

    def _check(self, app: App, made: plan.Plan) -> None:
        last = app.mind.last
        assert last is not None
        spec, desired = app.revision.scale, last.desired
        if (spec.max_scale and desired > spec.max_scale) or desired < min(spec.min_scale, spec.max_scale or spec.min_scale):
            self.broken.append(f"{self.now:.2f} {app.key}: {desired} wished, {spec.min_scale}…{spec.max_scale} allowed")
        for assignment, _ in made.puts:
            node = self.fleet.nodes.get(assignment.node)
            _, memory, count = self.fleet.placement.taken(assignment.node)
            if node is not None and (memory > node.memory_bytes or count > node.slots + len(made.deletes)):
                self.broken.append(f"{self.now:.2f} {node.node}: {memory} bytes, {count} instances are too many")
