"""The hands of the autoscaler: one guarded transaction a revision at a time, the story of it, and refusals."""

import asyncio
from collections.abc import Callable

from autoscaler import habits, measures, writer
from autoscaler.active import Active
from autoscaler.mind import Mind
from autoscaler.plan import AT_ONCE, NOT_ITS_TURN, OVER_QUOTA, Plan
from process import logs
from process.clock import Clock
from process.run import Jobs
from store import keys, messages
from store.backend import Entry, Store
from store.bus import Bus
from store.errors import Conflict, Unavailable
from store.grouping import Grouped
from store.messages import Refusal
from store.model import Revision, RevisionKey, Scale, decode, encode
from store.scaling import Habits
from store.story import Story
from store.txn import Put, Txn

log = logs.get("autoscaler")

RETRY_MAX_S = 0.5
TOGETHER_S = 0.005
"""Decisions on other revisions within so long of one that is written are written together; a start waits no longer for that."""
TOLD = 20
"""Instances of one decision that the story tells of by name."""


class Hands:
    """`mark` is called with a revision that has to be decided anew."""

    def __init__(self, mind: Mind, store: Store, bus: Bus, clock: Clock, story: Story, jobs: Jobs) -> None:
        self._mind, self._store, self._bus, self._clock, self._story, self._jobs = mind, store, bus, clock, story, jobs
        self._commits = Grouped(store, TOGETHER_S)
        self.mark: Callable[[RevisionKey], None] = lambda _: None

    def write(self, revision: Revision, active: Active, made: Plan, scale: Scale | None) -> None:
        """Write `made`, and `scale` unless it is None, in the background; `active.committing` until it is back."""
        measures.DECISIONS.labels(scale.reason if scale is not None else "Traffic").inc()
        if made.puts:
            self._tell_placed(revision, active, made)
        active.committing = True
        self._jobs.start(self._commit(revision, active, made, scale), f"scale {revision.key}")

    async def _commit(self, revision: Revision, active: Active, made: Plan, scale: Scale | None) -> None:
        mind, started = self._mind, self._clock.now()
        entry = mind.world.scale_entry(revision.key) if scale is not None else None
        txn = writer.transaction(
            made, revision, mind.world.revision_rev(revision.key), (scale, entry) if scale else None, mind.guards
        )
        try:
            store_rev = await self._commits.commit(txn)
        except (Conflict, Unavailable) as error:
            made.revert(mind.fleet)
            measures.COMMITS.labels(type(error).__name__.lower()).inc()
            log.info("not written; deciding anew", revision=revision.key, error=str(error))
            if isinstance(error, Unavailable):
                mind.shaky_at = self._clock.now()
            active.refused += 1
            await self._read_again(revision, made)
            await asyncio.sleep(min(RETRY_MAX_S, 0.002 * 2 ** min(active.refused, 10)))
            self._back(revision.key, active, again=True)
            return
        except BaseException:
            made.revert(mind.fleet)
            active.committing = False
            raise
        active.refused = 0
        took = self._clock.now() - started
        measures.COMMIT.observe(took)
        measures.COMMITS.labels("written").inc()
        made.commit(mind.fleet, store_rev)
        if scale is not None:
            mind.world.wrote_scale(revision.key, scale, store_rev)
        self._tell_assigned(revision, active, made, took)
        if not active.woken(self._clock.now()):
            active.cause_id = ""
        self._back(revision.key, active, again=made.placed + made.woken >= AT_ONCE or len(made.deletes) >= AT_ONCE)

    def save_habits(self, now: float) -> None:
        """Write what was learned, of a few revisions, in the background; what is refused is written with what is learned next."""
        mind, wall = self._mind, self._clock.wall()
        found = {key: habits.of(mind.profiles[key], now, wall) for key in mind.to_save(now)}
        if found:
            puts = tuple(Put(keys.habits(key), encode(each)) for key, each in found.items())
            self._jobs.start(self._save(Txn(mind.guards, puts, "habits")), "habits")

    async def _save(self, txn: Txn) -> None:
        try:
            await self._store.commit(txn)
        except (Conflict, Unavailable) as error:
            log.info("habits not written", error=str(error))

    async def load_habits(self, now: float) -> None:
        """Know again what earlier leaders learned."""
        mind, wall = self._mind, self._clock.wall()
        try:
            listing = await self._store.list(keys.HABITS)
        except Unavailable as error:
            log.warning("habits not read; they are learned anew", error=str(error))
            return
        for entry in listing.entries:
            key = entry.key[len(keys.HABITS) :]
            if key not in mind.profiles and mind.world.revision(key) is not None:
                mind.profiles[key] = habits.profile(decode(Habits, entry.value), now, wall)

    def retire(self, key: RevisionKey, active: Active) -> None:
        """The revision is deleted: so is everything of it, in the background."""
        mind = self._mind
        slots = [(slot.node, slot.name) for slot in mind.fleet.of(key) if slot.store_rev]
        scale = mind.world.scale_entry(key)
        if not slots and scale is None:
            mind.active.pop(key, None)
            mind.signals.forget([key])
            mind.reach.forget(key)
            mind.history.forget(key)
            mind.forget_profile(key)
            mind.fleet.shares.content(key)
            return
        active.committing = True
        self._jobs.start(self._remove(key, active, slots, scale), f"remove {key}")

    async def _remove(self, key: RevisionKey, active: Active, slots: list[tuple[str, str]], scale: Entry | None) -> None:
        mind = self._mind
        try:
            store_rev = await self._store.commit(writer.removal(key, scale, slots, mind.guards))
            for _, name in slots[: writer.WRITES]:
                mind.fleet.remove(name)
            if scale is not None and len(slots) <= writer.WRITES:
                mind.world.wrote_scale(key, None, store_rev)
        except (Conflict, Unavailable) as error:
            log.info("not removed; trying again", revision=key, error=str(error))
            await asyncio.sleep(0.2)
        finally:
            active.committing = False
        self.mark(key)

    def refuse(self, key: RevisionKey) -> None:
        """Tell whoever waits for `key`, when nothing runs or starts and nothing can be started now."""
        active = self._mind.active.get(key)
        if active is None or active.committing or self._mind.fleet.standing(key).asked:
            return
        wait = active.row.wait_s(self._clock.wall())
        if active.failure is not None and wait > 0:
            self.publish_refusal(key, active.failure.reason, active.failure.message, wait)
        elif active.unplaced and active.unplaced_as != NOT_ITS_TURN and active.woken(self._clock.now()):
            self.publish_refusal(key, active.unplaced_as, active.unplaced, 5)

    def publish_refusal(self, revision: RevisionKey, reason: str, message: str, retry_after_s: float) -> None:
        """Requests waiting for `revision` are answered with this."""
        measures.REFUSALS.labels(reason if reason in ("NoRoom", "NoRuntime", OVER_QUOTA, "RevisionMissing") else "Failed").inc()
        after_s, at = round(max(1.0, retry_after_s), 3), self._clock.wall()
        refusal = Refusal(revision=revision, reason=reason, message=message, retry_after_s=after_s, at=at)
        self._bus.publish(messages.REFUSAL, encode(refusal))

    def _back(self, key: RevisionKey, active: Active, *, again: bool) -> None:
        active.committing = False
        again, active.again = again or active.again, False
        self.refuse(key)
        if again:
            self.mark(key)

    async def _read_again(self, revision: Revision, made: Plan) -> None:
        """After a refused write: read what guarded it, since the watch may be behind."""
        world = self._mind.world
        try:
            world.read_scale(revision.key, await self._store.get(keys.scale(revision.project, revision.name)))
            touched = [a for a, before in made.puts if before] + [slot.assignment for slot in made.deletes]
            for assignment in touched:
                found = await self._store.get(keys.assignment(assignment.node, assignment.instance))
                world.read_assignment(assignment, found)
        except Unavailable:
            pass  # Asked again with the next try, after the pause.

    def _tell_placed(self, revision: Revision, active: Active, made: Plan) -> None:
        self._story.tell(
            "decided",
            cause_id=active.cause_id,
            revision=revision.key,
            woken=made.woken,
            placed=made.placed,
            frozen=made.frozen,
            drained=made.drained,
        )
        for assignment, before in made.puts[:TOLD]:
            self._story.tell(
                "placed",
                cause_id=assignment.cause_id,
                instance=assignment.instance,
                revision=revision.key,
                node=assignment.node,
                goal=assignment.goal,
                known="yes" if before else "no",
            )

    def _tell_assigned(self, revision: Revision, active: Active, made: Plan, took_s: float) -> None:
        for assignment, _ in made.puts[:TOLD]:
            self._story.tell(
                "assigned",
                cause_id=assignment.cause_id,
                instance=assignment.instance,
                revision=revision.key,
                node=assignment.node,
                goal=assignment.goal,
                etcd_ms=round(took_s * 1000, 3),
            )
