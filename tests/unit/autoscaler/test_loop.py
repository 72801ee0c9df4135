"""The whole autoscaler on the store's and the bus's twins, on virtual time, with an agent that obeys at once."""

import asyncio
from collections.abc import Awaitable, Callable

from autoscaler.loop import Scaler
from autoscaler.measures import ERRORS
from autoscaler.mind import Limits
from process.run import Jobs
from store import keys, messages
from store.lifecycle import Phase
from store.memory import MemoryStore
from store.memory_bus import MemoryBus, MemoryHub
from store.messages import AskWhy, Refusal, Sample, SampleReport, Wake, Why
from store.model import (
    Assignment,
    Failure,
    Goal,
    Instance,
    Node,
    Revision,
    RouteEntry,
    Scale,
    ScaleSpec,
    TrafficTarget,
    decode,
    encode,
)
from store.story import Story
from store.watch import Table
from tests import virtual


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 1e9 + self.now()


class World:
    """etcd, NATS, one autoscaler, one agent on every node that is put."""

    def __init__(self, **limits: float | bool) -> None:
        self.store, self.hub, self.clock = MemoryStore(), MemoryHub(), LoopClock()
        self.bus: MemoryBus = self.hub.client()
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.jobs = Jobs("test")
        self.failing: set[str] = set()
        self.start_s = 0.0
        self.refusals: list[Refusal] = []
        self.busy: dict[str, int] = {}
        self.waits: set[str] = set()
        self._seq = 0
        self.table = Table(self.store, keys.ASSIGNMENTS, Assignment, self._obey)
        self.scaler: Scaler
        self._leading: asyncio.Task[None]

    async def start(self) -> None:
        await self.bus.handle(messages.REFUSAL, lambda _, data: self.refusals.append(decode(Refusal, data)))
        self.jobs.start(self.table.run(), "agents")
        await self.table.synced()
        await self.take_over()

    async def take_over(self) -> None:
        bus = self.hub.client()
        self.scaler = Scaler(self.store, bus, self.clock, Story(bus, "autoscaler", self.clock), self.limits, self.jobs)
        await self.scaler.start()
        self._leading = self.jobs.start(self.scaler.lead(), "lead")

    def resign(self) -> None:
        self._leading.cancel()

    async def node(self, name: str = "n1", memory: int = 1 << 30) -> None:
        await self.store.put(keys.node(name), encode(Node(node=name, cpu_m=2000, memory_bytes=memory)))

    async def deploy(self, name: str, *, cc: int = 0, routed: bool = True, **scale: object) -> None:
        spec = ScaleSpec(**scale)  # type: ignore[arg-type]
        revision = Revision(
            project="p", name=name, image="i@sha256:1", container_concurrency=cc, scale=spec, created_at=self.clock.wall()
        )
        await self.store.put(keys.revision("p", name), encode(revision))
        if routed:
            await self.route(name)

    async def route(self, name: str, route: str = "hello") -> None:
        entry = RouteEntry(project="p", route=route, hosts={"h": [TrafficTarget(revision=name, percent=100)]})
        await self.store.put(keys.route("p", route), encode(entry))

    def _obey(self, _: str, new: Assignment | None, old: Assignment | None) -> None:
        if new is None:
            assert old is not None
            self.jobs.start(self.store.delete(keys.instance(old.node, old.instance)), "forget")
        elif new.goal == Goal.PARK:
            self.say(new, Phase.PARKED)
        elif new.goal == Goal.DRAIN:
            self.say(new, Phase.DRAINING)
            self.say(new, Phase.STOPPED)
        elif old is None or old.goal != Goal.RUN:
            self.say(new, Phase.STARTING)
            asyncio.get_running_loop().call_later(self.start_s, self._end_start, new)

    def _end_start(self, a: Assignment) -> None:
        failing = a.revision in self.failing
        self.say(
            a, Phase.FAILED if failing else Phase.READY, Failure(reason="ExitCode1", message="exited") if failing else None
        )

    def say(self, a: Assignment, phase: Phase, failure: Failure | None = None) -> None:
        self._seq += 1
        status = Instance(
            instance=a.instance,
            project=a.project,
            revision=a.revision,
            node=a.node,
            phase=phase,
            seq=self._seq,
            failure=failure,
        )
        self.bus.publish(messages.INSTANCE, encode(status))
        self.jobs.start(self.store.put(keys.instance(a.node, a.instance), encode(status)), "status")

    def wake(self, name: str, waiting: int = 1) -> None:
        self.bus.publish(messages.WAKE, encode(Wake(revision=f"p/{name}", waiting=waiting, sender="i", cause_id="c-1")))

    async def traffic(self, name: str, load: int, for_s: int) -> None:
        """`load` requests at once, reported every second, and a last report of none."""
        for second in range(for_s + 1):
            now = load if second < for_s else 0
            sample = Sample(revision=f"p/{name}", concurrency=now, requests=now, in_flight=now)
            self.bus.publish(messages.SAMPLES, encode(SampleReport(sender="i", at=0, interval_s=1, samples=[sample])))
            await asyncio.sleep(1)

    def goals(self, name: str) -> list[str]:
        return sorted(a.goal for _, a in self.table.items() if a.revision == name)

    async def scale(self, name: str) -> Scale:
        entry = await self.store.get(keys.scale("p", name))
        assert entry is not None
        return decode(Scale, entry.value)


def play(body: Callable[[World], Awaitable[None]], **limits: float | bool) -> None:
    """Run `body` in a world with one node."""

    async def whole() -> None:
        world = World(**limits)
        await world.start()
        await world.node()
        try:
            await body(world)
        finally:
            await world.jobs.cancel()
            await world.store.close()
            await world.bus.close()

    virtual.run(whole)


def test_an_idle_app_is_at_zero_a_stable_window_after_its_last_request() -> None:
    async def body(world: World) -> None:
        await world.deploy("r")
        await asyncio.sleep(1)
        assert (await world.scale("r")).verified
        await world.traffic("r", 1, 20)
        await asyncio.sleep(55)
        assert world.goals("r") == [Goal.RUN]
        await asyncio.sleep(8)
        assert world.goals("r") == [Goal.PARK]
        assert (await world.scale("r")).reason == "NoTraffic"

    play(body)


def test_an_operators_grace_and_window_are_taken() -> None:
    async def body(world: World) -> None:
        await world.deploy("r")
        await asyncio.sleep(35)
        assert world.goals("r") == [Goal.RUN]
        await asyncio.sleep(10)
        assert world.goals("r") == []

    play(body, stable_window_s=10, scale_to_zero_grace_s=30, park=False)


def test_a_wake_needs_no_tick_and_one_transaction() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0)
        await asyncio.sleep(10)
        assert world.goals("r") == [Goal.PARK]
        before = (await world.store.list(keys.ROOT)).store_rev
        world.start_s = 100
        world.wake("r")
        await asyncio.sleep(0.001)
        assert world.goals("r") == [Goal.RUN]
        written = [
            e for e in (await world.store.list(keys.ROOT)).entries if e.store_rev > before and "/instances/" not in e.key
        ]
        assert len({e.store_rev for e in written}) == 1, "the assignment and the scale in one"
        assert len(written) == 2

    play(body)


def test_wakes_in_a_row_start_no_more_than_what_waits() -> None:
    async def body(world: World) -> None:
        world.start_s = 1.5
        await world.deploy("r", cc=1, initial_scale=0)
        await asyncio.sleep(2.5)
        for _ in range(5):
            world.wake("r", 3)
            await asyncio.sleep(0.25)
        assert world.goals("r") == [Goal.RUN] * 3

    play(body, tick_s=100)


def test_a_new_autoscaler_takes_nothing_down_for_one_stable_window() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", cc=1)
        await world.traffic("r", 7, 30)
        running = len(world.goals("r"))
        assert running == 10
        world.resign()
        await world.take_over()
        await world.traffic("r", 1, 55)
        assert len(world.goals("r")) == running
        await world.traffic("r", 1, 80)
        assert len(world.goals("r")) == 2

    play(body)


def test_while_nats_is_away_nothing_goes_down() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", cc=1)
        await world.traffic("r", 7, 30)
        world.hub.up = False
        await asyncio.sleep(300)
        assert len(world.goals("r")) == 10
        world.hub.up = True
        await asyncio.sleep(50)
        assert len(world.goals("r")) == 10, "it has not listened for a window yet"
        await asyncio.sleep(80)
        assert world.goals("r") == [Goal.PARK]

    play(body)


def test_a_new_autoscaler_starts_nothing_for_revisions_that_no_route_names() -> None:
    async def body(world: World) -> None:
        await world.deploy("old", min_scale=2)
        await asyncio.sleep(5)
        await world.deploy("new", min_scale=1)
        await asyncio.sleep(5)
        assert world.goals("old") == []
        world.resign()
        await world.take_over()
        await asyncio.sleep(100)
        assert world.goals("old") == []
        assert world.goals("new") == [Goal.RUN]

    play(body)


def test_a_deployed_revision_without_a_share_goes_down_after_a_while_and_not_at_once() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", min_scale=1, routed=False)
        await asyncio.sleep(50)
        assert world.goals("r") == [Goal.RUN]
        await asyncio.sleep(20)
        assert world.goals("r") == []

    play(body)


def test_a_restarting_agent_of_the_only_node_finds_its_assignments() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", min_scale=2)
        await asyncio.sleep(5)
        before = {a.instance for _, a in world.table.items()}
        await world.store.delete(keys.node("n1"))
        for name in before:
            await world.store.delete(keys.instance("n1", name))
        await asyncio.sleep(60)
        assert {a.instance for _, a in world.table.items()} == before
        await world.node()
        await asyncio.sleep(0.1)
        assert {a.instance for _, a in world.table.items()} == before

    play(body)


def test_a_refused_transaction_is_decided_anew() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0, max_scale=1)
        await asyncio.sleep(3)
        other = await world.scale("r")
        await world.store.put(keys.scale("p", "r"), encode(other))
        world.store.lose_events()  # Somebody wrote, and the watch does not tell.
        world.wake("r")
        await asyncio.sleep(0.5)
        assert world.goals("r") == [Goal.RUN]

    play(body)


def test_after_the_store_was_away_what_was_asked_is_done_once() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", initial_scale=0)
        await asyncio.sleep(3)
        world.store.fail_next(5)
        world.wake("r")
        await asyncio.sleep(2)
        assert world.goals("r") == [Goal.RUN]

    play(body, park=False, tick_s=100)


def test_a_crash_loop_that_listens_first_backs_off_too() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", min_scale=1)
        starts = 0
        for _ in range(600):
            await asyncio.sleep(0.1)
            for _, a in list(world.table.items()):
                slot = world.scaler.mind.fleet.get(a.instance)
                if slot is not None and slot.ready:
                    starts += 1
                    world.say(a, Phase.FAILED, Failure(reason="ExitCode1", message="exited"))
        assert 5 <= starts <= 8, "after 0, 1, 3, 7, 15, 31 and 63 s"

    play(body)


def test_a_good_start_clears_the_failure_and_in_time_the_row() -> None:
    async def body(world: World) -> None:
        world.failing.add("r")
        await world.deploy("r", min_scale=1)
        await asyncio.sleep(5)
        failure = (await world.scale("r")).failure
        assert failure is not None
        assert failure.count >= 2
        world.failing.clear()
        await asyncio.sleep(10)
        assert (await world.scale("r")).failure is None
        await asyncio.sleep(15)
        assert world.scaler.mind.active["p/r"].row.count == 0

    play(body)


def test_a_revision_that_never_starts_is_given_up_at_its_deadline() -> None:
    async def body(world: World) -> None:
        world.failing.add("r")
        await world.deploy("r", routed=False)
        await asyncio.sleep(700)
        scale = await world.scale("r")
        assert (scale.desired, scale.reason) == (0, "TimedOut")
        assert scale.failure is not None
        await asyncio.sleep(400)
        assert "p/r" not in world.scaler.mind.active, "and it costs nothing any more"

    play(body)


def test_a_wake_of_an_unknown_revision_is_refused_when_it_stays_unknown() -> None:
    async def body(world: World) -> None:
        for _ in range(10):
            world.wake("gone")
            await asyncio.sleep(0.25)
        assert [r.reason for r in world.refusals][:1] == ["RevisionMissing"]

    play(body)


def test_a_fault_with_one_revision_stops_no_other() -> None:
    async def body(world: World) -> None:
        await world.deploy("bad", max_scale_down_rate=0, initial_scale=0)  # No API lets that through.
        await asyncio.sleep(1)
        before = ERRORS._value.get()
        await world.traffic("bad", 1, 5)
        assert ERRORS._value.get() > before
        await world.deploy("good")
        await asyncio.sleep(1)
        assert (await world.scale("good")).verified

    play(body)


def test_a_thousand_idle_revisions_leave_nothing_active() -> None:
    async def body(world: World) -> None:
        for number in range(1000):
            await world.deploy(f"r-{number}", initial_scale=0, routed=False)
        await asyncio.sleep(130)
        assert not world.scaler.mind.active
        assert len(world.scaler.mind.signals) == 0

    play(body)


def test_the_number_follows_a_load_that_steps_up_and_down() -> None:
    async def body(world: World) -> None:
        await world.deploy("r", cc=1, target_utilization=1.0, stable_window_s=10)
        seen = []
        for load in (1, 10, 50, 10, 1):
            await world.traffic("r", load, 40)
            seen.append(world.goals("r").count(Goal.RUN))
        assert all(load <= count <= 1.2 * load + 1 for load, count in zip((1, 10, 50, 10), seen, strict=False)), seen
        await asyncio.sleep(30)
        assert world.goals("r") == [Goal.PARK]

    play(body)


def test_a_new_leader_remembers_nothing_of_the_many_it_found_at_zero() -> None:
    async def body(world: World) -> None:
        for number in range(350):
            await world.deploy(f"r{number}", routed=False)
            at_zero = Scale(project="p", revision=f"r{number}", desired=0, verified=True, reason="NoTraffic")
            await world.store.put(keys.scale("p", f"r{number}"), encode(at_zero))
            await world.route(f"r{number}", f"route-{number}")
        world.resign()
        await asyncio.sleep(0.1)
        await world.take_over()
        await asyncio.sleep(0.1)
        assert not world.scaler.mind.active
        world.wake("r7")
        await asyncio.sleep(0.1)
        assert world.goals("r7") == [Goal.RUN]
        assert len(world.scaler.mind.active) == 1

    play(body, park=False)


def test_a_steady_revision_is_not_decided_anew_until_something_changes() -> None:
    async def body(world: World) -> None:
        await world.deploy("hello", cc=10)
        await asyncio.sleep(1)
        loaded = asyncio.create_task(world.traffic("hello", 4, 20))
        await asyncio.sleep(12)
        active = world.scaler.mind.active["p/hello"]
        assert active.steady is not None
        instance = next(a for _, a in world.table.items())
        world.say(instance, Phase.FAILED, Failure(reason="ExitCode1", message="exited"))
        await asyncio.sleep(0.1)
        assert active.steady is None
        await asyncio.sleep(3)
        assert world.goals("hello") == [Goal.RUN]
        assert next(a for _, a in world.table.items()).instance != instance.instance
        await loaded

    play(body)


def test_whoever_leads_says_why_and_what_it_learned() -> None:
    async def body(world: World) -> None:
        world.start_s = 0.2
        await world.deploy("hello", stable_window_s=10)
        for _ in range(3):
            await world.traffic("hello", 4, 3)
            await asyncio.sleep(40)
        world.wake("hello")
        await asyncio.sleep(0.5)
        asked = encode(AskWhy(revisions=["p/hello", "p/unknown"]))
        told = decode(Why, await world.hub.client().request(messages.WHY, asked, timeout_s=1)).revisions
        assert [each.revision for each in told] == ["p/hello", "p/unknown"]
        assert told[0].ready == 1
        assert told[0].decisions[-1].steps
        assert told[0].profile["idle_seen"] == 3
        assert 38 < told[0].profile["idle_p50_s"] < 50
        assert "start_s" in told[0].profile
        assert told[1].decisions == []

    play(body)


def test_a_revision_that_asks_for_it_is_started_ahead_of_its_beat_and_let_go_soon() -> None:
    async def body(world: World) -> None:
        await world.deploy("beat", policy="learned")
        await world.deploy("usual", routed=False)
        await world.route("usual", "other")
        for _ in range(8):
            for name in ("beat", "usual"):
                world.wake(name)
            await asyncio.gather(world.traffic("beat", 1, 2), world.traffic("usual", 1, 2))
            await asyncio.sleep(1797)
        assert world.goals("beat") == [Goal.RUN], "expected by now"
        assert world.goals("usual") == [Goal.PARK]
        await asyncio.sleep(2000)
        assert world.goals("beat") == [Goal.PARK], "it did not come"

    play(body)
