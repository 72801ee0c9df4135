"""The autoscaler's turn in the simulator: the real signals, policy, profile, keep-alive, budget, plan, parking and back-off."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from activator.reporter import sample
from autoscaler import freezing, keepalive, parking, plan, steady
from autoscaler.backoff import Row
from autoscaler.budget import FRUGAL, SHARE, Budget
from autoscaler.idle import Reach
from autoscaler.policy import Decision, Memory, Mode, Standing, decide, target_of
from autoscaler.profile import GAP_S, Profile
from autoscaler.signals import Signal, Signals
from store.messages import Refusal
from store.model import Goal, RevisionKey

if TYPE_CHECKING:
    from deploy.simulate_world import App, World

INF = math.inf
TICK_S, SAMPLE_S = 2.0, 1.0
GRACE_S = 30.0
"""What Knative waits at most beyond the window, before the last instance goes."""


@dataclass(slots=True)
class Mind:
    """What the autoscaler remembers of one app."""

    profile: Profile = field(default_factory=Profile)
    memory: Memory = field(default_factory=Memory)
    row: Row = field(default_factory=Row)
    keep: keepalive.Keep | None = None
    bounds: steady.Steady | None = None
    """Within which load, and until when, the last decision holds."""
    awake: steady.Steady | None = None
    """The same of the last decision with load, while the same instances stand."""
    last: Decision | None = None
    running_since: float = 0.0
    others: int = 0
    """Instances beside the first that stood when the last call left."""
    waking: int = 0
    """Calls that wait with nothing to run them."""
    due_at: float = INF
    """When it is looked at again though nothing happens."""


class Scaler:
    """`policy`: knative, grace, fixed, learned, frugal or frozen (see `deploy/simulate.py`)."""

    def __init__(self, world: World, policy: str) -> None:
        self.world, self.policy = world, policy
        self.habits = policy in ("learned", "frugal", "frozen", "known", "oracle")
        self.signals = Signals()
        self.budget = Budget(0.0, FRUGAL if policy == "frugal" else SHARE)
        self.loud: dict[RevisionKey, App] = {}
        """Who has something to report."""
        self.active: dict[RevisionKey, App] = {}
        self._grace_s = GRACE_S if policy == "grace" else 0.0
        self._rev, self._names = itertools.count(1), itertools.count(1)
        world.after(TICK_S, self._tick)
        world.after(SAMPLE_S, self._sample)

    def foresee(self, app: App, until: float) -> None:
        """The yardstick `known`: its idle times up to `until` as a whole are known from the start."""
        free_at = float("inf")
        for at, lasts_s in app.trace.calls(until):
            if at - free_at > GAP_S:
                app.mind.profile.was_idle(at - free_at)
            free_at = max(free_at, at + lasts_s) if free_at < float("inf") else at + lasts_s

    def idle_s(self, app: App) -> float:
        """How long no call has been here."""
        return 0.0 if app.throttler.load.present else self.world.now - app.busy_at

    def calls_again(self, app: App) -> None:
        """A call came after nothing was here: what that idle time tells is learned."""
        idle_s, mind = self.world.now - app.busy_at, app.mind
        if idle_s > GAP_S:
            if self.policy != "known":
                mind.profile.was_idle(idle_s)
            if mind.keep is not None:
                window_s = min(idle_s, app.revision.scale.stable_window_s)
                self.budget.settle(
                    mind.keep.held_s(idle_s), window_s, app.ledger.memory_mb, self.world.now, mind.others, mind.keep.others_s
                )
            mind.keep = None
            if mind.bounds is not None and mind.bounds.more_than < 0:
                mind.bounds = mind.awake

    def wake(self, app: App, waiting: int) -> None:
        """The throttler says that somebody waits with nothing to run it."""
        if not app.throttler.line.waiting:
            return
        self.signals.track(app.key, app.revision.scale).wake("ingress", waiting, self.world.now)
        app.mind.waking = app.throttler.line.waiting
        self.decide(app, tick=False, waking=waiting)
        if app.mind.row.wait_s(self.world.now) > 0 and not self.world.fleet.standing(app.key).asked:
            refusal = Refusal(revision=app.key, reason="StartFailed", message="it exited", retry_after_s=1)
            self.world.effects(app, app.throttler.refused(refusal, self.world.now))

    def swell(self, app: App) -> None:
        """The throttler says that its line swells."""
        interval_s = self.world.now - app.throttler.load.since
        said = sample(app.throttler, self.world.now)
        if said is not None:
            self.signals.track(app.key, app.revision.scale).take("ingress", interval_s, said, self.world.now)
            self.decide(app, tick=False)

    def failed(self, app: App) -> None:
        """A wait after a failed start is over."""
        self.decide(app, tick=False, waking=app.throttler.line.waiting)

    def decide(self, app: App, *, tick: bool, waking: int = 0) -> None:
        """One decision, and what follows from it, at once."""
        world, mind, key, now = self.world, app.mind, app.key, self.world.now
        standing = world.fleet.standing(key)
        if not standing.asked:
            mind.running_since = now
        mode = Mode(
            waking=waking, tick=tick, idle_s=self.idle_s(app), active_s=now - mind.running_since, grace_s=self._grace_s,
            keep=self._keep(app) if self.habits else None,
            freezes=self._freezes(app) if self.policy == "frozen" else "",
        )  # fmt: skip
        signal = self.signals.view(key, now)
        mind.last = decide(app.revision, signal, standing, mode, mind.memory, now)
        mind.memory = mind.last.memory
        park, _ = parking.wanted(
            app.revision, enabled=True, reach=Reach.ROUTED, verified=True, failing=mind.row.count > 0, desired=mind.last.desired
        )
        wish = plan.Wish(mind.last.desired, may_start=mind.row.wait_s(now) == 0, park=park, freeze=bool(mode.freezes), at=now)
        made = plan.make(app.revision, wish, world.fleet, signal.busy, self._name)
        mind.bounds = None if made else steady.bounds(app.revision, mind.last, signal, standing, mode, now)
        if mind.bounds is None or mind.bounds.more_than >= 0:
            mind.awake = mind.bounds
        self.active[key] = app
        if made:
            made.commit(world.fleet, next(self._rev))
            world.obey(app, made)
            app.ledger.compare(
                len(world.fleet.running(key)), target_of(app.revision.scale, app.revision.container_concurrency).target
            )
        elif tick and self._may_rest(signal, standing, mind):
            self._rest(app, mode)

    def _freezes(self, app: App) -> str:
        """Why its last instance is frozen when its habits let it go, or nothing."""
        fleet = self.world.fleet
        room = any(
            slot.goal != Goal.PARK and fleet.alive(slot.node) and fleet.placement.headroom(slot.node) > parking.RESERVE
            for slot in fleet.of(app.key)
        )
        return freezing.chosen(app.revision, Reach.ROUTED, app.mind.profile.phases_s.get("probe", 0.0), room=room)

    def _settled(self, app: App, bounds: steady.Steady) -> bool:
        """Whether the last decision holds; what is quiet is not looked at again before it may not."""
        now, key = self.world.now, app.key
        if app.throttler.load.present or key in self.loud:
            if now >= bounds.until:
                return False
            heard = bounds.panic_above < 0 or self.signals.loaded_at(key) > now - SAMPLE_S
            if heard and bounds.more_than <= 0 and app.ledger.peak <= bounds.at_most and app.ledger.peak < bounds.panic_below:
                return True  # No average exceeds the most that was here, and somebody is.
            return bounds.holds(*self.signals.averages(key, now))
        if now >= bounds.until:
            return bounds.more_than < 0 and self._stays(app, bounds)
        # Without calls, averages only fade, and when they leave the bounds can be told.
        panic = bounds.panic_above, math.nextafter(bounds.panic_below, 0.0)
        leaves_at = self.signals.leaves(key, now, (bounds.more_than, bounds.at_most), panic)
        due_at = min(bounds.until, leaves_at)
        if due_at > now + TICK_S:
            self.active.pop(key, None)
            app.mind.due_at = due_at
            if due_at < INF:
                self.world.after(due_at - now - TICK_S / 2, self._look, app, due_at)
        return leaves_at > now or (bounds.more_than <= 0 and self._stays(app, bounds))

    def _stays(self, app: App, bounds: steady.Steady) -> bool:
        """Whether one instance that has become idle is kept by its habits, so that nothing has to be decided."""
        mind, now = app.mind, self.world.now
        if not self.habits or self.policy == "frozen" or mind.last is None or mind.last.desired != 1:
            return False
        stable, panic = self.signals.averages(app.key, now)
        if panic or not stable or stable > bounds.at_most:
            return False
        found = steady.kept(app.revision, bounds, self._keep(app), mind.memory, self.idle_s(app), now)
        mind.bounds = found or bounds
        return found is not None

    def _may_rest(self, signal: Signal, standing: Standing, mind: Mind) -> bool:
        """Whether only time, or a call, can change the decision."""
        quiet = not signal.load and not signal.stable and not signal.panic and not standing.starting
        return quiet and mind.last is not None and mind.last.desired == standing.ready and mind.memory == Memory()

    def _rest(self, app: App, mode: Mode) -> None:
        """Look again when time changes the decision; until then a call or a node is what can."""
        spec, idle_s = app.revision.scale, mode.idle_s
        ends_s = spec.stable_window_s + max(self._grace_s, spec.retention_s)
        if mode.keep is not None:
            ends_s = mode.keep.ends_s(idle_s)
            ends_s = min(ends_s, spec.retention_s) if idle_s < spec.retention_s else ends_s
        if app.mind.last is not None and app.mind.last.desired > spec.min_scale and not idle_s < ends_s:
            return  # It may go, but for something else that changes soon.
        app.mind.due_at = INF
        self.active.pop(app.key, None)
        if not self.world.fleet.standing(app.key).asked:
            self.signals.forget([app.key])
            if mode.keep is None:
                return
        if idle_s <= ends_s < INF:
            app.mind.due_at = app.busy_at + ends_s
            self.world.after(max(0.0, app.mind.due_at - self.world.now) + 1e-3, self._look, app, app.mind.due_at)

    def _look(self, app: App, due_at: float) -> None:
        if app.mind.due_at == due_at:
            self.active[app.key] = app

    def _keep(self, app: App) -> keepalive.Keep:
        keep, price_mb_s = app.mind.keep, self.budget.price_mb_s
        if keep is None and self.policy == "oracle":
            worth_mb_s = price_mb_s * max(1.0, app.mind.profile.crowd)
            idle_s = app.next_at - app.busy_at
            keep = keepalive.Keep(idle_s + 1 if idle_s * app.ledger.memory_mb <= worth_mb_s else keepalive.SHORTEST_S)
        elif keep is None:
            keep = keepalive.plan(app.mind.profile, app.revision.memory_request_bytes, price_mb_s)
        if self.policy != "oracle" or not app.throttler.load.present:
            app.mind.keep = keep
        return keep

    def _sample(self) -> None:
        now = self.world.now
        for key, app in list(self.loud.items()):
            if app.steadily and self._says_the_same(app, now):
                continue
            said = sample(app.throttler, now)
            app.steadily = said is not None and said.in_flight > 0 and not said.queued
            if said is None:
                del self.loud[key]
                self.active[key] = app
                continue
            self.signals.track(key, app.revision.scale).take("ingress", SAMPLE_S, said, now)
            if said.queued:
                self.decide(app, tick=False)
        self.world.after(SAMPLE_S, self._sample)

    def _says_the_same(self, app: App, now: float) -> bool:
        """Whether all calls that were here at the last sample are, and no other came."""
        throttler = app.throttler
        load = throttler.load
        if load.arrived or load.area or load.present != throttler.in_flight:
            return False
        if not self.signals.track(app.key, app.revision.scale).repeat("ingress", load.present, now):
            return False
        load.take(now)
        return True

    def _tick(self) -> None:
        for app in list(self.active.values()):
            bounds = app.mind.bounds
            if bounds is None or not self._settled(app, bounds):
                self.decide(app, tick=True)
        self.world.after(TICK_S, self._tick)

    def _name(self, revision: str) -> str:
        return plan.instance_name(revision, f"{next(self._names):08}")
