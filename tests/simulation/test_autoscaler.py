"""The real signals, policy, placement and plan, played on virtual time from many seeds. A failure prints its seed and replays."""

import pytest

from autoscaler.policy import target_of
from store.model import Goal, Revision, ScaleSpec
from tests.simulation.engine import App, Sim

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_hold_nobody_is_lost_and_all_comes_to_rest(seed: int) -> None:
    sim = Sim(seed)
    sim.run(300)
    if any(app.load for app in sim.apps.values()):
        sim.run(5000)  # Asked for more than its nodes or its max-scale can do: that takes as long as it takes.
    where = f"seed {seed}: replay with Sim({seed}).run({sim.now:.0f})"
    assert not sim.broken, f"{where}: {sim.broken[:3]}"
    for key, app in sim.apps.items():
        assert app.load == 0, f"{where}: {key} still has {app.load} requests, {app.last}"
        assert app.served == app.arrived_in_all, f"{where}: {key} served {app.served} of {app.arrived_in_all}"
        assert sim.fleet.standing(key).asked == app.revision.scale.min_scale, (
            f"{where}: {key} does not come to rest: {app.last}"
        )
        parked = [s for s in sim.fleet.of(key) if s.goal == Goal.PARK]
        assert len(parked) <= 1, f"{where}: {key} has {len(parked)} parked"


def steady(seed: int, cc: int, rate: float, service_s: float, start_s: float) -> tuple[Sim, App]:
    """One app under one rate for two minutes."""
    sim = Sim(seed, apps=0)
    for node in list(sim.fleet.nodes):
        sim.fleet.drop_node(node, 0)
    sim._make_nodes()
    revision = Revision(
        project="p", name="r", image="i@sha256:1", container_concurrency=cc, scale=ScaleSpec(stable_window_s=20)
    )
    app = sim.apps["p/r"] = App(revision, service_s, start_s, [(1.0, 0.0), (120.0, rate)])
    sim._at(1.0, "arrive", "p/r")
    return sim, app


@pytest.mark.parametrize("start_s", [0.02, 2.0])
@pytest.mark.parametrize(("cc", "rate", "service_s"), [(1, 20, 0.2), (4, 30, 0.4), (10, 40, 0.5)])
def test_under_steady_load_it_finds_the_need_and_no_more(cc: int, rate: float, service_s: float, start_s: float) -> None:
    for seed in range(5):
        sim, app = steady(seed, cc, rate, service_s, start_s)
        need = rate * service_s / target_of(app.revision.scale, cc).target
        ready, queued = list[int](), list[int]()
        for second in range(60, 120):
            sim.run(second)
            ready.append(sim.fleet.standing("p/r").ready)
            queued.append(len(app.queue))
        mean = sum(ready) / len(ready)
        assert not sim.broken, f"seed {seed}: {sim.broken[:3]}"
        assert 0.8 * need <= mean <= 2 * need, f"seed {seed}: {mean:.1f} for a need of {need:.1f}; {app.last}"
        assert sum(queued) / len(queued) < rate / 4, f"seed {seed}: {queued} wait"


def test_a_quick_starter_is_up_within_a_tenth_of_a_second_of_its_first_caller() -> None:
    sim, app = steady(1, 1, 1.0, 0.02, 0.02)
    sim.run(2.0)
    first = app.arrived_in_all
    sim.run(6.0)
    assert app.arrived_in_all > first or app.served
    assert not app.queue
