"""How a revision scales and where it may go, as its service says; and what was learned of it. Parts of the typed model (`model`)."""

from store.schema import V1, Model


class Schedule(Model, frozen=True, kw_only=True):
    """At least `min_scale` instances for `for_s` seconds from each minute of local time that all fields match. Fields are bits: bit 5 of
    `minutes` is minute 5, bit 0 of `weekdays` Sunday."""

    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    any_day: bool = False
    """Either of the two days is enough."""
    zone: str = "UTC"
    min_scale: int
    for_s: float


class ScaleSpec(Model, frozen=True, kw_only=True):
    """How a revision scales: Knative's annotations with its defaults (KPA). Meanings: docs of autoscaler/policy.py."""

    metric: str = "concurrency"
    """concurrency or rps; cpu or memory: autoscaler/utilization.py."""
    target: float = 0
    """Per instance; 0: containerConcurrency or 100 (concurrency), 200 (rps), 80 (cpu and memory). cpu: percent of the request;
    memory: MiB, and without one percent of the request."""
    target_utilization: float = 0.7
    min_scale: int = 0
    max_scale: int = 0
    """0: no limit."""
    initial_scale: int = 1
    activation_scale: int = 0
    stable_window_s: float = 60
    panic_window_percentage: float = 10
    panic_threshold_percentage: float = 200
    max_scale_up_rate: float = 1000
    max_scale_down_rate: float = 2
    scale_down_delay_s: float = 0
    scale_to_zero: bool = True
    scale_to_zero_grace_s: float = 30
    retention_s: float = 0
    target_burst_capacity: float = 211
    aggregation: str = "linear"
    """linear or weighted-exponential."""
    idle: str = ""
    """What becomes of the last instance: park (stopped, and one created anew but not started) or freeze. Empty: park, unless its policy
    chooses to freeze it (autoscaler/freezing.py)."""
    schedules: list[Schedule] = []
    policy: str = ""
    """knative: its windows alone. learned: when idle, by the revision's own idle times (autoscaler/keepalive.py). frugal: so, with
    half the idle memory. Empty: what the
    operator says (`--policy` of the autoscaler), knative unless that is changed."""


class Taint(Model, frozen=True, kw_only=True):
    """A node with it takes only what tolerates it. Kubernetes' meaning, with its effect NoSchedule."""

    key: str
    value: str = ""


class Toleration(Model, frozen=True, kw_only=True):
    """Tolerates taints of that key (any, when empty) and, with `exists` false, that value."""

    key: str = ""
    value: str = ""
    exists: bool = False


class Habits(Model, frozen=True, kw_only=True):
    """What the autoscaler learned of one revision that follows its own habits: autoscaler/profile.py."""

    v: int = V1
    idle: list[tuple[int, float]] = []
    """(bin, idle times), the empty ones left out."""
    count: int = 0
    mean_s: float = 0
    off_s: float = 0
    crowd: float = 1
    start_s: float = 0
    phases_s: dict[str, float] = {}
    busy_at: float = 0
