"""Small worlds of `deploy/simulate` with faults, from many seeds, under each policy: what must hold holds. A failure names its seed."""

import itertools
import random

import pytest

from deploy import simulate
from deploy.simulate_traces import DAY_S, Trace, draw
from deploy.simulate_world import Faults, World
from store.model import Goal, Node, Revision, ScaleSpec

SEEDS = range(210)
CALLS_S = 120.0
MI = 1 << 20


def small(seed: int) -> World:
    """A few busy apps with specs of any kind on a few machines that may be too small, for two minutes."""
    chance = random.Random(seed)
    pick = chance.choice
    apps = []
    for number in range(3):
        trace = Trace(
            seed=seed * 7 + number, kind=pick(["timer", "poisson", "burst"]), rate_per_s=pick([0.05, 0.3, 2.0, 6.0]),
            variation=pick([0.01, 1.0, 4.0]), duration_s=pick([0.01, 0.2, 1.5]), memory_bytes=pick([16, 64, 400]) * MI,
            boot_s=pick([0.05, 0.5, 5.0]), diurnal=False, phase=chance.random(),
        )  # fmt: skip
        spec = ScaleSpec(
            min_scale=pick([0, 0, 1]),
            max_scale=pick([0, 2, 5]),
            stable_window_s=pick([6.0, 20.0, 60.0]),
            target_utilization=pick([0.7, 1.0]),
            scale_down_delay_s=pick([0.0, 0.0, 10.0]),
            activation_scale=pick([0, 0, 2]),
            retention_s=pick([0.0, 30.0]),
        )
        revision = Revision(
            project="p", name=f"r{number}", image=f"i@sha256:{number}", memory_request_bytes=trace.memory_bytes, scale=spec,
            container_concurrency=pick([0, 1, 1, 4]), timeout_s=60,
        )  # fmt: skip
        apps.append((revision, trace))
    nodes = [
        Node(node=f"n{n}", cpu_m=2000, memory_bytes=pick([600, 4096]) * MI, slots=pick([8, 100]))
        for n in range(pick([1, 2, 3]))
    ]
    faults = pick([Faults(), Faults(start=0.1), Faults(start=0.3, node=0.01), Faults(node=0.03, away_s=5)])
    return World(seed, apps, nodes, CALLS_S, policy=simulate.POLICIES[seed % len(simulate.POLICIES)], faults=faults)


@pytest.mark.parametrize("first", range(0, len(SEEDS), 30))
def test_limits_hold_no_call_is_lost_and_all_comes_to_rest(first: int) -> None:
    for seed in SEEDS[first : first + 30]:
        world = small(seed)
        world.play(CALLS_S + 400)
        where = f"seed {seed}: replay with small({seed}).play({CALLS_S + 400:.0f})"
        assert not world.broken, f"{where}: {world.broken[:3]}"
        for key, app in world.apps.items():
            assert app.ledger.came == app.ledger.served + app.ledger.refused, f"{where}: {key}: {app.ledger}"
            assert app.throttler.load.present == 0, f"{where}: {key} has {app.throttler.load.present} calls left"
            least = app.revision.scale.min_scale
            kept = (
                world.policy in ("learned", "frugal", "frozen")
                and app.mind.keep is not None
                and app.mind.keep.warm(world.now - app.busy_at)
            )
            most = max(least, int(kept))
            assert app.mind.last is None or least <= app.mind.last.desired <= most, (
                f"{where}: {key} does not come to rest: {app.mind.last}"
            )
            standing = world.fleet.standing(key).asked
            assert standing <= (most if app.ledger.came else 0), f"{where}: {key}: {standing} stand, {most} should"
            parked = [slot for slot in world.fleet.of(key) if slot.goal == Goal.PARK]
            assert len(parked) <= 1, f"{where}: {key} has {len(parked)} parked"


def test_the_same_seed_is_the_same_world_and_another_is_another() -> None:
    first, again, other = (simulate.make(seed, 6, 900, "learned", faulty=True) for seed in (3, 3, 4))
    for world in (first, again, other):
        world.play(1200)
    assert simulate.summary(first) == simulate.summary(again)
    assert simulate.summary(first) != simulate.summary(other)


def test_callers_are_the_same_under_every_policy() -> None:
    worlds = [simulate.make(5, 10, 1800, policy) for policy in simulate.POLICIES]
    for world in worlds:
        world.play(world.until + 300)
    assert len({world_calls(world) for world in worlds}) == 1


def world_calls(world: World) -> tuple[int, ...]:
    return tuple(app.ledger.came for app in world.apps.values())


def test_traces_have_the_published_shape() -> None:
    traces = draw(1, 4000)
    rates = sorted(trace.rate_per_s for trace in traces)
    assert rates[int(0.45 * 4000)] == pytest.approx(1 / 3600, rel=0.2)
    assert rates[int(0.81 * 4000)] == pytest.approx(1 / 60, rel=0.2)
    assert min(rates) >= 0.9 / DAY_S
    durations = sorted(trace.duration_s for trace in traces)
    assert 0.5 < durations[2000] < 1
    memory = sorted(trace.memory_bytes / MI for trace in traces)
    assert 100 < memory[2000] < 200
    assert 250 < memory[3600] < 600


def test_a_timer_calls_on_its_beat() -> None:
    timer = Trace(1, "timer", 1 / 600, 0.01, 0.1, MI, 0.5, diurnal=False, phase=0.0)
    times = [at for at, _ in timer.calls(DAY_S)]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert all(590 < gap < 610 for gap in gaps)


def test_what_comes_on_a_beat_is_started_ahead() -> None:
    """A call every ten minutes: ten minutes of one instance a call, or a cold start each, unless the beat is learned."""
    timer = Trace(1, "timer", 1 / 600, 0.01, 0.1, 128 * MI, 0.5, diurnal=False, phase=0.5)
    app = Revision(project="p", name="r", image="i@sha256:1", memory_request_bytes=128 * MI)
    node = Node(node="n", cpu_m=2000, memory_bytes=1 << 30)
    found = {}
    for policy in ("knative", "learned"):
        world = World(1, [(app, timer)], [node], DAY_S, policy=policy)
        world.play(DAY_S + 300)
        found[policy] = simulate.summary(world)
    assert found["knative"]["cold_share"] == 1
    assert found["learned"]["cold_share"] < 0.15
    assert found["learned"]["wasted_gb_h"] < 1.6 * found["knative"]["wasted_gb_h"]


def test_habits_halve_the_cold_calls_of_bursts_for_no_more_memory() -> None:
    """Callers in bursts tell little of when the next one comes: what is won comes of letting go what only the burst needed."""
    found = {}
    for policy in ("knative", "learned"):
        world = simulate.make(53, 20, 6 * 3600, policy, mix="people", calls=2e4)
        world.play(world.until + 300)
        assert not world.broken
        found[policy] = simulate.summary(world)
    assert found["learned"]["cold_share"] < 0.5 * found["knative"]["cold_share"]
    assert found["learned"]["wasted_gb_h"] <= found["knative"]["wasted_gb_h"]
    assert found["learned"]["slowdown_p99"] < found["knative"]["slowdown_p99"]


def test_what_boots_slowly_is_frozen_and_starts_once() -> None:
    """Five calls an hour by chance, a boot of four seconds: each call that was too late for the keep-alive thaws the one instance."""
    trace = Trace(3, "poisson", 5 / 3600, 1.0, 0.1, 256 * MI, 4.0, diurnal=False, phase=0.5)
    app = Revision(project="p", name="r", image="i@sha256:1", memory_request_bytes=256 * MI)
    found = {}
    for policy in ("learned", "frozen"):
        world = World(1, [(app, trace)], [Node(node="n", cpu_m=2000, memory_bytes=1 << 30)], DAY_S, policy=policy)
        world.play(DAY_S + 300)
        assert not world.broken
        found[policy] = simulate.summary(world)
    assert found["learned"]["started"] > 20
    assert found["frozen"]["started"] == 1
    assert found["learned"]["slowdown_p99"] > 20
    assert found["frozen"]["slowdown_p50"] < 1.2


@pytest.mark.parametrize("seed", [2, 3])
def test_frugal_habits_hold_half_the_idle_memory_and_can_still_find_fewer_cold_calls(seed: int) -> None:
    """Not of all callers: of most mixes more calls wait then (docs/policies.md)."""
    found = {}
    for policy in ("knative", "frugal"):
        world = simulate.make(seed, 40, 8 * 3600, policy, mix="rare", calls=2e4)
        world.play(world.until + 300)
        assert not world.broken
        found[policy] = simulate.summary(world)
    assert found["frugal"]["cold_share"] <= found["knative"]["cold_share"]
    assert found["frugal"]["wasted_gb_h"] <= 0.5 * found["knative"]["wasted_gb_h"]


@pytest.mark.parametrize("boot_s", [0.0, 0.4])
def test_a_burst_from_zero_has_what_it_needs_within_half_a_second_and_no_more(boot_s: float) -> None:
    """A hundred callers at once, each calling again as soon as it was answered, one at a time in an instance, 200 ms each."""
    trace = Trace(1, "timer", 1e-6, 0.01, 0.2, 64 * MI, boot_s, diurnal=False, phase=0.5)
    app = Revision(
        project="p", name="r", image="i@sha256:1", memory_request_bytes=16 * MI, container_concurrency=1,
        scale=ScaleSpec(stable_window_s=10),
    )  # fmt: skip
    world = World(1, [(app, trace)], [Node(node="n", cpu_m=2000, memory_bytes=16 << 30)], 10.0)
    callers = Callers(world, app.key, 100, until=9.0)
    world.play(0.5 + boot_s)
    standing = world.fleet.standing(app.key)
    assert 100 <= standing.asked <= 143, f"{standing} half a second after a hundred came"
    most = 0
    for tenth in range(5, 90):
        world.play(tenth / 10)
        most = max(most, world.fleet.standing(app.key).asked)
    assert most <= 143, "a hundred, each with the headroom of the target of 70 %"
    assert callers.served > 3_000
    world.play(60)
    assert world.fleet.standing(app.key).asked == 0


class Callers:
    """So many that call an app, and again as soon as they were answered."""

    def __init__(self, world: World, key: str, count: int, until: float) -> None:
        self.served, self._world, self._app, self._until = 0, world, world.apps[key], until
        world.answered = self._answered
        for _ in range(count):
            world.ask(self._app, 0.2)

    def _answered(self, _: object) -> None:
        self.served += 1
        if self._world.now < self._until:
            self._world.ask(self._app, 0.2)
