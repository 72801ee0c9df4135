"""The simulator's world: virtual time, callers, nodes and faults around the real throttler, signals, policy, placement, plan,
parking and back-off. Everything comes from one seed, so that what is found wrong is found again.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from activator.balance import Target
from activator.effects import Dispatch, DrainedNow, Effect, Refuse, Swelling, WakeUp
from activator.reporter import sample
from activator.throttler import Throttler
from autoscaler import keepalive, parking, plan, steady
from autoscaler.backoff import Row, failed
from autoscaler.fleet import Fleet, Slot
from autoscaler.idle import Reach
from autoscaler.placement import Need
from autoscaler.policy import Decision, Memory, Mode, decide, target_of
from autoscaler.profile import Profile
from autoscaler.signals import Signals
from deploy.simulate_traces import Trace
from store.lifecycle import Phase
from store.messages import Refusal
from store.model import Assignment, Failure, Goal, Instance, Node, Revision, RevisionKey

TICK_S, SAMPLE_S, THROTTLE_S = 2.0, 1.0, 0.25
PARKED_S, POOLED_S, PARK_S, STOP_S = 0.015, 0.07, 0.05, 0.05
"""Ebb's own share of a start from parked and from nothing, of parking, of a stop; the app's boot comes on top."""
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
    trace: Trace
    calls: Any
    throttler: Throttler[Call]
    profile: Profile = field(default_factory=Profile)
    memory: Memory = field(default_factory=Memory)
    row: Row = field(default_factory=Row)
    keep: keepalive.Keep | None = None
    bounds: steady.Steady | None = None
    last: Decision | None = None
    running_since: float = 0.0
    busy_at: float = 0.0
    """When the last call was here."""
    came: int = 0
    served: int = 0
    refused: int = 0
    cold: int = 0
    slow: list[float] = field(default_factory=list)
    wasted_mb_s: float = 0.0
    starts: int = 0
    over: float = 0.0
    """Most instances beyond need, as a share of need."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=30))


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of starts that fail, and of seconds in which a node leaves."""

    start: float = 0.0
    node: float = 0.0
    away_s: float = 20.0


class World:
    """`play(until)`. `broken` has what should never be, in words. `policy`: knative, fixed or learned."""

    def __init__(
        self, seed: int, apps: Iterable[tuple[Revision, Trace]], nodes: Sequence[Node], until: float, *,
        policy: str = "knative", faults: Faults | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.policy, self.until, self.faults = policy, until, faults or Faults()
        self.now = 0.0
        self.broken: list[str] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order, self._rev, self._seq, self._names = (itertools.count(1) for _ in range(4))
        self.signals = Signals()
        self.apps: dict[RevisionKey, App] = {}
        self.answered: Callable[[App], None] = lambda _: None
        """Told of every call that was served."""
        self.fleet = Fleet(lambda key: Need.of(self.apps[key].revision))
        self._machines = list(nodes)
        self._loud: set[RevisionKey] = set()
        self._active: set[RevisionKey] = set()
        self._ticking: set[RevisionKey] = set()
        self._live: dict[str, list[tuple[Call, Target]]] = {}
        for node in nodes:
            self.fleet.set_node(node)
        for revision, trace in apps:
            throttler = Throttler[Call](revision.key, revision.container_concurrency)
            self.apps[revision.key] = App(revision, trace, trace.calls(until), throttler)
            self._next_call(self.apps[revision.key])
        self._after(TICK_S, self._tick)
        self._after(SAMPLE_S, self._sample)
        if self.faults.node:
            self._after(1.0, self._weather)

    def play(self, until: float) -> None:
        """Up to `until` seconds, or to the first thing that is broken."""
        while self._events and self._events[0][0] <= until and not self.broken:
            self.now, _, what, given = heapq.heappop(self._events)
            what(*given)

    def _after(self, wait_s: float, what: Callable[..., None], *given: Any) -> None:
        heapq.heappush(self._events, (self.now + wait_s, next(self._order), what, given))

    # -- callers --------------------------------------------------------------------------------------------------------------

    def _next_call(self, app: App) -> None:
        found = next(app.calls, None)
        if found is not None:
            self._after(found[0] - self.now, self._call, app, found[1])

    def _call(self, app: App, lasts_s: float) -> None:
        self.ask(app, lasts_s)
        self._next_call(app)

    def ask(self, app: App, lasts_s: float) -> None:
        """One call, now, that takes `lasts_s` when it has an instance."""
        app.came += 1
        throttler, call = app.throttler, Call(self.now, lasts_s)
        if not throttler.load.present and app.came > 1:
            app.profile.was_idle(self.now - app.busy_at)
            app.keep = None
        app.busy_at = self.now
        self._loud.add(app.revision.key)
        self._active.add(app.revision.key)
        call.cold = not throttler.serving
        target = throttler.reserve(self.now, self.random.random())
        if target is not None:
            self._begin(app, call, target, 0.0)
        else:
            _, effects = throttler.arrive(call, self.now, self.now + app.revision.timeout_s)
            self._effects(app, effects)
            self._throttle_soon(app)

    def _throttle_soon(self, app: App) -> None:
        if app.revision.key not in self._ticking:
            self._ticking.add(app.revision.key)
            self._after(THROTTLE_S, self._throttle, app)

    def _throttle(self, app: App) -> None:
        self._ticking.discard(app.revision.key)
        self._effects(app, app.throttler.tick(self.now))
        if app.throttler.restless:
            self._throttle_soon(app)

    def _begin(self, app: App, call: Call, target: Target, waited_s: float) -> None:
        if app.revision.container_concurrency and target.in_flight > app.revision.container_concurrency:
            self.broken.append(f"{self.now:.2f} {target}: more in flight than {app.revision.container_concurrency}")
        app.cold += call.cold
        app.slow.append((waited_s + call.lasts_s) / call.lasts_s)
        self._live.setdefault(target.instance, []).append((call, target))
        self._after(call.lasts_s, self._done, app, call, target)

    def _done(self, app: App, call: Call, target: Target) -> None:
        here = self._live.get(target.instance, [])
        if (call, target) not in here:
            return  # Its node is gone, and it was answered with an error then.
        here.remove((call, target))
        app.served += 1
        self._release(app, target)
        self.answered(app)

    def _release(self, app: App, target: Target) -> None:
        app.busy_at = self.now
        self._effects(app, app.throttler.release(target, self.now))

    def _effects(self, app: App, effects: Iterable[Effect[Call]]) -> None:
        for effect in effects:
            if isinstance(effect, Dispatch):
                self._begin(app, effect.request, effect.target, effect.waited_s)
            elif isinstance(effect, Refuse):
                app.refused += 1
                app.busy_at = self.now
            elif isinstance(effect, WakeUp):
                self._after(TOLD_S, self._wake, app, effect.waiting)
            elif isinstance(effect, Swelling):
                self._after(TOLD_S, self._swell, app)
            elif isinstance(effect, DrainedNow):
                self._after(STOP_S, self._say, effect.instance, Phase.STOPPED)

    # -- the autoscaler -------------------------------------------------------------------------------------------------------

    def _wake(self, app: App, waiting: int) -> None:
        if not app.throttler.line.waiting:
            return
        self.signals.track(app.revision.key, app.revision.scale).wake("ingress", waiting, self.now)
        self._decide(app, tick=False, waking=waiting)
        if app.row.wait_s(self.now) > 0 and not self.fleet.standing(app.revision.key).asked:
            refusal = Refusal(revision=app.revision.key, reason="StartFailed", message="it exited", retry_after_s=1)
            self._effects(app, app.throttler.refused(refusal, self.now))

    def _swell(self, app: App) -> None:
        interval_s = self.now - app.throttler.load.since
        said = sample(app.throttler, self.now)
        if said is not None:
            self.signals.track(app.revision.key, app.revision.scale).take("ingress", interval_s, said, self.now)
            self._decide(app, tick=False)

    def _sample(self) -> None:
        for key in list(self._loud):
            app = self.apps[key]
            said = sample(app.throttler, self.now)
            if said is None:
                self._loud.discard(key)
                continue
            self.signals.track(key, app.revision.scale).take("ingress", SAMPLE_S, said, self.now)
            if said.queued:
                self._decide(app, tick=False)
        self._after(SAMPLE_S, self._sample)

    def _tick(self) -> None:
        for key in sorted(self._active):
            app = self.apps[key]
            self._account(app)
            if app.bounds is None or not app.bounds.holds(*self.signals.averages(key, self.now)):
                self._decide(app, tick=True)
            if self._at_rest(app):
                self._active.discard(key)
                self.signals.forget([key])
                self._prewake(app)
        self._after(TICK_S, self._tick)

    def _at_rest(self, app: App) -> bool:
        if app.throttler.load.present or app.last is None or app.last.desired or app.revision.scale.min_scale:
            return False
        return all(slot.goal == Goal.PARK for slot in self.fleet.of(app.revision.key)) and self._idle_s(app) > TICK_S

    def _prewake(self, app: App) -> None:
        wait_s = self._keep(app).next_s(self._idle_s(app)) if self.policy == "learned" else float("inf")
        if wait_s < float("inf"):
            self._after(max(0.0, app.busy_at + wait_s - self.now), self._look, app)

    def _look(self, app: App) -> None:
        if not app.throttler.load.present:
            self._active.add(app.revision.key)

    def _keep(self, app: App) -> keepalive.Keep:
        if app.keep is None:
            app.keep = keepalive.plan(app.profile, app.revision.memory_request_bytes)
        return app.keep

    def _idle_s(self, app: App) -> float:
        return 0.0 if app.throttler.load.present else self.now - app.busy_at

    def _decide(self, app: App, *, tick: bool, waking: int = 0) -> None:
        key = app.revision.key
        standing = self.fleet.standing(key)
        if not standing.asked:
            app.running_since = self.now
        mode = Mode(
            waking=waking,
            tick=tick,
            idle_s=self._idle_s(app),
            active_s=self.now - app.running_since,
            grace_s=30.0 if self.policy == "knative" else 0.0,
            keep=self._keep(app) if self.policy == "learned" else None,
        )
        signal = self.signals.view(key, self.now)
        app.last = decide(app.revision, signal, standing, mode, app.memory, self.now)
        app.memory = app.last.memory
        park, _ = parking.wanted(
            app.revision, enabled=True, reach=Reach.ROUTED, verified=True, failing=app.row.count > 0, desired=app.last.desired
        )
        wish = plan.Wish(app.last.desired, may_start=app.row.wait_s(self.now) == 0, park=park, at=self.now)
        made = plan.make(app.revision, wish, self.fleet, signal.busy, self._name)
        app.bounds = None if made else steady.found(app.revision, app.last, standing, mode)
        made.commit(self.fleet, next(self._rev))
        self._active.add(key)
        for assignment, before in made.puts:
            self._after(TOLD_S, self._obey, app, assignment, before > 0)
        for slot in made.deletes:
            self._effects(app, app.throttler.forgotten(slot.name, self.now))
        self._check(app, made)

    def _name(self, revision: str) -> str:
        return plan.instance_name(revision, f"{next(self._names):08}")

    # -- nodes ----------------------------------------------------------------------------------------------------------------

    def _obey(self, app: App, assignment: Assignment, woken: bool) -> None:
        slot = self.fleet.get(assignment.instance)
        if slot is None or slot.assignment != assignment or not self.fleet.alive(slot.node):
            return
        if assignment.goal == Goal.PARK:
            self._after(PARK_S, self._say_if, slot.name, Goal.PARK, Phase.PARKED)
        elif assignment.goal == Goal.RUN:
            app.starts += 1
            self._say(slot.name, Phase.STARTING)
            took_s = (PARKED_S if woken else POOLED_S) + app.trace.boot_s
            ends_in = Phase.FAILED if self.random.random() < self.faults.start else Phase.READY
            self._after(took_s, self._say_if, slot.name, Goal.RUN, ends_in)
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
        self.fleet.report(news)
        app.bounds = None
        if phase is Phase.READY:
            app.row = Row()
        elif phase is Phase.FAILED:
            app.row = failed(app.row, a.at, self.now)
            self._after(app.row.wait_s(self.now) + 0.01, self._again, app)
        self._effects(app, app.throttler.heard(news, self.now, stored=True))
        self._active.add(app.revision.key)

    def _again(self, app: App) -> None:
        self._decide(app, tick=False, waking=app.throttler.line.waiting)

    def _weather(self) -> None:
        up = [node for node in self._machines if self.fleet.alive(node.node)]
        if len(up) > 1 and self.now < self.until and self.random.random() < self.faults.node:
            self._crash(self.random.choice(up))
        self._after(1.0, self._weather)

    def _crash(self, node: Node) -> None:
        """A machine with all that runs on it is gone; its calls end in errors. It comes back empty."""
        slots = self.fleet.on(node.node)
        self.fleet.drop_node(node.node, self.now)
        for slot in slots:
            app = self.apps[slot.assignment.revision_key]
            app.bounds = None
            lost = self._live.pop(slot.name, [])
            gone = self._gone(slot)
            for _, target in lost:
                app.refused += 1
                self._release(app, target)
            self._effects(app, app.throttler.heard(gone, self.now, stored=True))
            self.fleet.remove(slot.name)
            self._active.add(app.revision.key)
        self._after(self.faults.away_s, self.fleet.set_node, node)

    def _gone(self, slot: Slot) -> Instance:
        a = slot.assignment
        return Instance(
            instance=a.instance, project=a.project, revision=a.revision, node=a.node, phase=Phase.STOPPED, seq=next(self._seq)
        )

    # -- what came of it, and what must never be --------------------------------------------------------------------------------

    def _account(self, app: App) -> None:
        running = self.fleet.running(app.revision.key)
        idle = sum(1 for slot in running if not self._live.get(slot.name))
        app.wasted_mb_s += idle * TICK_S * app.revision.memory_request_bytes / (1 << 20)
        app.recent.append(float(app.throttler.load.present))
        need = max(app.recent) / target_of(app.revision.scale, app.revision.container_concurrency).target
        app.over = max(app.over, len(running) / max(1.0, need) - 1)

    def _check(self, app: App, made: plan.Plan) -> None:
        assert app.last is not None
        spec, desired = app.revision.scale, app.last.desired
        if (spec.max_scale and desired > spec.max_scale) or desired < min(spec.min_scale, spec.max_scale or spec.min_scale):
            self.broken.append(
                f"{self.now:.2f} {app.revision.key}: {desired} wished, {spec.min_scale}…{spec.max_scale} allowed"
            )
        for slot in made.puts:
            node = self.fleet.nodes.get(slot[0].node)
            _, memory, count = self.fleet.placement.account()[slot[0].node]
            if node is not None and (memory > node.memory_bytes or count > node.slots + len(made.deletes)):
                self.broken.append(f"{self.now:.2f} {node.node}: {memory} bytes, {count} instances are too many")
