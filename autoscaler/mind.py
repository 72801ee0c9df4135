"""What the autoscaler knows: the view of the world and what it remembers of active revisions. No input or output of its own."""

import heapq
import itertools
import math
import zlib
from collections.abc import Iterable

import msgspec

from autoscaler import freezing, habits, keepalive, parking, policy, schedule, steady
from autoscaler.active import Active, History
from autoscaler.backoff import restored
from autoscaler.budget import FRUGAL, Budget
from autoscaler.fleet import Fleet, Slot
from autoscaler.idle import Reach
from autoscaler.keepalive import Keep
from autoscaler.need import Need
from autoscaler.policy import Mode
from autoscaler.profile import Profile
from autoscaler.reach import Reachability
from autoscaler.relief import Relief, worth
from autoscaler.signals import Signal, Signals
from autoscaler.world import Hearer, World
from store.backend import Store
from store.model import Goal, Revision, RevisionKey
from store.txn import Guard

AGAIN_S = 15
"""A decision that holds is made anew after so long, or up to twice as long so that not all are at once, for its steps to be true."""

AGAIN_QUIET_S = 120.0
"""The same for one that is idle and kept warm."""

SHORTEST_WINDOW_S = 6.0
"""No stable window is shorter: who had load within it need not be asked for its own."""

PROFILES = 20_000

PENDING_S = 60.0
"""So long after it was verified a revision may be without a route and yet not be out of use."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator sets."""

    tick_s: float = 2
    stable_window_s: float = 60
    """Taken by revisions that have Knative's default of 60 s."""
    scale_to_zero_grace_s: float = 0
    """Added to the stable window before the last instance goes (see `idle`)."""
    park: bool = True
    policy: str = "service"
    """service: each revision's own, Knative's windows when it says nothing. learned, frugal: that when it says nothing. knative: all."""
    node_gone_s: float = 10
    """How long a node may be away before what is assigned there is given up."""


class Mind:
    """One autoscaler's knowledge. Times are of the monotonic clock unless they say wall."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.signals = Signals()
        self.reach = Reachability()
        self.history = History()
        self.fleet = Fleet(self._need)
        self.active: dict[RevisionKey, Active] = {}
        self.profiles: dict[RevisionKey, Profile] = {}
        """Of revisions that had load or a start since this process began; at most `PROFILES`, the oldest goes."""
        self.unsaved: dict[RevisionKey, float] = {}
        """What was learned of is not in the store yet, and since when."""
        self.budgets = {"learned": Budget(now), "frugal": Budget(now, FRUGAL)}
        """By policy."""
        self._others: dict[RevisionKey, int] = {}
        """Instances beside the first when load was last heard of, where habits are followed."""
        self._keeps: dict[RevisionKey, Keep] = {}
        """What follows from the profiles, until more is learned."""
        self._expected: list[tuple[float, RevisionKey]] = []
        """A heap: when the next requests of revisions at rest are due; one entry each, `_due_at` has the newest word."""
        self._due_at: dict[RevisionKey, float] = {}
        self._changes_at: dict[RevisionKey, float] = {}
        """When what schedules ask for may be something else, of revisions that have any."""
        self.world: World
        self.leader: Guard | None = None
        self.leading = False
        self.took_over_at = now
        self.deaf_at = float("-inf")
        """When the bus was last seen to be away."""
        self.shaky_at = now
        """When the store was last seen to be away."""
        self.node_left_at = float("-inf")
        self.relief = Relief()
        self.lost: frozenset[str] = frozenset()
        """Nodes given up."""

    def connect(self, store: Store, hearer: Hearer) -> None:
        """Make the tables, which tell `hearer` what changes."""
        self.world = World(store, hearer, self.limits.stable_window_s)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What fences every write of a leader."""
        return (self.leader,) if self.leader is not None else ()

    def active_of(self, key: RevisionKey, now: float) -> Active:
        """The revision's memory; a new one starts from what stands and from what the last autoscaler wrote."""
        active = self.active.get(key)
        if active is None:
            standing = self.fleet.standing(key)
            active = self.active[key] = Active(since=now, memory=policy.takeover(standing.ready, now))
            scale = self.world.scale(key)
            if scale is not None:
                active.verified = scale.verified
                active.failure = scale.failure
                active.row = restored(scale.failure)
        return active

    def profile_of(self, key: RevisionKey) -> Profile:
        """What is learned of the revision; made on first use."""
        found = self.profiles.get(key)
        if found is None:
            if len(self.profiles) >= PROFILES:
                self.forget_profile(next(iter(self.profiles)))
            found = self.profiles[key] = Profile()
        return found

    def forget_profile(self, key: RevisionKey) -> None:
        self.profiles.pop(key, None)
        self._keeps.pop(key, None)
        self._others.pop(key, None)
        self._changes_at.pop(key, None)
        self.relief.called(key)
        self.unsaved.pop(key, None)

    def follows_habits(self, revision: Revision) -> bool:
        """Whether it is kept and started by what was learned of it: as it says, or else the operator; who may forbid it to all."""
        return self._policy_of(revision) in self.budgets

    def _policy_of(self, revision: Revision) -> str:
        operator = self.limits.policy
        return operator if operator == "knative" else revision.scale.policy or operator

    def to_save(self, now: float) -> list[RevisionKey]:
        """Whose habits are to be written now: not all that is new, but what has been so for a while."""
        found = [key for key, since in itertools.islice(self.unsaved.items(), habits.AT_ONCE) if now - since >= habits.EVERY_S]
        for key in found:
            del self.unsaved[key]
        return [key for key in found if key in self.profiles and self.world.revision(key) is not None]

    def heard_load(self, key: RevisionKey, revision: Revision, now: float) -> None:
        """There is load: what its idle time tells is learned and accounted for, and it may keep something parked again."""
        self.relief.called(key)
        idle_s, follows = self.profile_of(key).loaded(now), self.follows_habits(revision)
        others = self._others.get(key, 0)
        if follows:
            self._others[key] = max(0, self.fleet.standing(key).asked - 1)
        if not idle_s:
            return
        active = self.active.get(key)
        if active is not None and active.steady is not None and active.steady.more_than < 0:
            active.steady = None  # It may have rested, and a short call in a short window is soon over.
        if follows:
            self.unsaved.setdefault(key, now)
        keep = self._keeps.pop(key, None)
        if keep is not None and not revision.scale.min_scale:
            window_s = revision.scale.stable_window_s + max(self.limits.scale_to_zero_grace_s, revision.scale.retention_s)
            memory_mb = self._memory_bytes(revision) / (1 << 20)
            budget = self.budgets[self._policy_of(revision)]
            budget.settle(keep.held_s(idle_s), min(idle_s, window_s), memory_mb, now, others, keep.others_s)

    def _memory_bytes(self, revision: Revision) -> int:
        """What one instance holds: as its nodes say, else as it asks for."""
        profile = self.profiles.get(revision.key)
        return (profile.memory_bytes if profile is not None else 0) or Need.of(revision).memory_bytes

    def notice(self, revision: Revision, active: Active, standing: policy.Standing, now: float) -> None:
        """Bring what is remembered in step with what stands."""
        active.heal(now)
        if not standing.asked:
            active.running_since = now
        elif active.running_since > now:
            active.running_since = active.since
        if not active.verified and standing.ready >= revision.scale.initial_scale:
            active.verified, active.verified_at = True, now

    def reach_of(self, revision: Revision, active: Active, now: float) -> Reach:
        """Whether requests can come. A revision that works and still has no route a while later is not being deployed any more."""
        reach = self.reach.of(revision.key)
        if reach is Reach.PENDING and active.verified and now - active.verified_at > PENDING_S:
            return Reach.UNROUTED
        return reach

    def mode(self, revision: Revision, active: Active, now: float, wall: float, *, tick: bool) -> Mode:
        """What bears on a decision beside load and instances."""
        window = revision.scale.stable_window_s
        since = now - self.took_over_at
        idle_s = now - max(self.signals.loaded_at(revision.key), active.since)
        keep, reach = self.keep_of(revision), self.reach_of(revision, active, now)
        if keep is not None:
            idle_s = now - self.profiles[revision.key].busy_at
        return Mode(
            reach=reach,
            verified=active.verified,
            waking=active.woken(now),
            tick=tick,
            settled=since >= window or active.since > self.took_over_at,
            blind="NATS is away, or was within the stable window" if now - self.deaf_at < window else "",
            idle_s=idle_s,
            active_s=now - active.running_since,
            grace_s=self.limits.scale_to_zero_grace_s,
            keep=keep,
            bend=self._bend(revision) if keep is not None else 0.0,
            scheduled=self._scheduled(revision, now, wall),
            freeze_after_s=freezing.after_s(revision, reach),
            freezes=self._freezes(revision, reach) if keep is not None else "",
            gave_up=active.row.count > 0 and wall - revision.created_at > revision.progress_deadline_s,
        )

    def _freezes(self, revision: Revision, reach: Reach) -> str:
        """Why its last instance is frozen when its habits let it go, or nothing."""
        key = revision.key
        if key in self.relief.given_up:
            return ""
        room = any(
            (node := self.fleet.nodes.get(slot.node)) is not None
            and not node.pressed
            and self.fleet.placement.headroom(slot.node) > parking.RESERVE
            for slot in self.fleet.of(key)
            if slot.goal in (Goal.RUN, Goal.FREEZE) and not slot.ended
        )
        return freezing.chosen(revision, reach, self.profiles[key].phases_s.get("probe", 0.0), room=room)

    def _bend(self, revision: Revision) -> float:
        """The concurrency at which its latency bends, where that is its target: it follows its habits and sets none itself."""
        spec = revision.scale
        if spec.metric != "concurrency" or spec.target or revision.container_concurrency:
            return 0.0
        return self.profiles[revision.key].pace.bend()

    def _scheduled(self, revision: Revision, now: float, wall: float) -> schedule.Least:
        """What its schedules ask for now; until when is remembered for when it is at rest."""
        if not revision.scale.schedules:
            return schedule.NEVER
        found = schedule.least(revision.scale.schedules, wall)
        self._changes_at[revision.key] = now + found.until - wall
        return found

    def keep_of(self, revision: Revision) -> Keep | None:
        """What was learned of when it is needed, for a revision that asks for it and had load since this process began."""
        profile = self.profiles.get(revision.key) if self.follows_habits(revision) else None
        if profile is None or profile.busy_at == float("-inf"):
            return None
        keep = self._keeps.get(revision.key)
        if keep is None:
            memory_bytes = self._memory_bytes(revision)
            price_mb_s = self.budgets[self._policy_of(revision)].price_mb_s
            keep = self._keeps[revision.key] = keepalive.plan(profile, memory_bytes, price_mb_s)
        return keep

    def relieve_nodes(self, now: float) -> list[RevisionKey]:
        """Revisions that keep nothing parked or frozen any more, because their node has too little memory for it."""
        return self.relief.choose(self.fleet, self.profiles, now)

    def worth(self, slot: Slot, now: float) -> float:
        """Of a parked or frozen instance."""
        return worth(slot, self.profiles.get(slot.assignment.revision_key), now)

    def due(self, now: float) -> list[RevisionKey]:
        """Revisions at rest whose next request is expected soon, each told once."""
        found = []
        while self._expected and self._expected[0][0] <= now:
            key = heapq.heappop(self._expected)[1]
            due_at = self._due_at.get(key, float("inf"))
            if now < due_at < float("inf"):  # It was busy since, and is expected later.
                heapq.heappush(self._expected, (due_at, key))
            elif due_at <= now:
                del self._due_at[key]
                found.append(key)
        return found

    def _expect(self, key: RevisionKey, now: float) -> None:
        """A revision comes to rest: remember when its next request is due, or its schedule changes."""
        revision = self.world.revision(key)
        keep = self.keep_of(revision) if revision is not None else None
        due_at = self._changes_at.get(key, float("inf"))
        if keep is not None:
            busy_at = self.profiles[key].busy_at
            due_at = min(due_at, busy_at + keep.next_s(now - busy_at))
        if due_at < self._due_at.get(key, float("inf")):
            heapq.heappush(self._expected, (due_at, key))
        if due_at < float("inf"):
            self._due_at[key] = due_at

    def remember(
        self, revision: Revision, active: Active, decision: policy.Decision, signal: Signal, standing: policy.Standing, mode: Mode,
        now: float,
    ) -> None:  # fmt: skip
        """A decision changed nothing: within which load, and how long, it holds without being made again."""
        if self.lost or active.row.count or active.failure is not None or active.unplaced:
            return
        active.steady = found = steady.bounds(revision, decision, signal, standing, mode, now)
        if found is None:
            return
        quiet = found.until < math.inf and not signal.panic
        again_s = AGAIN_QUIET_S if quiet else AGAIN_S + zlib.crc32(revision.key.encode()) % AGAIN_S
        active.steady_until = min(now + again_s, found.until, self._changes_at.get(revision.key, math.inf))

    def is_steady(self, key: RevisionKey, now: float) -> bool:
        """Whether the last decision on `key` holds, so that it need not be made again."""
        active = self.active.get(key)
        if active is None or active.steady is None or now >= active.steady_until or active.committing or self.lost:
            return False
        return active.steady.holds(*self.signals.averages(key, now))

    def waits_for_nodes(self, now: float) -> bool:
        """No node is there, and one may come any moment: neither a lack of room nor a reason to change anything."""
        return not self.fleet.nodes and now - max(self.node_left_at, self.took_over_at) < self.limits.node_gone_s

    def give_up_nodes(self, now: float) -> None:
        """Nodes that have been away for long enough are lost, unless it was the store that was away.

        While no node is left nothing is given up: there is nowhere to go, and an agent that comes back finds what it ran.
        """
        wait = self.limits.node_gone_s
        if now - self.shaky_at < wait or not self.fleet.nodes:
            self.lost = frozenset()
            return
        self.lost = frozenset(node for node, since in self.fleet.away.items() if now - since >= wait)
        for node in self.lost:
            for slot in self.fleet.on(node):
                self.active_of(slot.assignment.revision_key, now)

    def forget_idle(self, now: float) -> None:
        """A revision at zero, with nothing heard for a window and nothing to do, costs nothing any more."""
        quiet = (
            key for key, active in self.active.items() if self._long_quiet(key, active, now) and self._at_rest(key, active)
        )
        self._forget(quiet, now)

    def forget_found_idle(self, keys: Iterable[RevisionKey], now: float) -> None:
        """The same for revisions that a new leader found at zero: no window has to pass for what was never heard of."""
        found = self.active.keys() & keys
        new = (k for k in found if k not in self.signals and not self.active[k].woken(now) and self._at_rest(k, self.active[k]))
        self._forget(new, now)

    def _forget(self, keys: Iterable[RevisionKey], now: float) -> None:
        idle = list(keys)
        for key in idle:
            del self.active[key]
            self._expect(key, now)
        self.signals.forget(idle)

    def _long_quiet(self, key: RevisionKey, active: Active, now: float) -> bool:
        quiet_s = now - max(self.signals.loaded_at(key), active.since)
        if quiet_s <= SHORTEST_WINDOW_S or active.woken(now):
            return False
        revision = self.world.revision(key)
        return revision is not None and quiet_s > revision.scale.stable_window_s

    def _at_rest(self, key: RevisionKey, active: Active) -> bool:
        """At zero, as the store says too, and nothing to do."""
        if active.committing or active.again or self.world.revision(key) is None:
            return False
        if active.row.count and active.failure is None:
            return False  # A row of failures that is not in the store would be forgotten.
        scale = self.world.scale(key)
        if scale is None or scale.desired or scale.unplaced:
            return False
        return all(slot.goal in (Goal.PARK, Goal.FREEZE) and not slot.ended for slot in self.fleet.of(key))

    def calls_in_each(self, slot: Slot, now: float) -> float | None:
        """Calls at once in one instance of the slot's revision, in the last seconds; None where its load is not told in calls at once."""
        key = slot.assignment.revision_key
        revision, ready = self.world.revision(key), self.fleet.standing(key).ready
        if revision is None or revision.scale.metric == "rps" or not ready:
            return None
        calls = self.signals.averages(key, now)[1]
        return calls / ready if calls is not None else None

    def _need(self, key: RevisionKey) -> Need:
        revision = self.world.revision(key)
        if revision is None:
            return Need(key)
        profile = self.profiles.get(key)
        return Need.of(revision).expecting(profile.memory_bytes, profile.cpu_m) if profile is not None else Need.of(revision)
