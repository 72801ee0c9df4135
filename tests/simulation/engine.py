"""A small world on virtual time: callers, a throttler that holds the hard limit, nodes that start instances, and the real
signals, policy, placement and plan between them. Everything comes from one seed."""

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

from autoscaler import parking, plan
from autoscaler.fleet import Fleet, Slot
from autoscaler.idle import Reach
from autoscaler.need import Need
from autoscaler.policy import Decision, Memory, Mode, decide
from autoscaler.signals import Signals
from store.lifecycle import Phase
from store.messages import Sample
from store.model import Assignment, Goal, Instance, Node, Revision, RevisionKey, ScaleSpec

MI = 1 << 20
TICK_S, SAMPLE_S, WAKE_S = 2.0, 1.0, 0.25


@dataclass
class App:
    """One revision with its callers and its throttler."""

    revision: Revision
    service_s: float
    start_s: float
    phases: list[tuple[float, float]]
    """(until, requests per second), in order."""
    queue: deque[float] = field(default_factory=deque)
    in_flight: dict[str, int] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    running_since: float = 0.0
    wake_at: float = -1e9
    area: float = 0.0
    area_at: float = 0.0
    arrived: int = 0
    arrived_in_all: int = 0
    served: int = 0
    sampled_load: bool = False
    last: Decision | None = None

    @property
    def load(self) -> int:
        return len(self.queue) + sum(self.in_flight.values())

    @property
    def limit(self) -> int:
        return self.revision.container_concurrency or 1_000_000

    def count(self, now: float) -> None:
        """Bring the integral of load over time up to `now`; called before each change."""
        self.area += self.load * (now - self.area_at)
        self.area_at = now


class Sim:
    """`run(until)` plays; `broken` has what should never be, in words."""

    def __init__(self, seed: int, apps: int = 4) -> None:
        self.random = random.Random(seed)
        self.seed, self.now, self.broken = seed, 0.0, list[str]()
        self._events: list[tuple[float, int, str, object]] = []
        self._order = itertools.count()
        self._names = itertools.count()
        self._rev = itertools.count(1)
        self._seq = itertools.count(1)
        self.signals = Signals()
        self.apps: dict[RevisionKey, App] = {}
        self.fleet = Fleet(lambda key: Need.of(self.apps[key].revision))
        self.most: dict[RevisionKey, int] = {}
        self._make_nodes()
        for number in range(apps):
            self._make_app(number)
        self._at(TICK_S, "tick", None)
        self._at(SAMPLE_S, "sample", None)

    # -- the making of a world --------------------------------------------------------------------------------------------------

    def _make_nodes(self) -> None:
        for number in range(self.random.randint(1, 4)):
            memory = self.random.choice([512, 2048, 8192])
            self.fleet.set_node(
                Node(node=f"n{number}", cpu_m=2000, memory_bytes=memory * MI, slots=self.random.choice([20, 200]))
            )

    def _make_app(self, number: int) -> None:
        pick = self.random.choice
        spec = ScaleSpec(
            min_scale=pick([0, 0, 0, 1]),
            max_scale=pick([0, 0, 3, 10]),
            stable_window_s=pick([6.0, 20.0, 60.0]),
            target_utilization=pick([0.7, 1.0]),
            scale_down_delay_s=pick([0.0, 0.0, 10.0]),
            activation_scale=pick([0, 0, 2]),
            aggregation=pick(["linear", "linear", "weighted-exponential"]),
            metric=pick(["concurrency", "concurrency", "concurrency", "rps"]),
            target=pick([0.0, 0.0, 5.0]),
        )
        limits = (
            [0] if spec.metric == "rps" else [0, 1, 4, 20]
        )  # With rps as the target, a hard limit can starve a queue for ever.
        revision = Revision(
            project="p",
            name=f"r{number}",
            image=f"i@sha256:{number}",
            container_concurrency=pick(limits),
            memory_request_bytes=pick([0, 32, 128]) * MI,
            scale=spec,
        )
        phases, until = list[tuple[float, float]](), self.random.uniform(1, 20)
        phases.append((until, 0.0))
        for _ in range(3):
            until += self.random.uniform(5, 30)
            phases.append((until, pick([0.0, 0.5, 3.0, 15.0, 40.0])))
        app = App(revision, pick([0.02, 0.1, 0.4]), pick([0.02, 0.1, 1.0, 8.0]), phases)
        self.apps[revision.key] = app
        self._at(phases[0][0], "arrive", revision.key)

    # -- the play -----------------------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Play to `until` seconds, or to the first thing that is broken."""
        while self._events and self._events[0][0] <= until and not self.broken:
            self.now, _, what, of = heapq.heappop(self._events)
            getattr(self, f"_on_{what}")(of)

    def _at(self, at: float, what: str, of: object) -> None:
        heapq.heappush(self._events, (at, next(self._order), what, of))

    def _on_arrive(self, key: RevisionKey) -> None:
        app = self.apps[key]
        rate = next((rate for until, rate in app.phases if self.now < until), None)
        if rate is None:
            return
        if rate == 0:
            self._at(next(until for until, _ in app.phases if self.now < until), "arrive", key)
            return
        app.count(self.now)
        app.queue.append(self.now)
        app.arrived += 1
        app.arrived_in_all += 1
        self._dispatch(key, app)
        self._wake(key)
        self._at(self.now + self.random.expovariate(rate), "arrive", key)

    def _on_wake(self, key: RevisionKey) -> None:
        self._wake(key)

    def _wake(self, key: RevisionKey) -> None:
        app = self.apps[key]
        if not app.queue or self.fleet.standing(key).ready or self.now - app.wake_at < WAKE_S - 1e-9:
            return
        app.wake_at = self.now
        self.signals.track(key, app.revision.scale).wake("ingress", len(app.queue), self.now)
        self._decide(key, app, tick=False, waking=len(app.queue))
        self._at(self.now + WAKE_S, "wake", key)

    def _on_done(self, of: tuple[RevisionKey, str]) -> None:
        key, instance = of
        app = self.apps[key]
        app.count(self.now)
        app.in_flight[instance] -= 1
        app.served += 1
        slot = self.fleet.get(instance)
        if slot is not None and slot.goal == Goal.DRAIN and not app.in_flight[instance]:
            self._say(slot, Phase.STOPPED)
        self._dispatch(key, app)

    def _on_ready(self, instance: str) -> None:
        slot = self.fleet.get(instance)
        if slot is not None and slot.goal == Goal.RUN and not slot.ended:
            self._say(slot, Phase.READY)
            key = slot.assignment.revision_key
            self._dispatch(key, self.apps[key])

    def _on_parked(self, instance: str) -> None:
        slot = self.fleet.get(instance)
        if slot is not None and slot.goal == Goal.PARK:
            self._say(slot, Phase.PARKED)

    def _on_sample(self, _: object) -> None:
        for key, app in self.apps.items():
            app.count(self.now)
            if app.area or app.arrived or app.sampled_load:
                sample = Sample(
                    revision=key,
                    concurrency=app.area / SAMPLE_S,
                    requests=app.arrived,
                    in_flight=sum(app.in_flight.values()),
                    queued=len(app.queue),
                    by_instance={i: n for i, n in app.in_flight.items() if n},
                )
                self.signals.track(key, app.revision.scale).take("ingress", SAMPLE_S, sample, self.now)
                app.sampled_load = bool(app.area or app.arrived)
                app.area, app.arrived = 0.0, 0
                if app.queue:
                    self._decide(key, app, tick=False)
        self._at(self.now + SAMPLE_S + self.random.uniform(-0.02, 0.02), "sample", None)

    def _on_tick(self, _: object) -> None:
        for key, app in self.apps.items():
            self._decide(key, app, tick=True)
        self._at(self.now + TICK_S, "tick", None)

    def _dispatch(self, key: RevisionKey, app: App) -> None:
        ready = [s.name for s in self.fleet.running(key) if s.ready] if app.queue else []
        while app.queue and ready:
            least = min(ready, key=lambda name: app.in_flight.get(name, 0))
            if app.in_flight.get(least, 0) >= app.limit:
                return
            app.count(self.now)
            app.queue.popleft()
            app.in_flight[least] = app.in_flight.get(least, 0) + 1
            self._at(self.now + app.service_s * self.random.uniform(0.5, 1.5), "done", (key, least))

    # -- the autoscaler's turn ------------------------------------------------------------------------------------------------------

    def _decide(self, key: RevisionKey, app: App, *, tick: bool, waking: int = 0) -> None:
        standing = self.fleet.standing(key)
        if not standing.asked:
            app.running_since = self.now
        mode = Mode(
            reach=Reach.ROUTED,
            waking=waking,
            tick=tick,
            idle_s=self.now - max(0.0, self.signals.loaded_at(key)),
            active_s=self.now - app.running_since,
        )
        signal = self.signals.view(key, self.now)
        app.last = decide(app.revision, signal, standing, mode, app.memory, self.now)
        app.memory = app.last.memory
        park, _ = parking.wanted(
            app.revision, enabled=True, reach=Reach.ROUTED, verified=True, failing=False, desired=app.last.desired
        )
        wish = plan.Wish(app.last.desired, park=park, at=self.now)
        made = plan.make(
            app.revision, wish, self.fleet, signal.busy, lambda r: plan.instance_name(r, f"{next(self._names):06}")
        )
        made.commit(self.fleet, next(self._rev))
        for assignment, before in made.puts:
            self._obey(app, assignment, woken=before > 0)
        self._check(key, app, made)

    def _obey(self, app: App, assignment: Assignment, *, woken: bool) -> None:
        """What a node does with an assignment."""
        slot = self.fleet.get(assignment.instance)
        assert slot is not None
        if assignment.goal == Goal.PARK:
            self._at(self.now + 0.05, "parked", slot.name)
        elif assignment.goal == Goal.RUN:
            self._say(slot, Phase.STARTING)
            self._at(self.now + app.start_s + (0.01 if woken else 0.06), "ready", slot.name)
        elif app.in_flight.get(slot.name):
            self._say(slot, Phase.DRAINING)
        else:
            self._say(slot, Phase.STOPPED)

    def _say(self, slot: Slot, phase: Phase) -> None:
        a = slot.assignment
        status = Instance(
            instance=a.instance, project=a.project, revision=a.revision, node=a.node, phase=phase, seq=next(self._seq)
        )
        self.fleet.report(status)

    # -- what must never be -----------------------------------------------------------------------------------------------------------

    def _check(self, key: RevisionKey, app: App, made: plan.Plan) -> None:
        assert app.last is not None
        spec, desired = app.revision.scale, app.last.desired
        if spec.max_scale and desired > spec.max_scale:
            self.broken.append(f"{self.now:.2f} {key}: {desired} wished, at most {spec.max_scale} allowed")
        if desired < min(spec.min_scale, spec.max_scale or spec.min_scale):
            self.broken.append(f"{self.now:.2f} {key}: {desired} wished, at least {spec.min_scale} required")
        running = len(self.fleet.running(key))
        if not made.unplaced and running < min(desired, plan.AT_ONCE):
            self.broken.append(f"{self.now:.2f} {key}: {running} of {desired} stand, and nobody says why")
        for name, count in app.in_flight.items():
            if count > app.limit:
                self.broken.append(f"{self.now:.2f} {name}: {count} in flight, limit {app.limit}")
        for name, (_, memory, slots) in self.fleet.placement.account().items():
            node = self.fleet.nodes[name]
            if memory > node.memory_bytes or slots > node.slots + len(made.deletes):
                self.broken.append(
                    f"{self.now:.2f} {name}: {memory} bytes and {slots} instances on {node.memory_bytes} and {node.slots}"
                )
        self.most[key] = max(self.most.get(key, 0), running)
