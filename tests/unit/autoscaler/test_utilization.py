"""Scaling by CPU and memory, by the rules of Kubernetes' HPA."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy import Decision, Memory, Mode, Standing, decide
from autoscaler.signals import Signal
from autoscaler.utilization import STALE_AFTER_S, Usage, Used, need
from store.model import Revision, ScaleSpec

MI = 1 << 20


def revision(metric: str, target: float = 0, **scale: object) -> Revision:
    spec = ScaleSpec(metric=metric, target=target, **scale)  # type: ignore[arg-type]
    return Revision(project="p", name="r", image="i@sha256:1", cpu_request_m=500, memory_request_bytes=100 * MI, scale=spec)


def cpu(rev: Revision, cpu_m: float, ready: int, memory: Memory, now: float, **mode: object) -> Decision:
    signal = Signal(used=Used(cpu_m, 0, ready), in_flight=1)
    return decide(rev, signal, Standing(ready), Mode(**({"idle_s": 0.0} | mode)), memory, now)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "target", "used", "ready", "needed"),
    [
        ("cpu", 0, Used(400, 0, 2), 2, 2),
        ("cpu", 0, Used(800, 0, 2), 2, 4),
        ("cpu", 50, Used(500, 0, 3), 3, 6),
        ("cpu", 0, Used(435, 0, 2), 2, 2),
        ("cpu", 0, Used(445, 0, 2), 2, 3),
        ("cpu", 0, Used(1, 0, 5), 5, 1),
        ("memory", 0, Used(0, 160 * MI, 2), 2, 4),
        ("memory", 200, Used(0, 300 * MI, 2), 2, 3),
    ],
)
def test_the_need_is_ready_times_use_over_target_with_a_tenth_of_tolerance(
    metric: str, target: float, used: Used, ready: int, needed: int
) -> None:
    found = need(revision(metric, target), used, ready)
    assert found is not None
    assert found[0] == needed


def test_what_is_not_known_is_not_decided() -> None:
    assert need(revision("cpu"), None, 3) is None
    assert need(Revision(project="p", name="r", image="i", scale=ScaleSpec(metric="memory")), Used(1, 1, 1), 1) is None
    unheard = decide(revision("cpu"), Signal(in_flight=1), Standing(3), Mode(idle_s=0), Memory(), 0)
    assert unheard.desired == 3


def test_up_at_once_and_down_after_five_minutes_without_need() -> None:
    rev = revision("cpu")
    up = cpu(rev, 800, 4, Memory(), 0)
    assert up.desired == 8
    calm = cpu(rev, 100, 8, up.memory, 200)
    assert calm.desired == 8, "the most of the last five minutes"
    assert cpu(rev, 100, 8, calm.memory, 301).desired == 2
    assert cpu(revision("cpu", scale_down_delay_s=30), 100, 8, up.memory, 31).desired == 2


def test_bounds_and_what_is_in_flight_hold_as_ever() -> None:
    assert cpu(revision("cpu", max_scale=5), 4000, 4, Memory(), 0).desired == 5
    busy = Signal(used=Used(1, 0, 4), in_flight=40)
    one_each = Revision(project="p", name="r", image="i", container_concurrency=10, scale=ScaleSpec(metric="cpu"))
    assert decide(one_each, busy, Standing(6), Mode(idle_s=0), Memory(), 0).desired == 4


def test_it_goes_to_zero_after_a_window_unless_its_class_forbids() -> None:
    idle = Signal(used=Used(1, 0, 1))
    assert decide(revision("cpu"), idle, Standing(1), Mode(idle_s=70, active_s=500), Memory(), 0).desired == 0
    hpa = revision("cpu", scale_to_zero=False)
    assert decide(hpa, idle, Standing(1), Mode(idle_s=70, active_s=500), Memory(), 0).desired == 1


def test_reports_are_smoothed_and_forgotten_when_a_node_falls_silent() -> None:
    usage = Usage()
    for second in range(0, 60, 5):
        usage.take("a", 100, 10 * MI, second)
        usage.take("b", 300, 30 * MI, second)
    assert usage.mean(60) == Used(pytest.approx(200), pytest.approx(20 * MI), 2)
    usage.take("a", 1100, 10 * MI, 61)
    mean = usage.mean(61)
    assert mean is not None
    assert mean.cpu_m == pytest.approx(350)
    assert usage.mean(61 + STALE_AFTER_S + 1) is None


@given(st.floats(0, 1e5), st.integers(1, 500), st.floats(1, 200))
def test_with_the_need_met_use_is_at_or_below_the_target_and_it_stays(total_cpu_m: float, ready: int, target: float) -> None:
    rev = revision("cpu", target)
    for _ in range(60):
        found = need(rev, Used(total_cpu_m / ready, 0, ready), ready)
        assert found is not None
        if found[0] == ready:
            break
        ready = found[0]
    assert total_cpu_m / ready <= 1.1 * 500 * target / 100 + 1e-6 or ready == 1 or found[0] == ready
    assert found[0] == ready
