"""Cold starts one at a time, from before the client connects to the first byte of the answer, each from zero.

Each phase is a median of its own, from the story and from what the node says, so they need not add up.
"""

import statistics
import time
from collections.abc import Mapping

from deploy.bench_cold_engine import FROZEN, IMAGE, PARKED, ApiError, BenchEngine, NotAnswered, note, percentile
from deploy.bench_images import python_image

WINDOW_S = 6
BETWEEN = {
    "queue": ("request waiting", "wake sent"),
    "decide": ("wake sent", "decided"),
    "answer": ("dispatched", "first byte"),
}
"""Phase → the steps of the story it lies between."""
CREATING = ("network", "snapshot", "create")
"""The node's own steps that belong to `create`; a parked instance has them behind it."""


PYTHON = "bench:python"
SANDBOXED = {"run.googleapis.com/execution-environment": "sandboxed"}
FREEZE = {"ebb.dev/idle": "freeze"}


def parked(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.parked_*`: one instance of each service stands created."""
    return cold(engine, "parked", quick, standing=PARKED)


def pooled(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.pooled_*`: nothing of the service stands."""
    return cold(engine, "pooled", quick, standing="")


def frozen(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.frozen_*`: the last instance stands stopped by the freezer."""
    return cold(engine, "frozen", quick, standing=FROZEN, annotations=FREEZE)


def frozen_python(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.frozen_python_*`: the same of a web app in Python."""
    engine.import_image(PYTHON, python_image(engine.home / "python.tar"))
    return cold(engine, "frozen_python", quick, standing=FROZEN, annotations=FREEZE, image=PYTHON)


def gvisor(engine: BenchEngine, quick: bool) -> dict[str, float]:
    """`cold.gvisor_*` with nothing parked, and `cold.gvisor_parked_*`."""
    figures = cold(engine, "gvisor", quick, standing="", annotations=SANDBOXED)
    return figures | cold(engine, "gvisor_parked", quick, standing=PARKED, annotations=SANDBOXED)


def cold(
    engine: BenchEngine,
    kind: str,
    quick: bool,
    *,
    standing: str,
    annotations: Mapping[str, str] | None = None,
    image: str = IMAGE,
) -> dict[str, float]:
    """Cold starts over some services, in rounds: all at zero, one in the phase `standing` or none, then each called once."""
    services, samples = (5, 15) if quick else (10, 60)
    names = [f"{kind.replace('_', '-')}-{n}" for n in range(services)]
    for name in names:
        engine.deploy(name, park=standing == PARKED, window_s=WINDOW_S, annotations=annotations, image=image)
    engine.until_ready(names, 60)
    took: list[float] = []
    failed = 0
    phases: dict[str, list[float]] = {}
    while len(took) + failed < samples:
        engine.until_at_zero(names, standing)
        time.sleep(0.3)
        for name in names[: samples - len(took) - failed]:
            try:
                took_ms, cause = engine.first_byte(name)
            except NotAnswered as error:
                failed += 1
                note(f"{kind}: {error}")
                continue
            took.append(took_ms)
            time.sleep(0.1)
            _note_phases(engine, cause, phases, created=standing != "")
        note(f"{kind}: {len(took)} of {samples} cold starts, p50 {statistics.median(took):.1f} ms")
    engine.delete(names)
    figures = {f"cold.{kind}_p50_ms": percentile(took, 0.5), f"cold.{kind}_p99_ms": percentile(took, 0.99)}
    figures |= {f"cold.{kind}_failed": failed} if failed else {}
    figures |= {f"cold.phases.{kind}.{name}_ms": statistics.median(values) for name, values in phases.items()}
    return {name: round(value, 2) for name, value in figures.items()}


def _note_phases(engine: BenchEngine, cause: str, phases: dict[str, list[float]], *, created: bool) -> None:
    """Add what the story and the node say of one cold start; a step that was lost on its way costs only its phase."""
    try:
        events = engine.story(cause) if cause else []
    except ApiError:
        return
    at: dict[str, float] = {}
    for event in events:
        at.setdefault(event["what"], event["at"])
        if event["what"] == "assigned" and "etcd_ms" in event.get("detail", {}):
            phases.setdefault("etcd", []).append(float(event["detail"]["etcd_ms"]))
    for phase, (begin, end) in BETWEEN.items():
        if begin in at and end in at:
            phases.setdefault(phase, []).append((at[end] - at[begin]) * 1000)
    instance = next((e["instance"] for e in events if e["what"] == "dispatched" and e.get("instance")), "")
    status = engine.instance(instance)
    if status is None:
        return
    if "dispatched" in at and status["phase"] == "Ready" and status["at"] <= at["dispatched"]:  # else it is of a later life
        phases.setdefault("dispatch", []).append((at["dispatched"] - status["at"]) * 1000)
    steps = {name: float(took) for name, took in status.get("phases_ms", {}).items()}
    if not created and any(name in steps for name in CREATING):
        phases.setdefault("create", []).append(sum(steps.get(name, 0.0) for name in CREATING))
    for name in ("start", "app", "probe"):
        if name in steps:
            phases.setdefault(name, []).append(steps[name])
