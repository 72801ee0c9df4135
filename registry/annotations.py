"""The annotations that say how a revision scales: names, ranges, and what they become (`ScaleSpec`)."""

from collections.abc import Callable, Mapping
from typing import Any

from registry import schedule
from registry.problem import Problems, closest
from registry.quantity import duration_s
from store.model import ScaleSpec

PREFIX = "autoscaling.knative.dev/"
POLICY = "ebb.dev/policy"
IDLE = "ebb.dev/idle"
_KPA, _HPA = "kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev"

Parser = Callable[[str], Any]
"""Raises ValueError whose text says what is allowed."""


def _number(low: float, high: float | None = None, *, whole: bool = False, also: float | None = None) -> Parser:
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} from {low:g} to {high:g}" if high is not None else f"{kind} of at least {low:g}"
    if also is not None:
        allowed += f", or {also:g}"

    def parse(text: str) -> float | int:
        try:
            value: float = int(text) if whole else float(text)
        except ValueError:
            raise ValueError(allowed) from None
        inside = low <= value and (high is None or value <= high) and value < float("inf")
        if not (inside or (also is not None and value == also)):
            raise ValueError(allowed)
        return value

    return parse


def _duration(low_s: float, high_s: float) -> Parser:
    allowed = f"a duration in whole seconds from {low_s:g}s to {high_s:g}s, like 60s or 1m30s"

    def parse(text: str) -> float:
        try:
            value = duration_s(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not low_s <= value <= high_s or value != int(value):
            raise ValueError(allowed)
        return value

    return parse


def _word(*words: str, instead: str = "") -> Parser:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words) + instead)
        return text

    return parse


KNOWN: dict[str, tuple[str, Parser]] = {
    "class": ("scaling_class", _word(_KPA, _HPA)),
    "metric": ("metric", _word("concurrency", "rps", "cpu", "memory")),
    "target": ("target", _number(0.01)),
    "target-utilization-percentage": ("target_utilization", _number(1, 100)),
    "min-scale": ("min_scale", _number(0, 100_000, whole=True)),
    "max-scale": ("max_scale", _number(0, 100_000, whole=True)),
    "initial-scale": ("initial_scale", _number(0, 100_000, whole=True)),
    "activation-scale": ("activation_scale", _number(2, 100_000, whole=True)),
    "scale-down-delay": ("scale_down_delay_s", _duration(0, 3600)),
    "scale-to-zero-pod-retention-period": ("retention_s", _duration(0, 86_400)),
    "window": ("stable_window_s", _duration(6, 3600)),
    "panic-window-percentage": ("panic_window_percentage", _number(1, 100)),
    "panic-threshold-percentage": ("panic_threshold_percentage", _number(110, 1000)),
    "target-burst-capacity": ("target_burst_capacity", _number(0, also=-1)),
    "metric-aggregation-algorithm": ("aggregation", _word("linear", "weighted-exponential")),
}
"""Annotation (without prefix) → field of ScaleSpec and its parser."""


SCHEDULE = "ebb.dev/schedule"
_WORDS = {POLICY: ("policy", ("knative", "learned", "frugal")), IDLE: ("idle", ("park", "freeze"))}
"""Annotations of our own: the field of ScaleSpec, and what it may be."""


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(word.capitalize() for word in rest)


ALIASES: dict[str, str] = {_camel(name): name for name in KNOWN if "-" in name}


def scale_values(annotations: Mapping[str, Any], problems: Problems, path: str) -> dict[str, Any]:
    """Fields of ScaleSpec that `annotations` set; what is wrong with them goes to `problems`."""
    found: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for key, raw in annotations.items():
        if key in _WORDS:
            field, words = _WORDS[key]
            if raw in words:
                found[field] = raw
            else:
                problems.bad(f"{path}[{key}]", raw, " or ".join(words))
        if key == SCHEDULE:
            try:
                found["schedules"] = schedule.parse(raw if isinstance(raw, str) else "")
            except ValueError as error:
                problems.bad(f"{path}[{key}]", raw, str(error))
        if not isinstance(key, str) or not key.startswith(PREFIX):
            continue
        where = f"{path}[{key}]"
        name = ALIASES.get(key[len(PREFIX) :], key[len(PREFIX) :])
        if name not in KNOWN:
            problems.bad(where, key, f"{', '.join(PREFIX + k for k in KNOWN)}{closest(name, KNOWN)}")
            continue
        if name in seen:
            problems.twice(where, f"{seen[name]} and {key}")
            continue
        seen[name] = key
        field, parse = KNOWN[name]
        try:
            value = parse(raw.strip() if isinstance(raw, str) else "")
        except ValueError as error:
            problems.bad(where, raw, str(error))
            continue
        if field:
            found[field] = value / 100 if field == "target_utilization" else value
    _by_class(found, problems, path)
    if found.keys() & {"stable_window_s", "retention_s", "scale_down_delay_s"}:
        found.setdefault("policy", "knative")  # Who says how long means it, whatever the operator's policy is.
    low, high = found.get("min_scale", 0), found.get("max_scale", 0)
    if high and low > high:
        problems.bad(f"{path}[{PREFIX}min-scale]", low, f"at most max-scale, which is {high}")
    if high and found.get("initial_scale", 1) > high:
        problems.bad(f"{path}[{PREFIX}initial-scale]", found["initial_scale"], f"at most max-scale, which is {high}")
    return found


def _by_class(found: dict[str, Any], problems: Problems, path: str) -> None:
    """What the class says of the metric, in Knative's manner: hpa scales by cpu or memory, cpu when nothing is said, and not to zero."""
    if found.pop("scaling_class", _KPA) != _HPA:
        return
    if found.setdefault("metric", "cpu") not in ("cpu", "memory"):
        problems.bad(f"{path}[{PREFIX}metric]", found["metric"], f"cpu or memory with class {_HPA}")
    found["scale_to_zero"] = False


def scale_spec(annotations: Mapping[str, Any]) -> ScaleSpec:
    """The scaling of a revision whose annotations are valid; invalid ones are left at their default."""
    return ScaleSpec(**scale_values(annotations, Problems(), ""))
