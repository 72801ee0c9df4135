"""What is said on NATS, and on which subjects. All of it may be lost: whoever needs it to be true reads etcd.

Who may say what is in store/roles.py. What a node says has its name in the subject, which its certificate holds it to: a message
that names another node is not believed (`said_by`).

| subject                          | message       | from → to               | rate                                     |
|----------------------------------|---------------|-------------------------|------------------------------------------|
| ebb.wake                         | Wake          | activator → autoscaler  | on the first waiting request, then 4/s   |
| ebb.samples                      | SampleReport  | activator → autoscaler  | 1/s a process with traffic, on 0 → 1, a line swells |
| ebb.instance.<node>              | Instance      | agent → all             | one a change of phase                    |
| ebb.usage.<node>                 | UsageReport   | agent → autoscaler      | 1 in 5 s a node that is asked for it     |
| ebb.refusal                      | Refusal       | autoscaler → activators | when a start fails or nothing fits       |
| ebb.drained.<node>               | Drained       | activator → agent       | one a drained or frozen instance         |
| ebb.story                        | StoryEvents   | all → registry          | one in 50 ms with starts; none when warm |
| ebb.image.resolve (request)      | ResolveImage  | registry → any agent    | one a minted revision                    |
| ebb.image.progress.<node>        | PullProgress  | agent → registry        | ≤ 5/s a pull                             |
| ebb.identity.<node> (request)    | AskIdentity   | agent → registry        | one an hour an instance and service that it calls |
| ebb.why (request)                | AskWhy        | registry → autoscaler   | one a `ebb why`                          |
| ebb.logs.<project>.<service>     | LogLines      | agent → registry        | only while somebody follows              |
"""

from store.model import V1, Instance, Model, RevisionKey, Values

WAKE = "ebb.wake"
SAMPLES = "ebb.samples"
INSTANCES = "ebb.instance.>"
USAGES = "ebb.usage.>"
REFUSAL = "ebb.refusal"
STORY = "ebb.story"
IMAGE_RESOLVE = "ebb.image.resolve"
IDENTITIES = "ebb.identity.>"
IMAGE_PROGRESSES = "ebb.image.progress.>"
WHY = "ebb.why"

__all__ = ["Instance"]


def instance(node: str) -> str:
    return f"ebb.instance.{node}"


def usage(node: str) -> str:
    return f"ebb.usage.{node}"


def image_progress(node: str) -> str:
    return f"ebb.image.progress.{node}"


def said_by(node: str, subject: str) -> bool:
    """Whether `subject`, one of those that end in a node's name, is that node's."""
    return subject.endswith("." + node) and subject in (instance(node), usage(node), image_progress(node))


def drained(node: str) -> str:
    return f"ebb.drained.{node}"


def identity(node: str) -> str:
    """Where the agent of `node` asks for identity tokens (store/identity.py)."""
    return f"ebb.identity.{node}"


def logs(project: str, service: str) -> str:
    return f"ebb.logs.{project}.{service}"


class Wake(Model, frozen=True, kw_only=True):
    """`revision` has `waiting` requests and nothing to run them."""

    v: int = V1
    revision: RevisionKey
    waiting: int
    sender: str
    cause_id: str = ""
    at: float = 0


class Sample(Model, frozen=True, kw_only=True):
    """What one activator saw of one revision since its last report."""

    revision: RevisionKey
    concurrency: float
    """Time-weighted mean of requests in flight and queued, over the report's interval."""
    requests: int
    """Requests that arrived in the interval."""
    in_flight: int = 0
    queued: int = 0
    swelling: bool = False
    """What is queued will, at its pace, still be so in a second, and more than what is on its way holds: do not wait for a tick."""
    by_instance: dict[str, int] = {}
    """In flight now, by instance: tells the autoscaler which one is idle."""


class SampleReport(Model, frozen=True, kw_only=True):
    """All revisions that had traffic at one activator. A revision that just became idle is reported once with zeros."""

    v: int = V1
    sender: str
    at: float
    interval_s: float
    samples: list[Sample]


class UsageReport(Model, frozen=True, kw_only=True):
    """What the instances of one node use whose revisions scale by it: (mean cpu_m since the last report, memory_bytes) by name."""

    v: int = V1
    node: str
    at: float
    used: dict[str, tuple[float, int]]


class Refusal(Model, frozen=True, kw_only=True):
    """Requests waiting for `revision` need not wait on: it cannot be started now. Answered with 503 and this cause."""

    v: int = V1
    revision: RevisionKey
    reason: str
    message: str
    retry_after_s: float = 1
    at: float = 0


class Drained(Model, frozen=True, kw_only=True):
    """`sender` has no request in flight at `instance` and sends it nothing new."""

    v: int = V1
    instance: str
    sender: str
    seq: int = 0
    """Of the status that it answers: an answer to an earlier Frozen says nothing about the present one. 0: of whichever."""


class StoryEvent(Model, frozen=True, kw_only=True):
    """One step in the life of a request, wake, deploy or instance; `ebb story` prints them in order of `at`."""

    v: int = V1
    at: float
    process: str
    what: str
    """In the words of the design: `wake sent`, `decided`, `placed`, `assignment seen`, `task started`, `ready`, …"""
    cause_id: str = ""
    instance: str = ""
    revision: RevisionKey = ""
    detail: dict[str, str | int | float] = {}


class StoryEvents(Model, frozen=True, kw_only=True):
    """What one process tells at once."""

    v: int = V1
    events: list[StoryEvent]


class ResolveImage(Model, frozen=True, kw_only=True):
    """Asks which digest `image` is now, and whether the project may have it."""

    v: int = V1
    image: str
    project: str = ""
    pull_secrets: list[Values] = []
    """As they are stored, sealed: before a revision is minted no node may read them by itself."""
    own_imports: bool = True
    """Whether what the project itself imported counts; else only what was imported for all, and registries."""
    signature_keys: list[str] = []
    """Public keys (PEM), one of which must have signed it; none: no signature is asked for."""


class ResolvedImage(Model, frozen=True, kw_only=True):
    """`image` as `host/repository@sha256:…`, or the reason why not (ImageNotFound, Unauthorized, WrongPlatform, …)."""

    v: int = V1
    image: str = ""
    reason: str = ""
    message: str = ""


class AskWhy(Model, frozen=True, kw_only=True):
    """Asks the leading autoscaler why these revisions have the instances they have."""

    v: int = V1
    revisions: list[RevisionKey]


class WhyStep(Model, frozen=True, kw_only=True):
    """One step of a decision: after `rule` the wish is `value`."""

    rule: str
    value: float
    why: str


class WhyDecision(Model, frozen=True, kw_only=True):
    """One decision of the autoscaler; `at` in wall seconds."""

    at: float
    desired: int
    reason: str
    ready: int
    starting: int
    excess_burst_capacity: float = 0
    """Requests more than `target-burst-capacity` that would fit into what is ready; negative: so many fewer."""
    outcome: str = ""
    cause_id: str = ""
    steps: list[WhyStep] = []


class WhyRevision(Model, frozen=True, kw_only=True):
    """One revision: what stands, what is known of its habits, and its last decisions, oldest first."""

    revision: RevisionKey
    ready: int = 0
    starting: int = 0
    profile: dict[str, float] = {}
    """idle_seen, idle_p50_s, idle_p95_s, call_s, bend, memory_bytes, cpu_m, call_cpu_m, call_cpu_s, call_memory_bytes, start_s,
    start_<phase>_s; what was learned of them."""
    decisions: list[WhyDecision] = []


class Why(Model, frozen=True, kw_only=True):
    """The answer to AskWhy."""

    v: int = V1
    revisions: list[WhyRevision] = []


class PullProgress(Model, frozen=True, kw_only=True):
    """How far a pull is. `layers` are (digest, bytes done, bytes total)."""

    v: int = V1
    node: str
    image: str
    state: str
    """resolving, pulling, unpacking, done, failed."""
    layers: list[tuple[str, int, int]] = []
    message: str = ""


class LogLine(Model, frozen=True, kw_only=True):
    """One line an instance wrote."""

    at: float
    instance: str
    revision: str
    stream: str
    """stdout or stderr: told by the pipe it came from, never by its content."""
    line: str


class LogLines(Model, frozen=True, kw_only=True):
    v: int = V1
    lines: list[LogLine]
