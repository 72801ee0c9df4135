"""The ears of the autoscaler: wakes, samples, what nodes say, what changes in the store."""

import asyncio
from collections.abc import Callable

import msgspec

from autoscaler import measures
from autoscaler.act import Hands
from autoscaler.backoff import Row, failed, record, was_start
from autoscaler.fleet import Fleet, Slot
from autoscaler.mind import Mind
from autoscaler.reach import Reachability
from process import logs
from process.clock import Clock
from store import messages
from store.bus import Bus
from store.lifecycle import Phase
from store.messages import SampleReport, UsageReport, Wake
from store.model import Goal, Instance, RevisionKey, decode

log = logs.get("autoscaler")

THAWED = "thaw"
"""A step of an instance that ran before and was frozen: nothing is learned of its start, and its failure is no failed start."""
UNKNOWN_FOR_S = 2.0
"""So long may a wake name a revision that has not been seen yet before it is refused."""


class Ears:
    """`mark`: look at a revision soon. `evaluate`: look at it now."""

    def __init__(
        self,
        mind: Mind,
        hands: Hands,
        clock: Clock,
        mark: Callable[[RevisionKey], None],
        evaluate: Callable[[RevisionKey], None],
    ) -> None:
        self._mind, self._hands, self._clock = mind, hands, clock
        self.mark, self._evaluate = mark, evaluate
        self._unknown: dict[RevisionKey, float] = {}

    @property
    def fleet(self) -> Fleet:
        return self._mind.fleet

    @property
    def reach(self) -> Reachability:
        return self._mind.reach

    async def listen(self, bus: Bus) -> None:
        """Subscribe to what is said on the bus."""
        await bus.handle(messages.WAKE, self._on_wake)
        await bus.handle(messages.SAMPLES, self._on_samples)
        await bus.handle(messages.INSTANCES, self._on_instance)
        await bus.handle(messages.USAGES, self._on_usage)

    def wake(self, wake: Wake) -> None:
        """Somebody waits for `wake.revision` with nothing to run it: decided before this returns."""
        measures.WAKES.inc()
        mind, now = self._mind, self._clock.now()
        if not mind.leading:
            return
        revision = mind.world.revision(wake.revision)
        if revision is None:
            self._wake_unknown(wake, now)
            return
        mind.signals.track(wake.revision, revision.scale).wake(wake.sender, wake.waiting, now)
        mind.heard_load(wake.revision, revision, now)
        active = mind.active_of(wake.revision, now)
        if not active.cause_id or not active.woken(now):
            active.cause_id = wake.cause_id
        if not mind.fleet.standing(wake.revision).ready:
            active.waking, active.wake_at = max(1, wake.waiting), now
        self._evaluate(wake.revision)
        measures.DECIDE.observe(self._clock.now() - now)
        self._hands.refuse(wake.revision)

    def _wake_unknown(self, wake: Wake, now: float) -> None:
        first = self._unknown.setdefault(wake.revision, now)
        if now - first > 10 * UNKNOWN_FOR_S or len(self._unknown) > 1000:
            del self._unknown[wake.revision]
        elif now - first >= UNKNOWN_FOR_S:
            message = f"revision {wake.revision} does not exist; deploy it, or give its share to another (`ebb traffic`)"
            self._hands.publish_refusal(wake.revision, "RevisionMissing", message, 5)

    def on_instance(self, status: Instance) -> None:
        """A node's word on an instance, from NATS or etcd; an old one changes nothing."""
        if not self.fleet.report(status) or not self._mind.leading:
            return
        slot = self.fleet.get(status.instance)
        if slot is None:
            return
        now = self._clock.now()
        active = self._mind.active_of(status.revision_key, now)
        if slot.ready:
            if slot.name not in active.ready_since:
                active.ready_since[slot.name] = now
                if THAWED not in status.phases_ms:
                    took_s = self._clock.wall() - slot.assignment.at
                    self._mind.profile_of(status.revision_key).started(max(0.0, took_s), status.phases_ms)
            if active.woken(now):
                self._mind.profile_of(status.revision_key).met(active.waking)
            active.waking, active.cause_id, active.failure = 0, "", None
        elif status.phase is Phase.FAILED:
            self.on_failed(slot, status)
        elif status.phase is Phase.PARKED and active.unparked:
            active.row, active.failure, active.unparked = Row(), None, False
        elif (slot.ended or status.phase is Phase.DRAINING) and active.ready_since.pop(slot.name, None) is not None:
            active.row = Row()
        self.mark(status.revision_key)

    def on_failed(self, slot: Slot, status: Instance) -> None:
        """An instance failed: keep why, and wait before the next start when it never really ran."""
        now, wall, key = self._clock.now(), self._clock.wall(), status.revision_key
        active = self._mind.active_of(key, now)
        ready_since = active.ready_since.pop(slot.name, None)
        log.warning("instance failed", instance=slot.name, revision=key, goal=slot.goal, failure=status.failure)
        started = slot.goal in (Goal.RUN, Goal.PARK) and THAWED not in status.phases_ms
        if not started or not was_start(ready_since, now):
            return
        measures.FAILURES.inc()
        active.row = failed(active.row, slot.assignment.at, wall)
        active.failure = record(active.row, status, wall)
        active.unparked = slot.goal == Goal.PARK
        asyncio.get_running_loop().call_later(active.row.wait_s(wall) + 0.01, self.mark, key)
        self._hands.refuse(key)

    def on_node_left(self, node: str) -> None:
        """A node's key vanished."""
        now = self._clock.now()
        self._mind.node_left_at = now
        slots = self.fleet.on(node)
        self.fleet.drop_node(node, now)
        log.warning("node is away", node=node, instances=len(slots))
        for slot in slots:
            self.mark(slot.assignment.revision_key)

    def mark_active(self) -> None:
        """Something came that may let any revision go on: a node."""
        for key in self._mind.active:
            self.mark(key)

    def _on_wake(self, _: str, data: bytes) -> None:
        try:
            self.wake(decode(Wake, data))
        except msgspec.MsgspecError as error:
            log.warning("a wake cannot be read", error=str(error))

    def _on_instance(self, subject: str, data: bytes) -> None:
        try:
            status = decode(Instance, data)
        except msgspec.MsgspecError as error:
            log.warning("an instance's status cannot be read", error=str(error))
            return
        if messages.said_by(status.node, subject):
            self.on_instance(status)
        else:
            log.warning("a node speaks for another", subject=subject, node=status.node, instance=status.instance)

    def _on_usage(self, subject: str, data: bytes) -> None:
        try:
            report = decode(UsageReport, data)
        except msgspec.MsgspecError as error:
            log.warning("usage cannot be read", error=str(error))
            return
        if not messages.said_by(report.node, subject):
            log.warning("a node speaks for another", subject=subject, node=report.node)
            return
        mind, now = self._mind, self._clock.now()
        for name, (cpu_m, memory_bytes) in report.used.items() if mind.leading else ():
            slot = self.fleet.get(name)
            if slot is not None and slot.node == report.node and slot.goal == Goal.RUN:
                mind.signals.usage(slot.assignment.revision_key).take(name, cpu_m, memory_bytes, now)
                mind.profile_of(slot.assignment.revision_key).used(cpu_m, memory_bytes, mind.calls_in_each(slot, now))

    def _on_samples(self, _: str, data: bytes) -> None:
        try:
            report = decode(SampleReport, data)
        except msgspec.MsgspecError as error:
            log.warning("samples cannot be read", error=str(error))
            return
        mind, now = self._mind, self._clock.now()
        for sample in report.samples if mind.leading else ():
            revision = mind.world.revision(sample.revision)
            if revision is None:
                continue
            mind.signals.track(sample.revision, revision.scale).take(report.sender, report.interval_s, sample, now)
            mind.active_of(sample.revision, now)
            if sample.concurrency > 0 or sample.requests or sample.queued:
                mind.heard_load(sample.revision, revision, now)
                if mind.follows_habits(revision) and not sample.queued and report.interval_s >= 1:
                    ready = mind.fleet.standing(sample.revision).ready
                    mind.profile_of(sample.revision).pace.note(sample.concurrency, sample.requests, report.interval_s, ready)
            if sample.queued:
                self.mark(sample.revision)
