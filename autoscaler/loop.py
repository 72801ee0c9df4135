"""The autoscaler's loop: what was marked is evaluated before the event loop sleeps again, a wake at once, the rest at ticks.

A tick touches active revisions only. One transaction at a time is on the way for each revision; what happens meanwhile is looked
at when it is back. A refused transaction is taken back and decided anew. While the store is away nothing is decided.
"""

import asyncio

from autoscaler import explain, freezing, measures, parking, plan
from autoscaler.act import Hands
from autoscaler.active import Active, Made
from autoscaler.hear import Ears
from autoscaler.idle import Reach
from autoscaler.mind import Limits, Mind
from autoscaler.policy import Decision, Standing, decide
from process import logs
from process.clock import Clock
from process.ids import short_id
from process.run import Jobs
from store import messages
from store.backend import Store
from store.bus import Bus
from store.lifecycle import Phase
from store.model import Revision, RevisionKey, Scale
from store.story import Story
from store.txn import Guard

log = logs.get("autoscaler")

BATCH = 100
"""Revisions at zero that a new leader looks at before the event loop may turn to something else: some milliseconds."""


class Scaler:
    """One autoscaler: `start` makes it hear, `lead` makes it decide."""

    def __init__(self, store: Store, bus: Bus, clock: Clock, story: Story, limits: Limits, jobs: Jobs) -> None:
        self._bus, self._clock, self._jobs = bus, clock, jobs
        self.mind = Mind(limits, clock.now())
        self.hands = Hands(self.mind, store, bus, clock, story, jobs)
        self.ears = Ears(self.mind, self.hands, clock, self.mark, self._evaluate)
        self.hands.mark = self.mark
        self.mind.connect(store, self.ears)
        self._dirty: set[RevisionKey] = set()
        self._backlog: list[RevisionKey] = []
        """What a new leader has not looked at yet: nothing of it stands."""
        self._flushing = False
        self._ticking = False

    async def start(self) -> None:
        """Hear the bus and keep the tables, from now on. Returns when the tables have their first lists."""
        await self.ears.listen(self._bus)
        self.mind.world.start(self._jobs)
        await self.mind.world.synced()

    async def lead(self, leader: Guard | None = None) -> None:
        """Decide and write, fenced by `leader`, until cancelled."""
        await self.mind.world.synced()
        await self.hands.load_habits(self._clock.now())
        mind, now = self.mind, self._clock.now()
        mind.leader, mind.leading, mind.took_over_at, mind.shaky_at = leader, True, now, now
        mind.active.clear()
        mind.fleet.notice_away(now)
        log.info("leading", revisions=len(mind.world.revisions), instances=len(mind.fleet), nodes=len(mind.fleet.nodes))
        asked = await self._bus.respond(messages.WHY, self._why)
        try:
            self._look_at_everything(now)
            while True:
                await asyncio.sleep(mind.limits.tick_s)
                self.tick()
        finally:
            mind.leading, mind.leader = False, None
            self._backlog.clear()
            await asked.close()
            log.info("no longer leading")

    async def _why(self, question: bytes) -> bytes:
        return explain.answer(self.mind, question)

    def mark(self, key: RevisionKey) -> None:
        """`key` has to be looked at before the event loop sleeps again."""
        self._dirty.add(key)
        if self.mind.leading:
            self._flush_soon()

    @property
    def busy(self) -> bool:
        """Something is marked and has not been looked at yet."""
        return bool(self._flushing or self._dirty or self._backlog)

    def problem(self) -> str | None:
        """Why this autoscaler cannot decide, for /readyz."""
        return self.mind.world.problem()

    def tick(self) -> None:
        """Decide anew on all active revisions; the only time when counts go down."""
        mind, now = self.mind, self._clock.now()
        if not self._bus.connected:
            mind.deaf_at = now
        if mind.world.problem() is not None:
            mind.shaky_at = now
            return
        mind.give_up_nodes(now)
        dirty, self._dirty = self._dirty, set()
        dirty.update(mind.due(now))
        dirty.update(mind.relieve_nodes(now))
        self._ticking = True
        try:
            for key in dirty | mind.active.keys():
                if key in dirty or not mind.is_steady(key, now):
                    self._evaluate(key)
        finally:
            self._ticking = False
        mind.forget_idle(now)
        self.hands.save_habits(now)
        measures.ACTIVE.set(len(mind.active))
        measures.TICK.observe(self._clock.now() - now)

    def _look_at_everything(self, now: float) -> None:
        """What stands is looked at before the event loop sleeps again; what is at zero in batches, since there may be very many."""
        mind = self.mind
        standing = list(mind.fleet.revisions())
        for key in standing:
            mind.active_of(key, now)
            self.mark(key)
            for slot in list(mind.fleet.of(key)):
                if slot.status is not None and slot.status.phase is Phase.FAILED:
                    self.ears.on_failed(slot, slot.status)
                elif slot.ready:
                    mind.active_of(key, now).ready_since[slot.name] = now
        self._dirty.intersection_update(standing)  # The tables marked everything when they were filled.
        self._backlog = list(mind.world.all_keys().difference(standing))
        self._flush_soon()
        for _, wake in list(mind.world.wakes.items()):
            self.ears.wake(wake)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            self._evaluate(key)
        if self._backlog:
            batch = self._backlog[-BATCH:]
            del self._backlog[-BATCH:]
            for key in batch:
                self._evaluate(key)
            self.mind.forget_found_idle(batch, self._clock.now())
            self._flush_soon()

    def _evaluate(self, key: RevisionKey) -> None:
        """Decide on one revision. What goes wrong with one is logged and counted, and stops no other."""
        try:
            self._decide(key)
        except Exception:
            measures.ERRORS.inc()
            log.exception("cannot decide", revision=key)

    def _decide(self, key: RevisionKey) -> None:
        mind = self.mind
        if not mind.leading or (not self._ticking and mind.world.problem() is not None):
            self._dirty.add(key)
            return
        now, wall = self._clock.now(), self._clock.wall()
        active = mind.active_of(key, now)
        active.steady = None
        if active.committing:
            active.again = True
            return
        revision = mind.world.revision(key)
        if revision is None:
            self.hands.retire(key, active)
            return
        if mind.waits_for_nodes(now):
            return
        standing = mind.fleet.standing(key)
        mind.notice(revision, active, standing, now)
        signal = mind.signals.view(key, now)
        mode = mind.mode(revision, active, now, wall, tick=self._ticking)
        decision = decide(revision, signal, standing, mode, active.memory, now)
        active.memory = decision.memory
        wish = plan.Wish(
            decision.desired,
            may_start=active.row.wait_s(wall) == 0,
            park=self._park(revision, active, mode.reach, decision, wall),
            freeze=bool(mode.freezes) or (freezing.wanted(revision, mode.reach) and key not in mind.relief.given_up),
            lost=mind.lost,
            cause_id=active.cause_id,
            at=wall,
        )
        made = plan.make(revision, wish, mind.fleet, signal.busy, new_name, lambda slot: mind.worth(slot, now))
        active.unplaced, active.unplaced_as = made.unplaced, made.unplaced_as
        if made.first:
            self.mark(made.first)
        if not self._act(revision, active, decision, standing, made, wall) and not active.committing:
            mind.remember(revision, active, decision, signal, standing, mode, now)

    def _park(self, revision: Revision, active: Active, reach: Reach, decision: Decision, wall: float) -> bool:
        wanted, _ = parking.wanted(
            revision,
            enabled=self.mind.limits.park,
            given_up=self.mind.relief.given_up.get(revision.key, ""),
            reach=reach,
            verified=active.verified,
            failing=active.failure is not None and not (active.unparked and active.row.wait_s(wall) == 0),
            desired=decision.desired,
        )
        return wanted

    def _act(
        self, revision: Revision, active: Active, decision: Decision, standing: Standing, made: plan.Plan, wall: float
    ) -> bool:
        """Write what changes; whether anything does."""
        old = self.mind.world.scale(revision.key)
        scale = Scale(
            project=revision.project,
            revision=revision.name,
            desired=decision.desired,
            verified=active.verified,
            reason=decision.reason,
            at=wall,
            failure=active.failure,
            unplaced=made.unplaced,
            unplaced_as=made.unplaced_as,
        )
        outcome = made.unplaced
        if made:
            outcome = f"woken {made.woken}, placed {made.placed}, frozen {made.frozen}, drained {made.drained}, deleted {len(made.deletes)}"
        shown = Made(wall, decision, standing.ready, standing.starting, active.cause_id, outcome)
        self.mind.history.add(revision.key, shown)
        changed = old is None or differs(old, scale)
        if made or changed:
            self.hands.write(revision, active, made, scale if changed else None)
        return bool(made or changed)


def differs(old: Scale, new: Scale) -> bool:
    """Whether `new` is worth a write: another reason for the same positive number is not."""
    if (old.desired, old.verified, old.failure, old.unplaced) != (new.desired, new.verified, new.failure, new.unplaced):
        return True
    return old.reason != new.reason and new.desired == 0


def new_name(revision: str) -> str:
    """A name for a new instance of `revision`."""
    return plan.instance_name(revision, short_id(6))
