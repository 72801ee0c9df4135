"""Says what became of each instance: on NATS at once, in etcd under the node's lease right behind, in the story and the metrics."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from nodeagent.observed import Observed
from process import logs, metrics
from process.clock import Clock
from process.run import Jobs
from store import keys, messages
from store.bus import Bus
from store.lease import Presence
from store.lifecycle import ENDED, Phase
from store.model import Assignment, Failure, Instance, decode, encode
from store.story import Story

PASSING = frozenset({Phase.PENDING, Phase.PULLING, Phase.STARTING, Phase.DRAINING, Phase.STOPPED})
SETTLE_S = 0.25
"""A phase of PASSING goes to etcd only when it lasts so long: a start of milliseconds costs one write, and an end that everybody heard
of in time only the key's deletion."""

_log = logs.get("nodeagent")
_starts = metrics.counter("instance_starts_total", "Instances that became Ready", "tier")
_failed = metrics.counter("instance_failures_total", "Instances given up", "reason")
_phases = metrics.histogram("instance_start_phase_seconds", "How long each step of a start took", "phase")
_now = metrics.gauge("instances", "Instances on this node", "phase")


class Reporter:
    """The only writer of this node's `instances/` keys. `root`: where the last word on an ended instance is kept."""

    def __init__(self, node: str, bus: Bus, presence: Presence, story: Story, clock: Clock, jobs: Jobs, root: Path) -> None:
        self._node, self._bus, self._presence, self._story = node, bus, presence, story
        self._subject = messages.instance(node)
        self._clock, self._jobs, self._root = clock, jobs, root
        self.wanted: Callable[[str], bool] = lambda _: True
        """Whether the instance still has its assignment."""
        self._said: dict[str, Instance] = {}
        self._seq: dict[str, int] = {}
        self._tier: dict[str, str] = {}

    def said(self, instance: str) -> Instance | None:
        """The last word on it."""
        return self._said.get(instance)

    def all(self) -> list[Instance]:
        return list(self._said.values())

    def last_words(self) -> dict[str, Instance]:
        """What was said of instances that ended, in an earlier life of the agent."""
        found: dict[str, Instance] = {}
        for file in self._root.glob("*/ended.json"):
            try:
                found[file.parent.name] = decode(Instance, file.read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("last word not readable", file=str(file), error=str(error))
        return found

    def resume(self, instance: str, last: Instance) -> None:
        """Go on from what an earlier life of the agent said."""
        self._seq[instance] = max(last.seq, self._seq.get(instance, 0))
        self._said[instance] = last

    def report(self, want: Assignment | None, have: Observed, phase: Phase) -> None:
        """`have` is in `phase` now. Returns at once; nothing that fails here is lost: etcd is written again."""
        before = self._said.get(have.instance)
        if phase == Phase.STARTING and have.phase in (Phase.PENDING, Phase.PULLING, Phase.PARKED):
            self._tier[have.instance] = "parked" if have.phase == Phase.PARKED else "cold"
        elif phase == Phase.READY and have.phase == Phase.FROZEN:
            self._tier[have.instance] = "frozen"
        status = self._status(want, have, phase, before)
        self._said[have.instance] = status
        data = encode(status)
        self._bus.publish(self._subject, data)
        if phase in PASSING:
            asyncio.get_running_loop().call_later(SETTLE_S, self._store_if_still, have.instance, status.seq, data)
        else:
            self._store(have.instance, data)
        self._tell(status, before)

    def notice(self, instance: str, notices: list[str]) -> None:
        """It has met these limits, or meets them no more."""
        before = self._said.get(instance)
        if before is None or before.notices == notices or before.phase in ENDED:
            return
        seq = self._seq[instance] = max(before.seq + 1, int(self._clock.wall() * 1000))
        status = self._said[instance] = msgspec.structs.replace(before, notices=notices, seq=seq)
        self._bus.publish(self._subject, encode(status))
        self._store(instance, encode(status))
        for line in set(notices) - set(before.notices):
            _log.warning("instance met a limit", instance=instance, revision=status.revision_key, limit=line)

    def say_again(self, instance: str) -> None:
        """NATS may have lost it."""
        last = self._said.get(instance)
        if last is not None:
            self._bus.publish(self._subject, encode(last))

    def store_again(self, instance: str) -> None:
        """Bring its key under the lease we hold now."""
        last = self._said.get(instance)
        if last is not None:
            self._store(instance, encode(last))

    def forget(self, instance: str) -> None:
        """Its assignment is gone: so is its key."""
        status = self._said.pop(instance, None)
        self._tier.pop(instance, None)
        self._seq.pop(instance, None)
        if status is not None and status.phase not in ENDED:
            gone = msgspec.structs.replace(status, phase=Phase.STOPPED, seq=status.seq + 1, at=self._clock.wall())
            self._bus.publish(self._subject, encode(gone))
        self._jobs.start(self._delete(instance), f"delete {instance}")
        (self._root / instance / "ended.json").unlink(missing_ok=True)

    def count(self) -> None:
        """Bring the gauge up to date."""
        counts = dict.fromkeys(Phase, 0)
        for status in self._said.values():
            counts[status.phase] += 1
        for phase, count in counts.items():
            _now.labels(phase.value).set(count)

    def _status(self, want: Assignment | None, have: Observed, phase: Phase, before: Instance | None) -> Instance:
        # Of the wall clock, so that it grows over lives of the agent also when nobody remembers the last one.
        seq = self._seq[have.instance] = max(self._seq.get(have.instance, 0) + 1, int(self._clock.wall() * 1000))
        revision = have.revision
        port = revision.port if revision is not None else 0
        address = f"{have.address}:{port}" if have.address and port else (before.address if before is not None else "")
        project = want.project if want is not None else before.project if before is not None else ""
        name = want.revision if want is not None else before.revision if before is not None else ""
        cause = want.cause_id if want is not None else before.cause_id if before is not None else ""
        return Instance(
            instance=have.instance,
            project=project,
            revision=name,
            service=revision.service if revision is not None else "",
            node=self._node,
            phase=phase,
            address=address,
            at=self._clock.wall(),
            seq=seq,
            failure=have.failure if phase == Phase.FAILED else None,
            notices=before.notices if before is not None else [],
            cause_id=cause,
            phases_ms=have.phases_ms,
        )

    def _store(self, instance: str, data: bytes) -> None:
        self._jobs.start(self._put(instance, data), f"put {instance}")

    async def _put(self, instance: str, data: bytes) -> None:
        await self._presence.put(keys.instance(self._node, instance), data)

    async def _delete(self, instance: str) -> None:
        await self._presence.delete(keys.instance(self._node, instance))

    def _store_if_still(self, instance: str, seq: int, data: bytes) -> None:
        status = self._said.get(instance)
        if status is None or status.seq != seq:
            return
        if status.phase is Phase.STOPPED and not self.wanted(instance):
            return  # who waited to hear it has, and its key goes when all of it is gone
        self._store(instance, data)

    def _tell(self, status: Instance, before: Instance | None) -> None:
        what = status.phase.value.lower()
        detail: dict[str, str | int | float] = {"node": self._node}
        if status.phase == Phase.READY:
            detail |= status.phases_ms
            tier = self._tier.pop(status.instance, "")
            if tier:
                _starts.labels(tier).inc()
                for phase, took_ms in status.phases_ms.items():
                    _phases.labels(phase).observe(took_ms / 1000)
        if status.failure is not None:
            detail |= {"reason": status.failure.reason, "message": status.failure.message}
            self._record_failure(status, status.failure)
        elif status.phase in ENDED:
            self._keep(status)
        self._story.tell(
            what, cause_id=status.cause_id, instance=status.instance, revision=status.revision_key, at=status.at, **detail
        )
        if "message" in detail:
            detail["why"] = detail.pop("message")
        _log.info(
            f"instance {what}", instance=status.instance, revision=status.revision_key, cause_id=status.cause_id, **detail
        )

    def _record_failure(self, status: Instance, failure: Failure) -> None:
        known = failure.reason if not failure.reason.startswith("ExitCode") else "ExitCode"
        _failed.labels(known).inc()
        self._keep(status)

    def _keep(self, status: Instance) -> None:
        """So that an agent that begins anew knows that it ended."""
        directory = self._root / status.instance
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "ended.json").write_bytes(encode(status))
        except OSError as error:
            _log.error("last word not written", instance=status.instance, error=str(error), cure="free some space on the disk")
